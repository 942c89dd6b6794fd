//! The instance of a service that tests kill or cut off: `instance NAMESERVER DATABASE AT_ONCE [STEP[:N]]`.

use std::path::PathBuf;

use anyhow::{Context, Result};

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
    tests::instance::run(&nameserver, &database, at_once).await
}
