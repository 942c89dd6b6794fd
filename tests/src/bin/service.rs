//! The program that crash tests kill: `service FOLDER SEED TRANSACTIONS [STEP[:N]]`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tests::service::{self, Plan};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| {
        arguments
            .next()
            .with_context(|| format!("{what} is missing"))
    };
    let folder = PathBuf::from(next("FOLDER")?);
    let seed = next("SEED")?.parse()?;
    let transactions = next("TRANSACTIONS")?.parse()?;
    if let Ok(step) = next("STEP") {
        coordinator::steps::arm(&step)?;
    }
    let postgres = std::env::var(service::POSTGRES).ok();
    service::run(&folder, postgres, Plan { seed, transactions }).await
}
