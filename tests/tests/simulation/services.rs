//! Processes that run local transactions, die and come back: some with markers, one that answers for itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use coordinator::client::Producer;
use coordinator::client::check_back::Asked;
use coordinator::client::half::{Outgoing, Settled};
use coordinator::client::producer::{Announcement, Connection};
use coordinator::marker::MarkerStore as _;
use coordinator::marker::databases::Markers;
use coordinator::transaction::{Resolution, TransactionId};
use mq_core::broker::Broker;
use mq_core::broker::clients::Connection as Registered;
use mq_core::clock::Clock;
use mq_core::membership;
use mq_core::message::Message;
use tokio::task::{JoinHandle, JoinSet};

use super::connections::Opened;
use super::facts::Met;
use super::line::{Back, Line, MISTAKEN};
use super::marker_database::MarkerDatabase;

/// The topic everything is sent to.
pub(super) const TOPIC: &str = "orders";
/// Its queues.
pub(super) const QUEUES: u32 = 3;
/// Local transactions of a process at a time.
const AT_A_TIME: u64 = 6;
/// How long a process has nothing to do, at least: markers are looked at every five seconds.
const IDLE: Duration = Duration::from_secs(5);
/// Longest time that markers are kept.
const MARKERS_KEPT: Duration = Duration::from_secs(4);

/// What a process is made of.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) line: Line,
    pub(super) broker: Broker,
    pub(super) clock: Arc<dyn Clock>,
    /// Where its local transactions leave markers; `None` for the service that answers for itself.
    pub(super) markers: Option<Arc<MarkerDatabase>>,
}

impl Service {
    /// Processes of this service, one after the other: each works for a while and dies in the middle of it.
    pub(super) async fn work(self) {
        loop {
            let producer = self.connect().await.expect("the coordinator runs");
            let mut running = JoinSet::new();
            let end = self.line.dice.below(60);
            for _ in 0..end {
                tokio::time::sleep(self.line.dice.time(Duration::from_millis(20))).await;
                while running.len() as u64 >= AT_A_TIME {
                    running.join_next().await;
                }
                running.spawn(self.clone().transaction(producer.clone()));
            }
            if self.line.dice.percent(30) {
                // Its connection is gone, and it does not know: it goes on for a while.
                producer.close().await;
                tokio::time::sleep(self.line.dice.time(Duration::from_secs(3))).await;
            }
            if self.line.dice.percent(8) {
                // It has nothing to do for a while but to answer, and to delete markers.
                let idle = IDLE + self.line.dice.time(IDLE);
                tokio::time::sleep(idle).await;
            }
            // Whatever it was doing, it is dead.
            running.shutdown().await;
            producer.close().await;
            self.line.facts.book().counts.add(Met::DeadProcess);
            tokio::time::sleep(self.line.dice.time(Duration::from_secs(2))).await;
        }
    }

    /// A process that only answers.
    pub(super) async fn connect(&self) -> Result<Producer> {
        let name = if self.markers.is_some() {
            "order-service"
        } else {
            MISTAKEN
        };
        let (line, broker) = (self.line.clone(), self.broker.clone());
        let mut builder = Producer::builder(name)
            .clock_and_random(Arc::clone(&self.clock), Arc::clone(&line.dice) as _);
        builder = match &self.markers {
            Some(markers) => builder
                .markers(Markers::new().add_store(markers.clone())?)
                .keep_markers(line.dice.time(MARKERS_KEPT)),
            None => {
                let (dice, good) = (Arc::clone(&line.dice), line.good);
                builder.check_back(move |asked: Asked| {
                    let knows = good || !dice.percent(20) && !is_hard(asked.id);
                    async move {
                        match (knows, committed(asked.id)) {
                            (false, _) => Resolution::Unknown,
                            (true, true) => Resolution::Commit,
                            (true, false) => Resolution::RollBack,
                        }
                    }
                })
            }
        };
        let connect = async move |said: Announcement, queue| {
            let incarnation = said.incarnation.0;
            let back = Back {
                line: line.clone(),
                queue,
                incarnation,
            };
            let wire = Wire {
                broker: broker.clone(),
                back: Arc::new(back),
                name,
                said,
            };
            let open = wire.open();
            Ok(Connection {
                endpoint: Arc::new(line),
                plain: mq_core::client::Producer::attach(&broker),
                guard: Box::new(Plugged(tokio::spawn(wire.hold(open)))),
            })
        };
        Ok(builder.over(connect).await?)
    }

    /// What the message is sent as: some ask for an age before the first check-back.
    fn outgoing(&self, message: Message, queue: u32) -> Outgoing {
        let dice = &self.line.dice;
        let outgoing = Outgoing::new(message).queue(queue);
        if dice.percent(40) {
            outgoing.immunity(Duration::from_secs(dice.below(3)))
        } else {
            outgoing
        }
    }

    async fn transaction(self, producer: Producer) {
        let dice = &self.line.dice;
        let message = Message::builder(TOPIC)
            .tag("t")
            .body(vec![7; 1 + dice.below(400) as usize]);
        let message = message.build().expect("the message keeps the rules");
        let queue = dice.below(u64::from(QUEUES)) as u32;
        let outgoing = self.outgoing(message, queue);
        self.line.facts.book().counts.add(Met::Transaction);
        let half = match &self.markers {
            Some(markers) => producer.half_in(markers.identity(), outgoing).await,
            None => producer.half(outgoing).await,
        };
        let Ok(half) = half else { return };
        let long = if dice.percent(8) { 3_000 } else { 30 };
        tokio::time::sleep(dice.time(Duration::from_millis(long))).await;
        let (id, kind) = (half.id(), dice.below(100));
        // What becomes of it is compared in the end, whatever the client was told.
        let (settled, committed) = match &self.markers {
            Some(_) if kind < 90 => {
                let Some(mut local) = self.line.tables.begin(id) else {
                    self.line.facts.book().counts.add(Met::Fenced);
                    return;
                };
                tokio::time::sleep(dice.time(Duration::from_millis(long))).await;
                local.write_business();
                tokio::time::sleep(dice.time(Duration::from_millis(5))).await;
                if kind < 75 {
                    if !local.commit() {
                        let what = format!("{id} was fenced while its local transaction was open");
                        self.line.facts.broken(what);
                        return;
                    }
                    tokio::time::sleep(dice.time(Duration::from_millis(5))).await;
                    if kind < 5 {
                        return;
                    }
                    (half.commit().await, true)
                } else {
                    drop(local);
                    (half.roll_back().await, false)
                }
            }
            // A service with a mistake says the opposite of what it has done.
            None if kind < 80 => {
                if committed(id) == (kind < 10) {
                    (half.roll_back().await, false)
                } else {
                    (half.commit().await, true)
                }
            }
            _ => return,
        };
        if committed && settled == Settled::Decided && dice.percent(40) {
            self.send_behind(&producer, queue, id).await;
        }
    }

    /// Sends a plain message to the queue of a transaction whose COMMIT is acknowledged.
    async fn send_behind(&self, producer: &Producer, queue: u32, id: TransactionId) {
        let message = Message::builder(TOPIC).body(id.0.to_be_bytes().to_vec());
        let message = message.build().expect("the message keeps the rules");
        // If it is not known to be stored, it may be, or not.
        if let Ok(sent) = producer.plain().send_to(queue, message).await {
            let place = (sent.queue.queue, sent.queue_offset.0);
            self.line.facts.book().sent.insert(id, place);
        }
    }
}

/// A process's way to the server.
struct Wire {
    broker: Broker,
    back: Arc<Back>,
    name: &'static str,
    said: Announcement,
}

/// The connection, and the network's record of it.
struct Open {
    _registered: Registered,
    _opened: Opened,
}

/// Holds the connection until it is dropped.
struct Plugged(JoinHandle<()>);

impl Drop for Plugged {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Wire {
    fn open(&self) -> Open {
        let (clients, incarnation) = (self.broker.clients(), self.back.incarnation);
        let registered = clients.connect(self.name, incarnation, self.name, self.back.clone());
        let said = &self.said;
        registered.announce(membership::Announcement {
            producer_groups: vec![said.group.clone()],
            consumer_groups: Vec::new(),
            answers_for: said.markers.iter().map(|marker| marker.0).collect(),
        });
        Open {
            _registered: registered,
            _opened: self.back.line.connections.open(incarnation),
        }
    }

    /// Holds the connection, which may be lost now and then and comes back.
    async fn hold(self, mut open: Open) {
        let line = &self.back.line;
        while !line.good && line.dice.percent(40) {
            tokio::time::sleep(line.dice.time(Duration::from_secs(2))).await;
            drop(open);
            line.facts.met(Met::LostConnection);
            tokio::time::sleep(line.dice.time(Duration::from_millis(900))).await;
            open = self.open();
        }
        std::future::pending::<()>().await;
        drop(open);
    }
}

/// Whether the service that answers for itself cannot tell while there is trouble.
fn is_hard(id: TransactionId) -> bool {
    id.0.count_zeros().is_multiple_of(7)
}

/// Whether the local transaction of the service that answers for itself committed.
fn committed(id: TransactionId) -> bool {
    !id.0.count_ones().is_multiple_of(3)
}
