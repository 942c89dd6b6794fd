//! 41, 42: locks of queues, by which the members of a group consume in order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::BrokerService;
use super::fields::{self, FieldError};
use super::refusals::Answered;
use crate::clock::Clock;
use crate::names::{GroupName, QueueId, TopicName};
use crate::remoting::service::Answer;
use crate::wire::command::Command;

/// How long a lock holds after it was last asked for (RocketMQ `REBALANCE_LOCK_MAX_LIVE_TIME`).
const EXPIRES_AFTER: Duration = Duration::from_secs(60);
/// Most locks: every queue of the largest broker for a few groups.
const LOCKS_MAX: usize = 200_000;
/// Most queues of one request.
const QUEUES_MAX: usize = 10_000;

/// Who has which queue for which group. Locks expire; those of a client that is connected no more are given back.
#[derive(Debug)]
pub(super) struct Locks {
    clock: Arc<dyn Clock>,
    held: Mutex<HashMap<(GroupName, QueueId), Lock>>,
}

#[derive(Debug)]
struct Lock {
    client: Arc<str>,
    renewed: Duration,
}

impl Locks {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            held: Mutex::default(),
        }
    }

    /// Locks a queue for a client, or renews its lock; false when another client has it.
    fn lock(&self, group: &GroupName, queue: QueueId, client: &Arc<str>) -> bool {
        let now = self.clock.monotonic();
        let mut held = self.held();
        if held.len() >= LOCKS_MAX {
            held.retain(|_, lock| !lock.is_over(now));
        }
        let room = held.len() < LOCKS_MAX;
        let key = (group.clone(), queue);
        let free = held
            .get(&key)
            .map_or(room, |lock| lock.client == *client || lock.is_over(now));
        if free {
            let lock = Lock {
                client: Arc::clone(client),
                renewed: now,
            };
            held.insert(key, lock);
        }
        free
    }

    fn unlock(&self, group: &GroupName, queue: QueueId, client: &str) {
        let mut held = self.held();
        let key = (group.clone(), queue);
        if held.get(&key).is_some_and(|lock| &*lock.client == client) {
            held.remove(&key);
        }
    }

    /// Gives back everything a client has locked.
    pub(super) fn release_all(&self, client: &str) {
        self.held().retain(|_, lock| &*lock.client != client);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(GroupName, QueueId), Lock>> {
        // Changed in steps that cannot panic half-way.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lock {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.renewed) >= EXPIRES_AFTER
    }
}

/// The body of both requests.
struct Wanted {
    group: GroupName,
    client: Arc<str>,
    /// Each queue beside its name as the client wrote it, which it compares the answer with.
    queues: Vec<(QueueId, Value)>,
}

/// 41: locks queues; the answer names those that the client has now.
pub(super) fn lock(service: &BrokerService, command: &Command) -> Answered {
    let Wanted {
        group,
        client,
        queues,
    } = wanted(command)?;
    let locked: Vec<Value> = queues
        .into_iter()
        .filter(|(queue, _)| service.broker().queue_range(queue).is_ok())
        .filter(|(queue, _)| service.locks.lock(&group, queue.clone(), &client))
        .map(|(_, named)| named)
        .collect();
    Ok(Answer::with_body(
        json!({ "lockOKMQSet": locked }).to_string(),
    ))
}

/// 42: gives locks back.
pub(super) fn unlock(service: &BrokerService, command: &Command) -> Answered {
    let wanted = wanted(command)?;
    for (queue, _) in wanted.queues {
        service.locks.unlock(&wanted.group, queue, &wanted.client);
    }
    Ok(Answer::done())
}

fn wanted(command: &Command) -> Result<Wanted, Answer> {
    let body = fields::body(command)?;
    let group = GroupName::new(fields::member(&body, "consumerGroup")?)?;
    let client = fields::member(&body, "clientId")?.into();
    let named = body.get("mqSet").and_then(Value::as_array);
    let queues: Vec<(QueueId, Value)> = named
        .into_iter()
        .flatten()
        .take(QUEUES_MAX)
        .map(|named| Ok((queue(named)?, named.clone())))
        .collect::<Result<_, Answer>>()?;
    Ok(Wanted {
        group,
        client,
        queues,
    })
}

fn queue(named: &Value) -> Result<QueueId, Answer> {
    let empty = Map::new();
    let object = named.as_object().unwrap_or(&empty);
    let number = object.get("queueId").and_then(Value::as_u64);
    let number = number
        .and_then(|number| u32::try_from(number).ok())
        .ok_or(FieldError::Missing("queueId"))?;
    let topic = TopicName::new(fields::member(object, "topic")?)?;
    Ok(QueueId::new(topic, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_lock_holds_for_a_minute_after_it_was_renewed() {
        let clock = Arc::new(ManualClock::new(0));
        let locks = Locks::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let group = GroupName::new("g").unwrap();
        let queue = QueueId::new(TopicName::new("t").unwrap(), 0);
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        assert!(locks.lock(&group, queue.clone(), &one));
        assert!(!locks.lock(&group, queue.clone(), &two));
        let other = GroupName::new("other").unwrap();
        assert!(
            locks.lock(&other, queue.clone(), &two),
            "groups do not meet"
        );
        clock.advance(Duration::from_secs(59));
        assert!(locks.lock(&group, queue.clone(), &one));
        clock.advance(Duration::from_secs(59));
        assert!(!locks.lock(&group, queue.clone(), &two), "it was renewed");
        clock.advance(Duration::from_secs(1));
        assert!(locks.lock(&group, queue.clone(), &two));
        locks.unlock(&group, queue.clone(), &one);
        assert!(
            !locks.lock(&group, queue.clone(), &one),
            "not one's to give"
        );
        locks.release_all(&two);
        assert!(locks.lock(&group, queue, &one));
    }
}
