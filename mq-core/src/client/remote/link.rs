//! The connection to one broker: opened when it is needed, introduced by a heartbeat, opened again with pauses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::network::Network;
use super::{back_off, requests};
use crate::client::ClientError;
use crate::remoting::client::{Connection, Limits};
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::reserved;

/// How long a broker may take to answer a heartbeat.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// The way to the broker at one address.
#[derive(Debug)]
pub(super) struct BrokerLink {
    address: String,
    open: Mutex<Option<Connection>>,
    trouble: Mutex<Trouble>,
    /// One attempt at a time.
    opening: tokio::sync::Mutex<()>,
    /// One heartbeat at a time, so that the last one sent is the newest.
    saying: tokio::sync::Mutex<()>,
    native: AtomicBool,
}

/// Attempts that have failed in a row.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    not_before: Duration,
    why: String,
}

impl BrokerLink {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            open: Mutex::default(),
            trouble: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            saying: tokio::sync::Mutex::default(),
            native: AtomicBool::new(false),
        }
    }

    /// Whether the last attempt to reach it has failed.
    pub(super) fn is_down(&self) -> bool {
        self.trouble().failures > 0
    }

    /// Whether the broker has told that it is one of ours.
    pub(super) fn is_native(&self) -> bool {
        self.native.load(Ordering::Relaxed)
    }

    /// When the next attempt is due; `None` while the connection is open.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.current() {
            Some(_) => None,
            None => Some(self.trouble().not_before),
        }
    }

    /// The connection, if it is open.
    pub(super) fn current(&self) -> Option<Connection> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone().filter(|open| !open.is_closed())
    }

    /// The connection, opened if need be; everything this process says about itself has been heard on it.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when the broker cannot be reached, or could not a moment ago.
    pub(super) async fn connection(
        &self,
        network: &Arc<Network>,
    ) -> Result<Connection, ClientError> {
        if let Some(open) = self.current() {
            return Ok(open);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(open) = self.current() {
            return Ok(open);
        }
        {
            let trouble = self.trouble();
            if network.now() < trouble.not_before {
                return Err(self.unreachable(&trouble.why));
            }
        }
        match self.open(network).await {
            Ok(opened) => {
                *self.trouble() = Trouble::default();
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
                Ok(opened)
            }
            Err(error) => {
                let mut trouble = self.trouble();
                trouble.failures = trouble.failures.saturating_add(1);
                let pause = back_off::pause(trouble.failures, network.chance());
                trouble.not_before = network.now().saturating_add(pause);
                trouble.why = error.to_string();
                Err(error)
            }
        }
    }

    async fn open(&self, network: &Arc<Network>) -> Result<Connection, ClientError> {
        let asked = network.answering(&self.address);
        let opened = Connection::open_with(&*self.address, Limits::default(), asked).await;
        let connection = opened.map_err(|error| self.unreachable(&error.to_string()))?;
        self.introduce(&connection, network).await?;
        let (watched, network) = (connection.clone(), Arc::downgrade(network));
        tokio::spawn(async move {
            watched.closed().await;
            if let Some(network) = network.upgrade() {
                network.look();
            }
        });
        Ok(connection)
    }

    /// Says again what this process says about itself, if the connection is open.
    ///
    /// # Errors
    /// [`ClientError`]; a broker that has not answered has lost its connection.
    pub(super) async fn say(&self, network: &Arc<Network>) -> Result<(), ClientError> {
        match self.current() {
            Some(open) => self.introduce(&open, network).await,
            None => Ok(()),
        }
    }

    async fn introduce(
        &self,
        connection: &Connection,
        network: &Arc<Network>,
    ) -> Result<(), ClientError> {
        let _one_at_a_time = self.saying.lock().await;
        let answer = connection.call(network.heartbeat(), HEARD_WITHIN).await;
        let answer = answer.map_err(|error| {
            connection.close();
            self.unreachable(&error.to_string())
        })?;
        if answer.code != response::SUCCESS {
            return Err(requests::refused(
                &answer,
                &format!("broker {}", self.address),
            ));
        }
        let native = answer.fields.get(reserved::OURS).is_some();
        self.native.store(native, Ordering::Relaxed);
        Ok(())
    }

    /// Asks over the connection.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when nothing was sent, [`ClientError::Unknown`] when no answer came.
    pub(super) async fn call(
        &self,
        network: &Arc<Network>,
        command: Command,
        within: Duration,
    ) -> Result<Command, ClientError> {
        let connection = self.connection(network).await?;
        let answer = connection.call(command, within).await;
        answer.map_err(|error| ClientError::Unknown(format!("broker {}: {error}", self.address)))
    }

    /// Says goodbye for good.
    pub(super) fn close(&self) {
        if let Some(open) = self.current() {
            open.close();
        }
    }

    fn unreachable(&self, why: &str) -> ClientError {
        let why = why.strip_prefix(UNREACHABLE).unwrap_or(why);
        if why.contains(&self.address) {
            return ClientError::Unavailable(why.to_owned());
        }
        ClientError::Unavailable(format!("broker {} cannot be reached: {why}", self.address))
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How [`ClientError::Unavailable`] begins.
const UNREACHABLE: &str = "the broker cannot do this now, try again later: ";
