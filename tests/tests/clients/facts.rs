//! What a client program told: one line of JSON for each fact; and what must hold between facts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// Something that happened. Which members there are depends on the fact and on what the client can know.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Fact {
    /// `sent`, `received`, `half`, `checked`, ...
    pub(crate) fact: String,
    pub(super) key: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) body: Option<String>,
    /// The id that the client gave it, if it knows one.
    pub(super) id: Option<String>,
    pub(super) queue: Option<i64>,
    pub(super) offset: Option<i64>,
    /// To a delivery `taken` or `later`; to a check-back a resolution.
    pub(super) answer: Option<String>,
    /// What a producer said after its local transaction.
    pub(super) local: Option<String>,
    pub(super) reconsumed: Option<i64>,
    /// Milliseconds, by the producer's clock.
    pub(super) born: Option<i64>,
    /// Milliseconds, by the server's clock.
    pub(super) stored: Option<i64>,
}

/// A message as both sides see it.
type Content = (String, String, String);
/// Queue and offset.
type Place = (i64, i64);

impl Fact {
    /// Key, tag and body.
    pub(super) fn content(&self) -> Content {
        let text = |member: &Option<String>| member.clone().unwrap_or_default();
        (text(&self.key), text(&self.tag), text(&self.body))
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.queue.zip(self.offset)
    }
}

/// The facts in the lines of a program's output, in their order.
pub(super) fn read(lines: &[String]) -> Vec<Fact> {
    let facts = lines.iter().filter(|line| line.starts_with('{'));
    facts
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The keys in all facts of one name.
pub(crate) fn keys(facts: &[Fact], name: &str) -> BTreeSet<String> {
    let named = facts.iter().filter(|fact| fact.fact == name);
    named.filter_map(|fact| fact.key.clone()).collect()
}

/// Those of one name.
pub(super) fn named<'a>(facts: &'a [Fact], name: &str) -> Vec<&'a Fact> {
    facts.iter().filter(|fact| fact.fact == name).collect()
}

/// The deliveries that were answered like this.
pub(super) fn answered<'a>(facts: &'a [Fact], answer: &str) -> Vec<&'a Fact> {
    let mut received = named(facts, "received");
    received.retain(|fact| fact.answer.as_deref() == Some(answer));
    received
}

/// Each message that was sent was received once, with its content, from where the server had said it stands.
pub(super) fn each_came_once(sent: &[&Fact], received: &[&Fact], reader: &str) {
    each_came(sent, received, reader);
    assert_eq!(received.len(), sent.len(), "{reader} received some twice");
}

/// Each message that was sent was received, maybe more than once, and nothing else.
pub(super) fn each_came(sent: &[&Fact], received: &[&Fact], reader: &str) {
    let mut wanted: Vec<Content> = sent.iter().map(|fact| fact.content()).collect();
    let mut got: Vec<Content> = received.iter().map(|fact| fact.content()).collect();
    wanted.sort();
    got.sort();
    got.dedup();
    assert_eq!(got, wanted, "what {reader} received is not what was sent");
    let by_content: BTreeMap<Content, &Fact> = received
        .iter()
        .map(|fact| (fact.content(), *fact))
        .collect();
    for fact in sent {
        let content = fact.content();
        let got = by_content.get(&content).expect("all contents are equal");
        if fact.place().is_some() {
            assert_eq!(got.place(), fact.place(), "place of {content:?}, {reader}");
        }
        if fact.id.is_some() {
            assert_eq!(got.id, fact.id, "id of {content:?}, {reader}");
        }
    }
}

/// Every queue was read in the order of its offsets.
pub(super) fn in_order(received: &[&Fact], reader: &str) {
    let mut last = BTreeMap::new();
    for (queue, offset) in received.iter().filter_map(|fact| fact.place()) {
        let before = last.insert(queue, offset);
        assert!(
            before.is_none_or(|before| before < offset),
            "{reader} got {offset} after {before:?} in queue {queue}"
        );
    }
}

/// Keys of the transactions that were to be committed, by what the producer said in the end.
pub(super) fn committed(facts: &[Fact]) -> BTreeSet<String> {
    let mut said = BTreeMap::new();
    for fact in facts {
        let resolution = fact.local.as_ref().or(fact.answer.as_ref());
        if let (Some(key), Some(resolution)) = (&fact.key, resolution) {
            // A resolution stays; a later answer to an unneeded question does not count.
            let known = said.get(key).is_some_and(|known| known != "unknown");
            if !known {
                said.insert(key.clone(), resolution.clone());
            }
        }
    }
    let commits = said.into_iter().filter(|(_, said)| said == "commit");
    commits.map(|(key, _)| key).collect()
}
