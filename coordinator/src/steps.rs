//! The named steps of the protocol: the one list, and the hook at which a test kills the process.
//!
//! [`reach`] costs one atomic load until [`arm`] was called.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every step, in the order of a transaction's life, with what has just happened.
pub const ALL: &[(&str, &str)] = &[
    (
        "half.admitted",
        "the half message is checked and not yet handed to the log",
    ),
    (
        "log.before_write",
        "a batch is about to be written to the log",
    ),
    ("log.written", "the batch is written and not yet durable"),
    ("log.synced", "the batch is durable and nobody knows"),
    (
        "log.acked",
        "everybody who waited for the batch has been told",
    ),
    ("log.segment_created", "a new segment file was created"),
    (
        "log.checkpoint_written",
        "a checkpoint of the log's indexes is written under another name",
    ),
    ("log.checkpoint_renamed", "the checkpoint has its name"),
    (
        "trim.noted",
        "a note says where queues end of which nothing will be left; nothing is deleted",
    ),
    (
        "trim.forgotten",
        "a checkpoint no longer has the oldest segments; their files are there",
    ),
    (
        "trim.removed",
        "the file of one of these segments is removed",
    ),
    (
        "log.recovery_tail_synced",
        "a start has made the log's tail durable again",
    ),
    (
        "half.durable",
        "the half message is durable and its sender does not know",
    ),
    (
        "local.half_stored",
        "the sender knows; its local transaction has not begun",
    ),
    (
        "local.begun",
        "the local transaction is open, its marker is written",
    ),
    (
        "local.before_commit",
        "the local transaction is about to commit",
    ),
    (
        "local.committed",
        "the local transaction is committed and nobody was told",
    ),
    ("local.resolved", "the resolution was answered"),
    (
        "decision.before_commit",
        "a batch of decisions is about to be committed to SQL",
    ),
    (
        "decision.committed",
        "the batch is in SQL and nothing is published",
    ),
    (
        "decision.published",
        "the finals are with the log and nobody was told",
    ),
    (
        "decision.answered",
        "everybody who waited for the decision has been told",
    ),
    ("final.durable", "finals are durable and SQL does not know"),
    (
        "carry.durable",
        "copies of half messages are durable and no row says where",
    ),
    (
        "carry.written",
        "rows say where the copies are; the log may not delete yet",
    ),
    (
        "forget.told",
        "the history says how far it is forgotten; nothing is removed",
    ),
    (
        "forget.removed",
        "some rows are removed, others may be left",
    ),
    ("check_back.planned", "a sweep has decided whom to ask"),
    ("check_back.asked", "a check-back was sent"),
    (
        "check_back.read",
        "the marker was read to answer a check-back",
    ),
    (
        "check_back.fenced",
        "a tombstone was planted and nobody was told",
    ),
    (
        "recovery.replayed",
        "a start has read the log behind the watermark and written nothing",
    ),
    ("recovery.stored", "a start has written the missing rows"),
    (
        "recovery.published",
        "a start has handed the missing finals to the log",
    ),
];

struct Plan {
    step: &'static str,
    left: AtomicU64,
}

static PLAN: OnceLock<Plan> = OnceLock::new();

/// Why a crash cannot be arranged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArmError {
    /// There is no step of that name.
    #[error("there is no step {0:?}; `--crash-at list` shows all")]
    NoSuchStep(String),
    /// What follows the colon is not a count from 1.
    #[error("{0:?} is not a count; write STEP or STEP:N with N from 1")]
    Count(String),
    /// A process crashes once.
    #[error("a crash is arranged already")]
    Twice,
}

/// Arranges that this process kills itself with SIGKILL when it reaches `STEP` for the first, or `STEP:N` for the n-th time.
///
/// # Errors
/// [`ArmError`] names what cannot be understood.
pub fn arm(text: &str) -> Result<(), ArmError> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let step = ALL
        .iter()
        .find(|(step, _)| *step == name)
        .ok_or_else(|| ArmError::NoSuchStep(name.into()))?
        .0;
    let count: u64 = count
        .parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| ArmError::Count(count.into()))?;
    PLAN.set(Plan {
        step,
        left: AtomicU64::new(count),
    })
    .map_err(|_| ArmError::Twice)
}

/// Says that `step` has been reached; does not return if a crash is arranged for now.
#[inline]
pub fn reach(step: &'static str) {
    if let Some(plan) = PLAN.get() {
        plan.reached(step);
    }
}

impl Plan {
    fn reached(&self, step: &'static str) {
        if step == self.step && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // If the signal cannot be sent there is still abort: no destructor, no flush.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_step_or_count_is_named() {
        assert_eq!(arm("nowhere"), Err(ArmError::NoSuchStep("nowhere".into())));
        assert_eq!(arm("log.synced:0"), Err(ArmError::Count("0".into())));
        assert_eq!(arm("log.synced:x"), Err(ArmError::Count("x".into())));
    }

    #[test]
    fn steps_are_named_once() {
        let mut names: Vec<_> = ALL.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
