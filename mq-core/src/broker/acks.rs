//! Acknowledgements on their way from the log's thread to those who wait: one wake-up for a whole batch of the log.
//!
//! Waking a task from a foreign thread costs about forty times what it costs inside the runtime, so the log's thread wakes one
//! task, and that task tells everybody else.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Tells somebody what became of an append.
type Tell = Box<dyn FnOnce() + Send>;

/// Acknowledgements that nobody was told of yet. Bounded by the appends that are under way.
#[derive(Default)]
pub struct Acks {
    /// `None` while no task tells: then everybody is told at once.
    waiting: Mutex<Option<Vec<Tell>>>,
    arrived: Notify,
}

impl fmt::Debug for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acks")
    }
}

impl Acks {
    /// Does `tell` soon, in the task that is in [`Acks::run`], or at once if there is none; it must be short.
    pub fn push(&self, tell: impl FnOnce() + Send + 'static) {
        let first = {
            let mut waiting = self.lock();
            let Some(waiting) = waiting.as_mut() else {
                drop(waiting);
                return tell();
            };
            waiting.push(Box::new(tell));
            waiting.len() == 1
        };
        if first {
            self.arrived.notify_one();
        }
    }

    /// Tells everybody, for ever. Dropped, it tells those who wait, and from then on [`Acks::push`] does.
    pub async fn run(&self) {
        self.lock().get_or_insert_default();
        let _last = Last(self);
        let mut told = Vec::new();
        loop {
            self.arrived.notified().await;
            if let Some(waiting) = self.lock().as_mut() {
                std::mem::swap(&mut told, waiting);
            }
            for tell in told.drain(..) {
                tell();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Tell>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells those who wait when the task ends.
struct Last<'a>(&'a Acks);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        let left = self.0.lock().take();
        for tell in left.unwrap_or_default() {
            tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn everybody_is_told_once_with_and_without_a_task() {
        let acks = Arc::new(Acks::default());
        let (told, news) = channel();
        let push = |number: u32| {
            let told = told.clone();
            acks.push(move || told.send(number).unwrap());
        };
        push(1);
        assert_eq!(news.try_recv(), Ok(1), "nobody else would tell");
        let task = tokio::spawn({
            let acks = acks.clone();
            async move { acks.run().await }
        });
        tokio::task::yield_now().await;
        push(2);
        assert!(news.try_recv().is_err(), "the task tells");
        tokio::task::yield_now().await;
        assert_eq!(news.try_recv(), Ok(2));
        push(3);
        task.abort();
        let _ = task.await;
        assert_eq!(news.try_recv(), Ok(3), "the last ones are told as well");
        push(4);
        assert_eq!(news.try_recv(), Ok(4));
        assert!(news.try_recv().is_err());
    }
}
