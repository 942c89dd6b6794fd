//! Reads a whole data folder that no process has open, in whatever state a kill has left it.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::facts::World;
use super::{log_files, tables};

/// Log and database of the data folder at `data`; what a process that died early had not made yet is empty.
///
/// # Errors
/// Names what is there and cannot be read.
pub async fn read(data: &Path) -> Result<World> {
    let (log, database) = (data.join("log"), data.join("halfmoon.db"));
    let mut world = World::default();
    if has_segments(&log) {
        world.log = log_files::read(&log)?;
    }
    if database.exists() {
        world.sql = tables::transactions(&database).await?;
    }
    Ok(world)
}

fn has_segments(log: &Path) -> bool {
    let entries = fs::read_dir(log).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().ends_with(".log"))
}
