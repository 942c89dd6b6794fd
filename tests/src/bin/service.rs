//! The program that crash tests kill: `service FOLDER SEED TRANSACTIONS [STEP[:N]]`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mq_core::log::Flush;
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
    let news = match std::env::var(service::NEWS).as_deref() {
        Ok("async") => Some(Flush::Async),
        Ok("sync") => Some(Flush::Sync),
        Ok(other) => bail!("{} is {other:?}; say sync or async", service::NEWS),
        Err(_) => None,
    };
    let plan = Plan {
        seed,
        transactions,
        news,
        trims: std::env::var_os(service::TRIMS).is_some(),
    };
    service::run(&folder, postgres, plan).await
}
