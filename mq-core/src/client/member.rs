//! A consumer's part in its group: which queues are its, reading them, and settling what was said about messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::assignment::{self, Sharing};
use super::fetching::{Fetch, Fetched};
use super::settling::{Assigned, TRY_AGAIN};
use super::{Attachment, ClientError, MessageQueue, Transport};
use crate::filter::Filter;
use crate::membership::{Announcement, Link, Membership, Notice, Subscription};
use crate::names::TopicName;
use crate::wire::reserved;

/// How often members look at the group and the queues without being told, as RocketMQ's do.
const REBALANCE: Duration = Duration::from_secs(20);

/// Takes the notice that the group has changed; it is a level, so any number of them wakes once.
#[derive(Debug)]
pub(super) struct Wake(pub(super) Arc<Notify>);

impl Link for Wake {
    fn push(&self, notice: Notice) -> bool {
        if notice.code == reserved::NOTIFY_CONSUMER_IDS_CHANGED {
            self.0.notify_one();
        }
        true
    }
}

/// What the tasks of a consumer share.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) membership: Membership,
    pub(super) sharing: Sharing,
    pub(super) client_id: Arc<str>,
    pub(super) room: Arc<Semaphore>,
    pub(super) room_bytes: u32,
    pub(super) queues: Mutex<BTreeMap<MessageQueue, Reading>>,
    /// Wakes to look at the group again.
    pub(super) look: Arc<Notify>,
    /// Wakes to commit and send back.
    pub(super) settle: Arc<Notify>,
}

/// A queue being read. Dropping it stops the reading.
#[derive(Debug)]
pub(super) struct Reading {
    assigned: Arc<Assigned>,
    task: JoinHandle<()>,
    stop: watch::Sender<()>,
}

pub(super) type Out = mpsc::Sender<Result<Fetched, ClientError>>;

impl Member {
    pub(super) fn announcement(&self) -> Announcement {
        Announcement {
            consumer_groups: vec![self.membership.clone()],
            ..Announcement::default()
        }
    }

    /// Takes and leaves queues until the consumer or the broker stops, then leaves the group.
    pub(super) async fn rebalance(
        self: Arc<Self>,
        attachment: Box<dyn Attachment>,
        out: Out,
        mut stop: watch::Receiver<bool>,
    ) {
        while !*stop.borrow_and_update() {
            let pause = match self.rebalance_once(&*attachment, &out).await {
                Ok(()) => REBALANCE,
                Err(ClientError::Closed) => break,
                Err(error) => {
                    tracing::warn!(group = %self.membership.group, %error, "queues could not be shared; trying again");
                    TRY_AGAIN
                }
            };
            tokio::select! {
                _ = stop.changed() => break,
                () = out.closed() => break,
                () = self.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let all = std::mem::take(&mut *self.queues());
        self.give_up(all.into_values()).await;
    }

    async fn rebalance_once(
        &self,
        attachment: &dyn Attachment,
        out: &Out,
    ) -> Result<(), ClientError> {
        attachment.announce(self.announcement()).await?;
        let mine = self.my_queues().await?;
        self.give_up(self.take_lost(&mine)).await;
        let mut failed = Ok(());
        for (queue, filter) in mine {
            if self.queues().contains_key(&queue) {
                continue;
            }
            match self.start(queue.clone(), filter, out.clone()).await {
                Ok(reading) => {
                    self.queues().insert(queue, reading);
                }
                // The queues of other brokers go on.
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Takes out what is not this member's any more, and what is but is not read any more: that is started again.
    fn take_lost(&self, mine: &BTreeMap<MessageQueue, Filter>) -> Vec<Reading> {
        let mut queues = self.queues();
        let lost = queues.extract_if(.., |queue, reading| {
            !mine.contains_key(queue) || reading.task.is_finished()
        });
        lost.map(|(_, reading)| reading).collect()
    }

    /// The queues that are this member's, each with what is wanted of it.
    async fn my_queues(&self) -> Result<BTreeMap<MessageQueue, Filter>, ClientError> {
        let group = &self.membership.group;
        let retry = Subscription {
            topic: TopicName::retry_of(group),
            filter: Filter::ALL,
        };
        let mut mine = BTreeMap::new();
        for Subscription { topic, filter } in self.membership.subscriptions.iter().chain([&retry]) {
            let Some(queues) = self.transport.queues(topic).await? else {
                continue;
            };
            let members = self.transport.members(group, topic).await?;
            for queue in assignment::share(self.sharing, &queues, &members, &self.client_id) {
                mine.insert(queue.clone(), filter.clone());
            }
        }
        Ok(mine)
    }

    async fn start(
        &self,
        queue: MessageQueue,
        filter: Filter,
        out: Out,
    ) -> Result<Reading, ClientError> {
        let group = &self.membership.group;
        let start = match self.transport.offset(group, &queue).await? {
            Some(offset) => offset,
            None => {
                let from = self.membership.from;
                self.transport.first_offset(&queue, from).await?
            }
        };
        let assigned = Arc::new(Assigned::new(queue, start, Arc::clone(&self.settle)));
        let fetch = Fetch {
            transport: Arc::clone(&self.transport),
            group: group.clone(),
            filter,
            room: Arc::clone(&self.room),
            room_bytes: self.room_bytes,
            out,
            look: Arc::clone(&self.look),
        };
        let stop = watch::Sender::new(());
        let task = tokio::spawn(fetch.run(Arc::clone(&assigned), start, stop.subscribe()));
        Ok(Reading {
            assigned,
            task,
            stop,
        })
    }

    /// Stops reading queues, and settles what was said about them, before anybody else takes them.
    async fn give_up(&self, lost: impl IntoIterator<Item = Reading>) {
        for Reading {
            assigned,
            task,
            stop,
        } in lost
        {
            assigned.revoke();
            drop(stop);
            // A reader that has panicked has said so.
            let _ = task.await;
            if let Err(error) = assigned
                .flush(&*self.transport, &self.membership.group, true)
                .await
            {
                tracing::warn!(queue = %assigned.queue, %error, "a queue was left unsettled; its messages come again");
            }
        }
    }

    /// Commits and sends back whenever something was said, until the consumer stops.
    pub(super) async fn settle(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let clock = Arc::clone(self.transport.clock());
        let within = self.transport.commit_within();
        let mut due = Duration::ZERO;
        while !*stop.borrow_and_update() {
            let now = clock.monotonic();
            let commit = now >= due;
            if commit {
                due = now.saturating_add(within);
            }
            let mut pause = (!within.is_zero()).then(|| due.saturating_sub(now));
            let assigned: Vec<_> = self
                .queues()
                .values()
                .map(|reading| Arc::clone(&reading.assigned))
                .collect();
            for assigned in assigned {
                if let Err(error) = assigned
                    .flush(&*self.transport, &self.membership.group, commit)
                    .await
                {
                    tracing::warn!(queue = %assigned.queue, %error, "settling failed; trying again");
                    pause = Some(TRY_AGAIN);
                }
            }
            let again = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stop.changed() => return,
                () = self.settle.notified() => {}
                () = again => {}
            }
        }
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<MessageQueue, Reading>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
