//! A line between clients and a server that a test can cut: TCP, forwarded until then.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What happens to the connections over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes go both ways.
    Whole,
    /// What is sent goes nowhere.
    Dumb,
    /// Both ends are closed.
    Cut,
}

/// A line from one address to another. It ends with this value.
#[derive(Debug)]
pub struct Line {
    /// The state of the connections that are open now; new ones get a state of their own after a cut.
    open: Arc<Mutex<watch::Sender<State>>>,
    taking: JoinHandle<()>,
}

impl Line {
    /// Forwards connections from `listen` to `to`.
    ///
    /// # Errors
    /// Nothing can listen there.
    pub async fn lay(listen: SocketAddr, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("nothing can listen at {listen}"))?;
        let open = Arc::new(Mutex::new(watch::Sender::new(State::Whole)));
        let taking = tokio::spawn(take(listener, to, Arc::clone(&open)));
        Ok(Self { open, taking })
    }

    /// What is connected now is left alone by every cut from here on.
    pub fn spare(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Its receivers see no more changes, and that is no end for them.
        *open = watch::Sender::new(State::Whole);
    }

    /// Has what is sent over the open connections go nowhere for a while, then closes them. New ones are whole.
    pub async fn cut_after(&self, dumb: Duration) {
        let old = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *open, watch::Sender::new(State::Whole))
        };
        old.send_replace(State::Dumb);
        tokio::time::sleep(dumb).await;
        old.send_replace(State::Cut);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.taking.abort();
    }
}

async fn take(listener: TcpListener, to: SocketAddr, open: Arc<Mutex<watch::Sender<State>>>) {
    let mut connections = JoinSet::new();
    loop {
        let near = match listener.accept().await {
            Ok((near, _)) => near,
            // That of one connection, which was gone before it was taken.
            Err(error) => {
                eprintln!("a connection over the line is not taken: {error}");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let state = {
            let open = open.lock().unwrap_or_else(PoisonError::into_inner);
            open.subscribe()
        };
        connections.spawn(forward(near, to, state));
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(mut near: TcpStream, to: SocketAddr, state: watch::Receiver<State>) {
    let Ok(mut far) = TcpStream::connect(to).await else {
        return;
    };
    // A line that delays is not what is tested here.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
    tokio::select! {
        () = one_way(from_near, to_far, state.clone()) => {}
        () = one_way(from_far, to_near, state) => {}
    }
}

/// Forwards until one end closes or the line is cut.
async fn one_way(
    mut from: tokio::net::tcp::ReadHalf<'_>,
    mut to: tokio::net::tcp::WriteHalf<'_>,
    mut state: watch::Receiver<State>,
) {
    let mut bytes = vec![0; 64 << 10];
    let mut can_be_cut = true;
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            cut = state.wait_for(|state| *state == State::Cut), if can_be_cut => match cut {
                Ok(_) => return,
                Err(_) => {
                    can_be_cut = false;
                    continue;
                }
            },
        };
        let Some(read) = read.ok().filter(|read| *read > 0) else {
            return;
        };
        let whole = *state.borrow() == State::Whole;
        let sent = bytes.get(..read).unwrap_or_default();
        if whole && to.write_all(sent).await.is_err() {
            return;
        }
    }
}
