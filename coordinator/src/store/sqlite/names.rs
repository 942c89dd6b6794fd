//! Texts and identities that repeat, as the small numbers under which the database keeps them once.
//!
//! Numbers are given here and written with the batch that needs them first. After a batch that failed everything is read again.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{Executor, Row, SqliteConnection};

use crate::store::Batch;

/// Most entries kept in memory of each kind; a full cache is emptied and filled again from the database.
const MOST: usize = 50_000;

/// A cache of one table.
#[derive(Debug)]
struct Cache<K> {
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

/// What the writer knows of the tables `name` and `identity`.
#[derive(Debug, Default)]
pub(super) struct Names {
    texts: Cache<Arc<str>>,
    identities: Cache<u128>,
    /// Numbered since the last commit.
    pub(super) new_texts: Vec<(i64, Arc<str>)>,
    /// Numbered since the last commit.
    pub(super) new_identities: Vec<(i64, u128)>,
}

impl Names {
    /// Reads what the database has, as far as it fits.
    pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let mut names = Self::default();
        let limit = i64::try_from(MOST).unwrap_or(i64::MAX);
        let newest = sqlx::query("SELECT id, text FROM name ORDER BY id DESC LIMIT ?").bind(limit);
        for row in connection.fetch_all(newest).await? {
            names
                .texts
                .insert(Arc::from(row.get::<&str, _>(1)), row.get(0));
        }
        let newest =
            sqlx::query("SELECT id, bytes FROM identity ORDER BY id DESC LIMIT ?").bind(limit);
        for row in connection.fetch_all(newest).await? {
            if let Ok(bytes) = <[u8; 16]>::try_from(row.get::<&[u8], _>(1)) {
                names
                    .identities
                    .insert(u128::from_be_bytes(bytes), row.get(0));
            }
        }
        names.texts.complete = names.texts.ids.len() < MOST;
        names.identities.complete = names.identities.ids.len() < MOST;
        Ok(names)
    }

    /// Finds or gives numbers for everything `batch` names.
    pub(super) async fn resolve(
        &mut self,
        batch: &Batch,
        connection: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        self.make_room();
        let (texts, identities) = self.missing(batch);
        if !texts.is_empty() && !self.texts.complete {
            let known = sqlx::query(
                "SELECT id, text FROM name WHERE text IN (SELECT value FROM json_each(?))",
            );
            let wanted: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
            let wanted = serde_json::to_string(&wanted)
                .map_err(|error| sqlx::Error::Encode(error.into()))?;
            for row in connection.fetch_all(known.bind(wanted)).await? {
                self.texts
                    .insert(Arc::from(row.get::<&str, _>(1)), row.get(0));
            }
        }
        if !identities.is_empty() && !self.identities.complete {
            let known = sqlx::query(
                "SELECT id, bytes FROM identity WHERE bytes IN (SELECT unhex(value) FROM json_each(?))",
            );
            let wanted: Vec<String> = identities
                .iter()
                .map(|bits| format!("{bits:032x}"))
                .collect();
            let wanted = serde_json::to_string(&wanted)
                .map_err(|error| sqlx::Error::Encode(error.into()))?;
            for row in connection.fetch_all(known.bind(wanted)).await? {
                if let Ok(bytes) = <[u8; 16]>::try_from(row.get::<&[u8], _>(1)) {
                    self.identities
                        .insert(u128::from_be_bytes(bytes), row.get(0));
                }
            }
        }
        for text in texts {
            if let Some(id) = self.texts.number(Arc::clone(&text)) {
                self.new_texts.push((id, text));
            }
        }
        for bits in identities {
            if let Some(id) = self.identities.number(bits) {
                self.new_identities.push((id, bits));
            }
        }
        Ok(())
    }

    /// The number of a text of the batch that was resolved last.
    pub(super) fn text(&self, text: &str) -> i64 {
        self.texts.ids.get(text).copied().unwrap_or_default()
    }

    /// The number of an identity of the batch that was resolved last.
    pub(super) fn identity(&self, bits: u128) -> i64 {
        self.identities.ids.get(&bits).copied().unwrap_or_default()
    }

    /// The batch is in the database: its numbers stay.
    pub(super) fn keep(&mut self) {
        self.new_texts.clear();
        self.new_identities.clear();
    }

    /// What `batch` names and the caches lack; a thing that is named often may be in it twice.
    fn missing(&self, batch: &Batch) -> (Vec<Arc<str>>, Vec<u128>) {
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
        (texts, identities)
    }

    fn make_room(&mut self) {
        if self.texts.ids.len() > MOST {
            self.texts.empty();
        }
        if self.identities.ids.len() > MOST {
            self.identities.empty();
        }
    }
}

impl<K: std::hash::Hash + Eq> Cache<K> {
    fn insert(&mut self, key: K, id: i64) {
        self.next = self.next.max(id + 1);
        self.ids.insert(key, id);
    }

    /// Gives `key` the next number, or none if it has one.
    fn number(&mut self, key: K) -> Option<i64> {
        let std::collections::hash_map::Entry::Vacant(place) = self.ids.entry(key) else {
            return None;
        };
        let id = self.next;
        place.insert(id);
        self.next += 1;
        Some(id)
    }

    fn empty(&mut self) {
        self.ids.clear();
        self.complete = false;
    }
}
