//! The two threads of an open log: one writes, one does the upkeep.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::inbox::Waited;
use super::shared::Shared;
use super::writer::Writer;
use super::{AppendError, lock};

/// The running threads.
#[derive(Debug)]
pub(super) struct Threads {
    writer: Mutex<Option<JoinHandle<()>>>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

impl Threads {
    pub(super) fn start(shared: &Arc<Shared>, writer: Writer) -> io::Result<Self> {
        let owner = shared.clone();
        let upkeep = thread::Builder::new()
            .name("log-upkeep".into())
            .spawn(move || keep_up(&owner))?;
        let owner = shared.clone();
        let writer = thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || write(&owner, writer));
        if writer.is_err() {
            shared.upkeep.close();
        }
        Ok(Self {
            writer: Mutex::new(Some(writer?)),
            upkeep: Mutex::new(Some(upkeep)),
        })
    }

    /// Lets the writer finish what waits, then ends both threads. `false` if the caller is one of them: then they end
    /// by themselves.
    pub(super) fn stop(&self, shared: &Shared) -> bool {
        shared.inbox.close();
        let ended = join(&self.writer);
        shared.upkeep.close();
        join(&self.upkeep) && ended
    }
}

/// Waits for the thread; `false` at once if it is the caller.
fn join(thread: &Mutex<Option<JoinHandle<()>>>) -> bool {
    let mut slot = lock(thread);
    if slot
        .as_ref()
        .is_some_and(|handle| handle.thread().id() == thread::current().id())
    {
        return false;
    }
    let handle = slot.take();
    drop(slot);
    if let Some(handle) = handle {
        // A panic there has poisoned the log already, see `Alarm`.
        let _ = handle.join();
    }
    true
}

/// Poisons the log if its thread panics. Without a writer, appends are answered here and turned away.
struct Alarm<'a> {
    shared: &'a Shared,
    writer: bool,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let reason = "a thread of the log has panicked";
        self.shared.fail(reason.into());
        if self.writer {
            self.shared.inbox.close();
            let poisoned = || AppendError::Poisoned(reason.into());
            self.shared.inbox.answer_all(poisoned);
        }
    }
}

fn write(shared: &Shared, mut writer: Writer) {
    let _alarm = Alarm {
        shared,
        writer: true,
    };
    let mut submissions = Vec::new();
    loop {
        let sync_in = writer
            .unsynced_for()
            .map(|passed| shared.settings.sync_after.saturating_sub(passed));
        match shared.inbox.wait(&mut submissions, sync_in) {
            Waited::Arrived => {
                shared.inbox.gather(&mut submissions);
                shared.inbox.wait_for_company(&mut submissions);
                writer.turn(&mut submissions);
            }
            Waited::TimedOut => writer.sync(),
            Waited::Closed => return writer.sync(),
        }
    }
}

fn keep_up(shared: &Shared) {
    let _alarm = Alarm {
        shared,
        writer: false,
    };
    loop {
        let mut wanted = shared.upkeep.wait(shared.settings.checkpoint_every);
        if wanted.closed {
            return;
        }
        if wanted.segment_at.is_none() && !wanted.checkpoint && !wanted.retention {
            wanted.checkpoint = shared.changed_since_checkpoint();
        }
        shared.do_upkeep(wanted);
    }
}
