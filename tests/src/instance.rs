//! An instance of a service as a process of its own, at a server: it commits local transactions until it is killed.
//!
//! What it was told it says on standard output, in the words of [`crate::service::answers`]; `deferred` and the id of a
//! transaction that is committed here and not known to be decided is a line of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use coordinator::client::Producer;
use coordinator::client::endpoint::HalfError;
use coordinator::client::half::Settled;
use coordinator::client::producer::{BeginError, ConnectError};
use coordinator::marker::databases::Markers;
use examples::shop::kinds::{Kind, sql};
use mq_core::message::Message;
use mq_core::random::{Random, SystemRandom};
use sqlx::{Pool, Postgres, Sqlite};
use tokio::task::JoinSet;

use crate::service::{TOPIC, database, database_at};

/// The producer group of all instances.
pub const GROUP: &str = "order-service";
/// What it says once it takes orders.
pub const READY: &str = "ready";
/// Markers are kept until the test has looked at them.
const MARKERS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// A local transaction is open for so long at most, and so long at most after it comes the next.
const BUSY: Duration = Duration::from_millis(20);

/// Runs until it is killed, over the SQLite database at `file` or the Postgres database at `postgres`, at the server behind
/// `nameserver`, with so many local transactions at the same time; with none it only answers check-backs.
///
/// # Errors
/// The server or the database cannot be used, or a local transaction that nothing was wrong with is not committed.
pub async fn run(
    nameserver: &str,
    file: &Path,
    postgres: Option<String>,
    at_once: u32,
) -> Result<()> {
    match postgres {
        None => run_on::<Sqlite>(nameserver, database(file).await?, at_once).await,
        Some(url) => run_on::<Postgres>(nameserver, database_at(&url).await?, at_once).await,
    }
}

async fn run_on<DB: Kind>(nameserver: &str, pool: Pool<DB>, at_once: u32) -> Result<()> {
    let markers = Markers::new().add(pool.clone()).await?;
    let producer = loop {
        let producer = Producer::builder(GROUP)
            .markers(markers.clone())
            .keep_markers(MARKERS_KEPT);
        match producer.connect(nameserver).await {
            Ok(producer) => break producer,
            Err(ConnectError::Unreachable(why)) => eprintln!("not connected yet: {why}"),
            Err(error) => return Err(error.into()),
        }
        pause().await;
    };
    println!("{READY}");
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (producer, pool) = (producer.clone(), pool.clone());
        workers.spawn(async move {
            loop {
                order(&producer, &pool).await?;
                pause().await;
            }
        });
    }
    match workers.join_next().await {
        Some(ended) => ended?,
        None => std::future::pending().await,
    }
}

/// One local transaction with its message.
async fn order<DB: Kind>(producer: &Producer, pool: &Pool<DB>) -> Result<()> {
    let message = Message::builder(TOPIC).tag("placed").build()?;
    let mut local = match producer.begin(pool, message).await {
        Ok(local) => local,
        // The connection is cut: given again with the next order.
        Err(BeginError::Half(HalfError::Unknown(why) | HalfError::Busy(why))) => {
            eprintln!("not begun: {why}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let id = local.id();
    println!("half {id}");
    let row = id.to_bytes();
    let row = sql("INSERT INTO placed (id) VALUES ($1)").bind(&row[..]);
    DB::execute(&mut local, row).await?;
    pause().await;
    match local.commit().await? {
        Settled::Decided => println!("committed {id}"),
        Settled::Deferred(why) => {
            println!("deferred {id}");
            eprintln!("{id} is decided later: {why}");
        }
        other @ (Settled::Contradicted(_) | Settled::NotFound(_) | _) => {
            bail!("{id} was committed: {other:?}")
        }
    }
    Ok(())
}

async fn pause() {
    let longest = u64::try_from(BUSY.as_micros()).unwrap_or(u64::MAX);
    tokio::time::sleep(Duration::from_micros(SystemRandom.next_u64() % longest)).await;
}
