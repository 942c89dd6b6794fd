//! Texts and identities that repeat, as the small numbers under which a database keeps them once: a cache of what the database
//! has, and what the next batch adds. Pure.
//!
//! Numbers are given here and written with the batch that needs them first. After a batch that failed everything is read again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use super::Batch;

/// Most entries kept in memory of each kind; a full cache is emptied and filled again from the database.
pub(super) const MOST: usize = 50_000;

/// A cache of one table.
#[derive(Debug)]
pub(super) struct Cache<K> {
    ids: HashMap<K, i64>,
    next: i64,
    /// Whether the table has nothing that is not here.
    complete: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            ids: HashMap::new(),
            next: 1,
            complete: true,
        }
    }
}

/// What a writer knows of the tables `name` and `identity`.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) texts: Cache<Arc<str>>,
    pub(super) identities: Cache<u128>,
    /// Numbered since the last commit.
    pub(super) new_texts: Vec<(i64, Arc<str>)>,
    /// Numbered since the last commit.
    pub(super) new_identities: Vec<(i64, u128)>,
}

/// What a batch names and the caches lack.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// A text that is named often may be here twice.
    pub(super) texts: Vec<Arc<str>>,
    /// An identity that is named often may be here twice.
    pub(super) identities: Vec<u128>,
}

impl Names {
    /// What `batch` names and the caches lack. Whatever of it the database may have is to be put in before
    /// [`Names::number`].
    pub(super) fn missing(&mut self, batch: &Batch) -> Missing {
        self.texts.make_room();
        self.identities.make_room();
        let mut texts = Vec::<Arc<str>>::new();
        let mut identities = Vec::new();
        let mut lacks = |text: &str| {
            if !self.texts.ids.contains_key(text) && texts.last().is_none_or(|last| **last != *text)
            {
                texts.push(Arc::from(text));
            }
        };
        for row in &batch.new {
            lacks(row.half.group.as_str());
            lacks(row.half.topic.as_str());
            let bits = row
                .half
                .sender
                .map(|s| s.0)
                .into_iter()
                .chain(row.half.marker.map(|m| m.0));
            identities.extend(bits.filter(|bits| !self.identities.ids.contains_key(bits)));
        }
        for event in &batch.events {
            lacks(&event.source);
        }
        Missing { texts, identities }
    }

    /// Gives numbers to what is still missing.
    pub(super) fn number(&mut self, missing: Missing) {
        for text in missing.texts {
            if let Some(id) = self.texts.number(Arc::clone(&text)) {
                self.new_texts.push((id, text));
            }
        }
        for bits in missing.identities {
            if let Some(id) = self.identities.number(bits) {
                self.new_identities.push((id, bits));
            }
        }
    }

    /// The number of a text of the batch that was numbered last.
    pub(super) fn text(&self, text: &str) -> i64 {
        self.texts.ids.get(text).copied().unwrap_or_default()
    }

    /// The number of an identity of the batch that was numbered last.
    pub(super) fn identity(&self, bits: u128) -> i64 {
        self.identities.ids.get(&bits).copied().unwrap_or_default()
    }

    /// The batch is in the database: its numbers stay.
    pub(super) fn keep(&mut self) {
        self.new_texts.clear();
        self.new_identities.clear();
    }

    /// Everything the database has was put in, as far as it fits.
    pub(super) fn loaded(&mut self) {
        self.texts.complete = self.texts.ids.len() < MOST;
        self.identities.complete = self.identities.ids.len() < MOST;
    }
}

impl<K: Hash + Eq> Cache<K> {
    /// Puts in what the database has.
    pub(super) fn insert(&mut self, key: K, id: i64) {
        self.next = self.next.max(id + 1);
        self.ids.insert(key, id);
    }

    /// Whether the table has nothing that is not here.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Gives `key` the next number, or none if it has one.
    fn number(&mut self, key: K) -> Option<i64> {
        let Entry::Vacant(place) = self.ids.entry(key) else {
            return None;
        };
        let id = self.next;
        place.insert(id);
        self.next += 1;
        Some(id)
    }

    fn make_room(&mut self) {
        if self.ids.len() > MOST {
            self.ids.clear();
            self.complete = false;
        }
    }
}
