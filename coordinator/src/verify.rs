//! Reading the whole history with its seals, and every transaction, and having them judged: was anything touched?
//!
//! Finds what was edited, removed, inserted or swapped in history, seals, owner row or the rows of transactions, by
//! anyone who could not write everything behind it anew as well. The log, whose half messages and decisions are compared
//! with the rows, and the head of the chain, kept elsewhere, find that, too.

mod rows;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use mq_core::log::reading::LogReader;
use mq_core::log::{LogId, ReadError};
use mq_core::random::Random;

use crate::audit::Event;
use crate::audit::books::{Books, Mismatch, Suspects};
use crate::audit::chain::{Break, Chain};
use crate::audit::seal::Hash;
use crate::store::{Filter, Forgotten, Owner, Pages, StoreError, TxReader};
use crate::transaction::TransactionId;

/// Seals read at once.
const SEALS_PAGE: u32 = 64;
/// Most findings that are kept; the others are counted.
const MOST_FINDINGS: usize = 1_000;

/// Why a run cannot come to an end. What was touched is no error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be read, or deleted meanwhile what was to be read.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// In the history, its seals or the owner row.
    #[error(transparent)]
    History(#[from] Break),
    /// In the row of a transaction.
    #[error(transparent)]
    Transaction(#[from] Mismatch),
    /// In the log.
    #[error(transparent)]
    Log(ReadError),
    /// The owner row names another log than the one beside it.
    #[error("the owner row says that the database belongs to log {:032x}; this is log {:032x}", stated.0, this.0)]
    OtherLog {
        /// What the owner row says.
        stated: LogId,
        /// The log that was read.
        this: LogId,
    },
}

/// What was looked at and found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Events looked at.
    pub events: u64,
    /// Seals looked at.
    pub seals: u64,
    /// Transactions looked at.
    pub transactions: u64,
    /// Position up to which the log was compared with the rows; `None` if it was not.
    pub log: Option<u64>,
    /// The owner row that everything was compared with; `None` for a store that was never written.
    pub owner: Option<Owner>,
    /// What is not as it was written, the history's first; at most 1,000.
    pub findings: Vec<Finding>,
    /// How many more findings there were.
    pub more: u64,
}

impl Report {
    fn find(&mut self, found: impl Into<Finding>) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(found.into());
        } else {
            self.more += 1;
        }
    }

    /// Adds what was found beside the log; of a transaction about which the history has complained that is enough,
    /// unless the log says it more exactly.
    fn add(&mut self, found: Vec<Finding>) {
        let whose = |finding: &Finding| match finding {
            Finding::Transaction(mismatch) => Some(mismatch.transaction),
            Finding::History(_) | Finding::Log(_) | Finding::OtherLog { .. } => None,
        };
        let exactly: HashSet<TransactionId> = found.iter().filter_map(whose).collect();
        self.findings.retain(|finding| {
            !matches!(finding, Finding::Transaction(mismatch)
                if mismatch.is_vague() && exactly.contains(&mismatch.transaction))
        });
        let known: HashSet<TransactionId> = self.findings.iter().filter_map(whose).collect();
        let new = |finding: &Finding| whose(finding).is_none_or(|id| !known.contains(&id));
        found
            .into_iter()
            .filter(new)
            .for_each(|finding| self.find(finding));
    }
}

/// How far a run has come; read it from anywhere.
#[derive(Debug, Default)]
pub struct Progress {
    events: AtomicU64,
    all: AtomicU64,
    read: AtomicU64,
    log: AtomicU64,
}

impl Progress {
    /// Events looked at, and how many there are.
    #[must_use]
    pub fn events(&self) -> (u64, u64) {
        (
            self.events.load(Ordering::Relaxed),
            self.all.load(Ordering::Relaxed),
        )
    }

    /// Bytes of the log that were read, and how many there are to read; 0 of 0 without a log.
    #[must_use]
    pub fn log_bytes(&self) -> (u64, u64) {
        (
            self.read.load(Ordering::Relaxed),
            self.log.load(Ordering::Relaxed),
        )
    }
}

/// What is looked at.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The store.
    pub reader: &'a Arc<dyn TxReader>,
    /// The log it belongs to. Without it the rows are compared with the history only.
    pub log: Option<&'a Arc<LogReader>>,
    /// Of the contradictions of one transaction, and of the repeats of its decision, the history tells so many: a setting of
    /// the coordinator.
    pub recorded_contradictions: u32,
}

/// Looks at everything that stands there at the time of the call; a writer may go on meanwhile. `random` must not be
/// guessable.
///
/// # Errors
/// [`VerifyError`] when store or log cannot be read. What was touched is no error: see [`Report::findings`].
pub async fn verify(
    subject: &Subject<'_>,
    random: &dyn Random,
    progress: &Arc<Progress>,
) -> Result<Report, VerifyError> {
    let mut forgotten = subject.reader.forgotten().await?;
    loop {
        let report = look(subject, forgotten, random, progress).await?;
        let now = subject.reader.forgotten().await?;
        if now == forgotten || report.findings.is_empty() {
            return Ok(report);
        }
        // What is missing may have been forgotten meanwhile.
        forgotten = now;
    }
}

async fn look(
    subject: &Subject<'_>,
    forgotten: Forgotten,
    random: &dyn Random,
    progress: &Arc<Progress>,
) -> Result<Report, VerifyError> {
    let reader = subject.reader;
    let mut report = Report::default();
    let Some(owner) = reader.owner().await? else {
        if holds_something(&**reader).await? {
            report.find(Break::OwnerMissing);
        }
        return Ok(report);
    };
    below_the_first(&**reader, &mut report).await?;
    report.owner = Some(owner);
    let log = its_log(subject, &owner, &mut report)?;
    let events = owner.next_event.saturating_sub(1);
    progress.all.store(events, Ordering::Relaxed);
    let length = log.as_ref().map(|_| owner.watermark.0);
    progress.log.store(length.unwrap_or(0), Ordering::Relaxed);

    let key = random.next_u128();
    let mut told = Books::new(key, subject.recorded_contradictions, forgotten);
    let walking = {
        let (reader, stated) = (Arc::clone(reader), told.twin());
        let progress = Arc::clone(progress);
        tokio::spawn(async move {
            rows::walk(&reader, stated, log.as_ref(), owner.watermark, &progress).await
        })
    };
    let beside = (&owner, forgotten);
    let chained = chain(&**reader, beside, &mut told, &mut report, progress).await;
    let walked = walking
        .await
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    chained?;
    let walked = walked?;
    report.transactions = walked.rows;
    report.log = length;
    if let Some(suspects) = told.compare(walked.stated) {
        // Where events were touched, what they tell of their transactions is no measure.
        if !report.findings.iter().any(about_events) {
            for mismatch in look_again(reader, &owner, suspects).await? {
                report.find(mismatch);
            }
        }
    }
    report.add(walked.found);
    Ok(report)
}

/// The log, if it is the one that the owner row names, with all the segments that the row may speak of.
fn its_log(
    subject: &Subject<'_>,
    owner: &Owner,
    report: &mut Report,
) -> Result<Option<Arc<LogReader>>, ReadError> {
    let Some(log) = subject.log else {
        return Ok(None);
    };
    if log.id() == owner.log {
        return log.again().map(|log| Some(Arc::new(log)));
    }
    report.find(Finding::OtherLog {
        stated: owner.log,
        this: log.id(),
    });
    Ok(None)
}

/// Compares seal `number` with its hash that was kept elsewhere; `None` if it is that seal.
///
/// A chain without a break behind which this seal stands is the one that was there when the hash was kept, whoever could
/// write the database since.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn anchored(
    reader: &dyn TxReader,
    number: u64,
    kept: Hash,
) -> Result<Option<Break>, StoreError> {
    let page = reader.seals(number, 1).await?;
    Ok(match page.first().filter(|seal| seal.seq == number) {
        None => Some(Break::SealMissing(number)),
        Some(seal) if seal.hash == kept => None,
        Some(seal) => Some(Break::Anchor {
            seal: number,
            found: seal.hash,
            kept,
        }),
    })
}

/// Whether a store without an owner row has anything else.
async fn holds_something(reader: &dyn TxReader) -> Result<bool, StoreError> {
    let one = Filter {
        limit: 1,
        ..Filter::default()
    };
    Ok(!reader.history(0, 1).await?.is_empty()
        || !reader.seals(0, 1).await?.is_empty()
        || !reader.list(&one).await?.is_empty())
}

/// Events and seals are numbered from 1: what stands below was put there by hand.
async fn below_the_first(reader: &dyn TxReader, report: &mut Report) -> Result<(), StoreError> {
    for event in reader.history(0, 1).await?.iter().filter(|e| e.number == 0) {
        report.find(Break::EventUnsealed {
            event: event.number,
            transaction: event.transaction,
        });
    }
    for seal in reader.seals(0, 1).await?.iter().filter(|s| s.seq == 0) {
        report.find(Break::SealUnknown(seal.seq));
    }
    Ok(())
}

/// The history against its seals, and the seals against the owner row.
async fn chain(
    reader: &dyn TxReader,
    (owner, forgotten): (&Owner, Forgotten),
    told: &mut Books,
    report: &mut Report,
    progress: &Progress,
) -> Result<(), StoreError> {
    let mut chain = Chain::new(forgotten);
    let mut events = Events::new(reader, owner);
    let mut covered = Vec::new();
    let mut next_seal = 1;
    while next_seal <= owner.seq {
        let seals = reader.seals(next_seal, SEALS_PAGE).await?;
        let Some(last) = seals.last() else { break };
        next_seal = last.seq.saturating_add(1);
        for seal in seals.iter().filter(|seal| seal.seq <= owner.seq) {
            covered.clear();
            let claim = chain.claim(seal);
            while let Some(event) = events.before(claim.behind()).await? {
                told.tell(&event);
                report.events += 1;
                if claim.covers(seal, &event) {
                    covered.push(event);
                }
            }
            let mut breaks = Vec::new();
            chain.add((seal, claim), &covered, &mut breaks);
            report.seals += 1;
            for found in breaks {
                report.find(found);
            }
            progress.events.store(report.events, Ordering::Relaxed);
        }
    }
    let told = chain.forgets();
    if forgotten.event > told.event || forgotten.decisions > told.decisions {
        report.find(Break::Forgotten {
            found: forgotten.event,
            told: told.event,
        });
    }
    let mut unsealed = reader.history(chain.next_event(), 100).await?;
    let behind = reader.seals(owner.seq + 1, 100).await?;
    // Read last: if the owner row is still the same, nobody has written what stands behind it.
    let moved = reader.owner().await? != Some(*owner);
    unsealed.retain(|event| !moved || event.number < owner.next_event);
    for found in chain.finish(owner, &unsealed) {
        report.find(found);
    }
    for seal in behind.iter().filter(|_| !moved) {
        report.find(Break::SealUnknown(seal.seq));
    }
    Ok(())
}

/// The history as it stood when the owner row was read.
struct Events {
    pages: Pages<Event>,
    page: vec::IntoIter<Event>,
}

impl Events {
    fn new(reader: &dyn TxReader, owner: &Owner) -> Self {
        Self {
            pages: reader.every_event(1, owner.next_event),
            page: Vec::new().into_iter(),
        }
    }

    /// The next event, if its number is smaller than `behind`.
    async fn before(&mut self, behind: u64) -> Result<Option<Event>, StoreError> {
        while self.page.len() == 0 {
            let Some(page) = self.pages.recv().await else {
                return Ok(None);
            };
            self.page = page?.into_iter();
        }
        let next = self.page.as_slice().first();
        if next.is_some_and(|event| event.number < behind) {
            return Ok(self.page.next());
        }
        Ok(None)
    }
}

fn about_events(found: &Finding) -> bool {
    match found {
        Finding::History(found) => !matches!(
            found,
            Break::SealChanged(_)
                | Break::Owner { .. }
                | Break::OwnerChanged
                | Break::Forgotten { .. }
        ),
        Finding::Transaction(_) | Finding::Log(_) | Finding::OtherLog { .. } => false,
    }
}

/// The second look, at the few transactions that may not agree.
async fn look_again(
    reader: &Arc<dyn TxReader>,
    owner: &Owner,
    mut suspects: Suspects,
) -> Result<Vec<Mismatch>, StoreError> {
    let mut events = Events::new(&**reader, owner);
    while let Some(event) = events.before(owner.next_event).await? {
        suspects.tell(&event);
    }
    let mut found = Vec::new();
    let mut rows = rows::Rows::new(&**reader);
    while let Some(row) = rows.next().await? {
        found.extend(suspects.state(&row));
    }
    found.extend(suspects.missing());
    let mut stands = Vec::new();
    for mismatch in found {
        if still(&**reader, owner, &mismatch).await? {
            stands.push(mismatch);
        }
    }
    Ok(stands)
}

/// Whether a mismatch is more than news that came between two looks.
async fn still(
    reader: &dyn TxReader,
    owner: &Owner,
    mismatch: &Mismatch,
) -> Result<bool, StoreError> {
    let id = mismatch.transaction;
    let (events, row) = (reader.events(id).await?, reader.transaction(id).await?);
    let news = events.iter().any(|event| event.number >= owner.next_event);
    if !news {
        return Ok(true);
    }
    // It has moved on since: its own history, as it now is, is the measure.
    let row_agrees = row.is_some_and(|row| Suspects::agrees(&events, &row));
    Ok(!row_agrees)
}

#[cfg(test)]
mod tests;
