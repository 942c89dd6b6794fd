//! A repair: gives a database that is older than the log the decisions of which the log has records.
//!
//! Whatever was delivered has its final in the log, and so has every rollback that was answered its echo, unless a crash took
//! the log's end with it. A repair writes those decisions under their numbers, with their events and seals; the next start
//! does the rest: rows of half messages that are open, and the watermark.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::Clock;
use mq_core::log::{Log, Position};
use mq_core::random::Random;

use super::half;
use super::ledger::{Answer, Ledger, Now, Request, What};
use super::recovery::{self, StartError};
use super::settings::Settings;
use crate::audit::{self, echo::Recorded};
use crate::store::{Owner, Row, TxReader, TxStore};
use crate::transaction::{Actor, Decision};

/// Decisions written at a time.
const CHUNK: usize = 500;

/// What a database lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The last batch that the log has seen, and the last one of the database.
    pub batches: (u64, u64),
    /// Decisions by their numbers.
    decisions: BTreeMap<u64, Recorded>,
}

impl Lacking {
    /// Whether database and log agree as they are.
    #[must_use]
    pub fn nothing(&self) -> bool {
        self.decisions.is_empty() && self.batches.0 <= self.batches.1
    }

    /// How many of these decisions are lacking.
    #[must_use]
    pub fn count(&self, decision: Decision) -> usize {
        let told = self.decisions.values();
        told.filter(|told| told.decision == decision).count()
    }
}

/// Reads from the log what the database behind `reader` lacks. Changes nothing.
///
/// # Errors
/// [`StartError::Mismatch`] when no repair can make the two fit: the database belongs to another log, the log is the older
/// one, or it no longer keeps what the database lacks. Otherwise what could not be read.
pub async fn survey(log: &dyn Log, reader: &dyn TxReader) -> Result<Lacking, StartError> {
    let owner = reader.owner().await?.unwrap_or(Owner::of(log.id()));
    recovery::refuse_foreign(log, &owner)?;
    recovery::refuse_older_log(log, reader, &owner).await?;
    recovery::refuse_lost_beginning(log, &owner)?;
    let kept = log.range().start;
    let stamped = log.stamped(half::OWNER);
    let mut decisions = BTreeMap::new();
    for stored in log.scan(owner.watermark.max(kept))? {
        let stored = stored?;
        let Some(mark) = stored.mark.filter(|mark| mark.owner == half::OWNER) else {
            continue;
        };
        if half::is_decision(&mark) && mark.number > owner.last_decision {
            decisions.insert(mark.number, half::recorded(&stored)?);
        }
    }
    Ok(Lacking {
        batches: (stamped, owner.seq),
        decisions,
    })
}

/// What a repair works with.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The log, recovered.
    pub log: &'a Arc<dyn Log>,
    /// The store.
    pub store: &'a Arc<dyn TxStore>,
    /// The wall clock of batches.
    pub clock: &'a Arc<dyn Clock>,
    /// Batch ids.
    pub random: &'a Arc<dyn Random>,
}

/// Writes what is `lacking`, and tells `done` how many decisions are written so far. What was written when it is interrupted
/// stays; another survey finds the rest.
///
/// # Errors
/// [`StartError::Mismatch`] when the database has decided something else meanwhile; otherwise what cannot be read or written.
pub async fn repair(
    parts: &Parts<'_>,
    lacking: &Lacking,
    mut done: impl FnMut(usize),
) -> Result<(), StartError> {
    if lacking.nothing() {
        return Ok(());
    }
    let settings = Settings::default();
    let (mut writer, owner) = parts.store.take_over(parts.log.id()).await?;
    let mut ledger = Ledger::new(owner, settings.recorded_contradictions);
    let all: Vec<Recorded> = lacking.decisions.values().copied().collect();
    let mut chunks: Vec<&[Recorded]> = all.chunks(CHUNK).collect();
    if chunks.is_empty() {
        // The number alone is missing.
        chunks.push(&[]);
    }
    let mut written = 0;
    for chunk in chunks {
        let positions: Vec<Position> = chunk.iter().map(|told| told.half).collect();
        let rows = writer.rows(&positions).await?;
        let rows: HashMap<Position, Row> = rows
            .into_iter()
            .map(|row| (row.half.position, row))
            .collect();
        let mut requests = Vec::with_capacity(chunk.len());
        for told in chunk {
            requests.push(request(parts, &settings, told, rows.get(&told.half))?);
        }
        ledger.skip(lacking.batches.0);
        let now = Now {
            at: parts.log.now(),
            wall_ms: parts.clock.wall_ms(),
            batch: parts.random.next_u128(),
        };
        let plan = ledger.plan(now, &requests, rows, Duration::ZERO, |_, at| at);
        let contradicted = chunk.iter().zip(&plan.answers);
        let mut contradicted =
            contradicted.filter(|(_, answer)| !matches!(answer, Answer::DecidedNow(_)));
        if let Some((told, _)) = contradicted.next() {
            return Err(StartError::Mismatch(format!(
                "decision {} of the log, about transaction {}, contradicts the database, which went on by itself; \
                 restore another database",
                told.number, told.id
            )));
        }
        writer.commit(&plan.batch).await?;
        ledger.committed(&plan);
        written += chunk.len();
        done(written);
    }
    writer.close().await;
    parts.log.stamp(half::OWNER, ledger.owner().seq);
    Ok(())
}

/// What the log has `told`; of which half message, its row says, or else the log, which keeps those that have no row.
fn request(
    parts: &Parts<'_>,
    settings: &Settings,
    told: &Recorded,
    row: Option<&Row>,
) -> Result<Request, StartError> {
    let half = match row {
        Some(row) => row.half.clone(),
        None => recovery::decode(&parts.log.read(told.half)?, settings)?.0,
    };
    if half.id != told.id {
        let position = told.half;
        let why = "it is another transaction's than its decision says";
        return Err(half::NotAHalf { position, why }.into());
    }
    let (decision, number) = (told.decision, told.number);
    Ok(Request {
        half,
        what: What::Rebuild { decision, number },
        actor: Actor::Recovery,
        source: "".into(),
        evidence: audit::repaired(number, told.position),
    })
}
