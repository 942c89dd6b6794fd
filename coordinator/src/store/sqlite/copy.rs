//! A copy of the database as it is at one moment, while others write to it.

use std::path::Path;

use sqlx::{ConnectOptions as _, Connection as _};

use super::{Options, connect_options, open, text};
use crate::store::StoreError;

/// Writes the database at `from`, as it is now, into a new file `to`. Changes nothing in it and stops nobody; durable once
/// the file is synced.
///
/// # Errors
/// [`StoreError`] naming the file; part of the copy may be there.
pub(in crate::store) async fn copy(
    from: &Path,
    to: &Path,
    options: Options,
) -> Result<(), StoreError> {
    let from = open::inspect(from, options).await?;
    let shown = to.display().to_string();
    let failed = |error: sqlx::Error| {
        StoreError::Unavailable(format!("it cannot be copied to {shown}: {}", text(&error)))
    };
    let reading = connect_options(&from, options).read_only(true);
    let mut connection = reading.connect().await.map_err(failed)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(shown.as_str());
    copied.execute(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)
}
