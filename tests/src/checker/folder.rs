//! Reads a whole data folder that no process has open, in whatever state a kill has left it.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::facts::World;
use super::source::Source;
use super::{log_files, tables};

/// Log and database of the data folder at `data`; what a process that died early had not made yet is empty.
///
/// # Errors
/// Names what is there and cannot be read.
pub async fn read(data: &Path) -> Result<World> {
    let database = data.join("halfmoon.db");
    let mut world = read_log(data)?;
    if database.exists() {
        world.sql = tables::transactions(&database).await?;
    }
    Ok(world)
}

/// The log of the data folder at `data`, and the tables that the coordinator keeps in the Postgres database at `url`.
///
/// # Errors
/// As [`read`].
pub async fn read_with_postgres(data: &Path, url: &str) -> Result<World> {
    let mut world = read_log(data)?;
    world.sql = tables::transactions(Source::schema(url, "halfmoon")).await?;
    Ok(world)
}

fn read_log(data: &Path) -> Result<World> {
    let log = data.join("log");
    let mut world = World::default();
    if has_segments(&log) {
        world.log = log_files::read(&log)?;
    }
    Ok(world)
}

fn has_segments(log: &Path) -> bool {
    let entries = fs::read_dir(log).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().ends_with(".log"))
}
