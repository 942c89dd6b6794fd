//! The named steps of the log at which a hook may look, or end the process.

use std::fmt;
use std::sync::Arc;

/// A batch is encoded and about to be written.
pub const BEFORE_WRITE: &str = "log.before_write";
/// A batch is written to the operating system, not yet durable.
pub const WRITTEN: &str = "log.written";
/// What was written is durable, not yet visible or acknowledged.
pub const SYNCED: &str = "log.synced";
/// Everything of a batch is visible and acknowledged.
pub const ACKED: &str = "log.acked";
/// A new segment has its name and is durable, not yet used.
pub const SEGMENT_CREATED: &str = "log.segment_created";
/// A checkpoint is written and durable under its temporary name.
pub const CHECKPOINT_WRITTEN: &str = "log.checkpoint_written";
/// A checkpoint has its name; the folder may not know yet.
pub const CHECKPOINT_RENAMED: &str = "log.checkpoint_renamed";
/// Recovery has made the log's tail durable; nothing is visible yet.
pub const RECOVERY_TAIL_SYNCED: &str = "log.recovery_tail_synced";
/// The note about queues of which nothing will be left is durable; nothing is deleted.
pub const TRIM_NOTED: &str = "trim.noted";
/// A durable checkpoint no longer has the oldest segments; their files are still there.
pub const TRIM_FORGOTTEN: &str = "trim.forgotten";
/// The file of one of them is removed.
pub const TRIM_REMOVED: &str = "trim.removed";

/// All steps, in the order a log meets them.
pub const ALL: &[&str] = &[
    RECOVERY_TAIL_SYNCED,
    BEFORE_WRITE,
    WRITTEN,
    SYNCED,
    ACKED,
    SEGMENT_CREATED,
    CHECKPOINT_WRITTEN,
    CHECKPOINT_RENAMED,
    TRIM_NOTED,
    TRIM_FORGOTTEN,
    TRIM_REMOVED,
];

/// What to call at a step: on the log's own threads, with the step's name.
pub type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The hook of one log, if it has one.
#[derive(Clone, Default)]
pub(super) struct Steps(pub(super) Option<Hook>);

impl Steps {
    pub(super) fn at(&self, step: &'static str) {
        if let Some(hook) = &self.0 {
            hook(step);
        }
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Steps(hooked)"
        } else {
            "Steps"
        })
    }
}
