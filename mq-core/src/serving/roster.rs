//! Who is connected over the wire, and what each has said in its own words.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::filter::Filter;
use crate::names::{GroupName, TopicName};
use crate::remoting::peer::Peer;
use crate::wire::command::Language;
use crate::wire::heartbeat::Heartbeat;

/// What one client of one connection has told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) client_id: Arc<str>,
    pub(super) peer: Arc<Peer>,
    pub(super) language: Language,
    pub(super) version: i32,
    pub(super) said: Heartbeat,
    pub(super) subscriptions: Subscriptions,
}

/// What a client reads, by group and topic.
pub(super) type Subscriptions = HashMap<GroupName, HashMap<TopicName, Subscribed>>;

/// What a client wants of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscribed {
    pub(super) version: i64,
    /// Or why its expression cannot be used.
    pub(super) filter: Result<Filter, FilterRefused>,
}

/// Why an expression cannot be used: a response code and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilterRefused(pub(super) i32, pub(super) String);

/// Everybody who is connected and has sent a heartbeat.
#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Arc<Told>>,
    ids: HashMap<Arc<str>, BTreeSet<u64>>,
    producers: HashMap<String, BTreeSet<u64>>,
    consumers: HashMap<String, BTreeSet<u64>>,
}

impl Roster {
    /// Enters a client; it leaves when the returned entry is dropped.
    pub(super) fn enter(self: &Arc<Self>, told: Told) -> Entry {
        let told = Arc::new(told);
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        table.insert(number, &told);
        Entry {
            roster: Arc::clone(self),
            number,
            told,
        }
    }

    /// The consumers of a group, in the order they connected.
    pub(super) fn consumers(&self, group: &str) -> Vec<Arc<Told>> {
        let table = self.table();
        table.told(table.consumers.get(group))
    }

    /// The producers of a group, in the order they connected.
    pub(super) fn producers(&self, group: &str) -> Vec<Arc<Told>> {
        let table = self.table();
        table.told(table.producers.get(group))
    }

    /// The connections of a client id, in the order they came.
    pub(super) fn clients(&self, id: &str) -> Vec<Arc<Told>> {
        let table = self.table();
        table.told(table.ids.get(id))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Changed in steps that cannot panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, number: u64, told: &Arc<Told>) {
        self.ids
            .entry(Arc::clone(&told.client_id))
            .or_default()
            .insert(number);
        for group in &told.said.producer_groups {
            self.producers
                .entry(group.clone())
                .or_default()
                .insert(number);
        }
        for consumer in &told.said.consumers {
            self.consumers
                .entry(consumer.group.clone())
                .or_default()
                .insert(number);
        }
        self.entries.insert(number, Arc::clone(told));
    }

    fn remove(&mut self, number: u64) {
        let Some(told) = self.entries.remove(&number) else {
            return;
        };
        leave(&mut self.ids, &told.client_id, number);
        for group in &told.said.producer_groups {
            leave(&mut self.producers, group.as_str(), number);
        }
        for consumer in &told.said.consumers {
            leave(&mut self.consumers, consumer.group.as_str(), number);
        }
    }

    fn told(&self, numbers: Option<&BTreeSet<u64>>) -> Vec<Arc<Told>> {
        let numbers = numbers.into_iter().flatten();
        numbers
            .filter_map(|number| self.entries.get(number).cloned())
            .collect()
    }
}

fn leave<K>(sets: &mut HashMap<K, BTreeSet<u64>>, key: &str, number: u64)
where
    K: std::borrow::Borrow<str> + Eq + std::hash::Hash,
{
    if let Some(numbers) = sets.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            sets.remove(key);
        }
    }
}

/// One client's place in the roster.
#[derive(Debug)]
pub(super) struct Entry {
    roster: Arc<Roster>,
    number: u64,
    told: Arc<Told>,
}

impl Entry {
    /// What the client has told.
    pub(super) fn told(&self) -> &Arc<Told> {
        &self.told
    }

    /// Replaces what the client has told.
    pub(super) fn tell(&mut self, told: Told) {
        self.told = Arc::new(told);
        let mut table = self.roster.table();
        table.remove(self.number);
        table.insert(self.number, &self.told);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roster.table().remove(self.number);
    }
}
