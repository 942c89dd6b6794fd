//! The instance of a service that tests kill or cut off: `instance NAMESERVER DATABASE AT_ONCE [STEP[:N]]`; a Postgres database
//! that the environment names is taken instead of the file DATABASE.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tests::{instance, service};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| {
        arguments
            .next()
            .with_context(|| format!("{what} is missing"))
    };
    let nameserver = next("NAMESERVER")?;
    let database = PathBuf::from(next("DATABASE")?);
    let at_once = next("AT_ONCE")?.parse()?;
    if let Ok(step) = next("STEP") {
        coordinator::steps::arm(&step)?;
    }
    let postgres = std::env::var(service::POSTGRES).ok();
    instance::run(&nameserver, &database, postgres, at_once).await
}
