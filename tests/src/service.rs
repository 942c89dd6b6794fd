//! A whole service in one process, for tests that kill it: local transactions with messages, a consumer with an inbox, and
//! if it is told so plain messages beside them, or in a log that deletes what is old and with a short history.
//!
//! What it was told it says on standard output, a line for each answer (see [`answers`]), so that a test can compare the
//! answers with what is on disk after a kill. Run over the same folder again it goes on, and ends once everything is
//! decided, published and applied.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coordinator::client::half::Settled;
use coordinator::client::producer::Producer;
use coordinator::embedded::{self, Embedded};
use coordinator::engine::Coordinator;
use coordinator::inbox::{Delivered, Entry, Inbox};
use coordinator::marker::databases::Markers;
use coordinator::store::Filter;
use coordinator::store::database::Database;
use coordinator::transaction::State;
use examples::shop::kinds::{Kind, sql};
use mq_core::broker::Broker;
use mq_core::client::{Consumer, Producer as Sender, PullConsumer};
use mq_core::log::Flush;
use mq_core::message::Message;
use mq_core::names::{GroupName, TopicName};
use mq_core::random::{Random, SeededRandom};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Pool, Postgres, Sqlite};
use tokio::task::JoinSet;

use crate::checker::facts::Answer;

/// The topic of its messages.
pub const TOPIC: &str = "orders";
/// The consumer group that applies them.
pub const CONSUMERS: &str = "warehouse";
/// Halfmoon's data folder.
pub const DATA: &str = "halfmoon-data";
/// The service's own database, beside it.
pub const DATABASE: &str = "service.db";
/// Query for the transactions whose business row is there.
pub const BUSINESS: &str = "SELECT id FROM placed";
/// Query for the effects of messages; the group is its parameter.
pub const EFFECTS: &str =
    "SELECT message, count(*) FROM applied WHERE consumers = $1 GROUP BY message";

/// The environment variable that names a Postgres database, if the service is to keep everything but the log there.
pub const POSTGRES: &str = "SERVICE_POSTGRES";

/// The environment variable that has it send plain messages, too: `sync` or `async` says when they are acknowledged.
pub const NEWS: &str = "SERVICE_NEWS";

/// The environment variable that has it keep little, and wait until what it finds is deleted, before it goes on.
pub const TRIMS: &str = "SERVICE_TRIMS";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS placed (id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS applied (consumers TEXT NOT NULL, message TEXT NOT NULL) STRICT;";
const POSTGRES_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS placed (id bytea PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS applied (consumers text NOT NULL, message text NOT NULL);";

/// Local transactions that run at the same time.
const AT_ONCE: u64 = 6;
/// How long the end may take once all local transactions have ended.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// What the log keeps when it keeps little: four segments.
const KEPT_BYTES: u64 = 4 * SEGMENT_BYTES;
const SEGMENT_BYTES: u64 = 64 << 10;
/// How long history is kept then.
const KEPT_FOR: Duration = Duration::from_millis(50);
/// How long it may take until all that was there is deleted and forgotten.
const TRIMMED_WITHIN: Duration = Duration::from_secs(30);

/// The topic of its plain messages.
const NEWS_TOPIC: &str = "news";
/// Between two of them.
const NEWS_EVERY: Duration = Duration::from_millis(1);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Where what happens comes from.
    pub seed: u64,
    /// How many local transactions to run.
    pub transactions: u64,
    /// When the plain messages that it sends beside them are acknowledged; it sends none unless this is set.
    pub news: Option<Flush>,
    /// Whether it keeps little, and goes on once what it finds is deleted from the log and forgotten.
    pub trims: bool,
}

/// Runs the service in `folder`, its tables and the coordinator's in SQLite or in the Postgres database at `postgres`.
///
/// # Errors
/// Anything that does not work or is not settled in time.
pub async fn run(folder: &Path, postgres: Option<String>, plan: Plan) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let coordinator = postgres.clone().map(Database::Postgres);
    let halfmoon = open(&folder.join(DATA), coordinator, plan).await?;
    match postgres {
        None => run_on::<Sqlite>(halfmoon, database(&folder.join(DATABASE)).await?, plan).await,
        Some(url) => run_on::<Postgres>(halfmoon, database_at(&url).await?, plan).await,
    }
}

async fn run_on<DB: Kind>(halfmoon: Embedded, pool: Pool<DB>, plan: Plan) -> Result<()> {
    let (broker, coordinator) = (halfmoon.broker(), halfmoon.coordinator());
    let markers = Markers::new().add(pool.clone()).await?;
    let inbox = Inbox::new(pool.clone(), CONSUMERS)?;
    inbox.ensure_table().await?;
    let consumer = Consumer::builder(CONSUMERS)
        .subscribe(TOPIC, "*")
        .attach(broker)
        .await?;
    let consuming = tokio::spawn(consume(consumer, inbox));
    if plan.trims {
        // Nobody is there yet who could be asked about what is open: it is carried.
        let fillers = Producer::builder("fillers").markers(markers.clone());
        let fillers = fillers.attach(coordinator).await?;
        let trimmed = trimmed(&halfmoon, &fillers, &pool);
        let trimmed = tokio::time::timeout(TRIMMED_WITHIN, trimmed).await;
        trimmed.context("not everything was deleted and forgotten in time")??;
        fillers.close().await;
    }
    let producer = Producer::builder("order-service").markers(markers);
    let producer = producer.attach(coordinator).await?;
    let mut news = JoinSet::new();
    if let Some(flush) = plan.news {
        news.spawn(send_news(Sender::attach(broker), flush, plan.seed));
        news.spawn(read_news(broker.clone()));
    }
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for _ in 0..AT_ONCE {
        let (producer, pool, next) = (producer.clone(), pool.clone(), next.clone());
        workers.push(tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < plan.transactions {
                let number = next.load(Ordering::Relaxed);
                let random = SeededRandom::new(plan.seed.wrapping_mul(1_000_003) ^ number);
                place(&producer, &pool, random.next_u64()).await?;
            }
            anyhow::Ok(())
        }));
    }
    for worker in workers {
        worker.await??;
    }
    producer.flush().await;
    let end = tokio::time::timeout(SETTLED_WITHIN, settled(coordinator, &pool));
    end.await.context("not everything was settled in time")??;
    producer.close().await;
    consuming.abort();
    news.shutdown().await;
    halfmoon.close().await.map_err(anyhow::Error::msg)?;
    println!("settled");
    Ok(())
}

/// Everything over `folder`, with waits and file sizes that suit a test.
async fn open(folder: &Path, database: Option<Database>, plan: Plan) -> Result<Embedded> {
    let mut settings = embedded::Settings {
        database,
        ..embedded::Settings::default()
    };
    settings.broker.flush_async = plan.news == Some(Flush::Async);
    settings.log.segment_bytes = SEGMENT_BYTES;
    settings.log.checkpoint_every = Duration::from_millis(100);
    settings.log.checkpoint_bytes = 32 << 10;
    settings.coordinator.check_back.grace = Duration::from_millis(100);
    settings.coordinator.check_back.first_wait = Duration::from_millis(200);
    if plan.trims {
        settings.log.keep_bytes = Some(KEPT_BYTES);
        settings.coordinator.keep_history = Some(KEPT_FOR);
    }
    Ok(Embedded::open(folder, settings).await?)
}

/// The service's own database, made if need be.
pub(crate) async fn database(file: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    Ok(pool)
}

/// The same in the Postgres database at `url`.
pub(crate) async fn database_at(url: &str) -> Result<PgPool> {
    let pool = PgPoolOptions::new().max_connections(4).connect(url).await?;
    sqlx::raw_sql(POSTGRES_TABLES).execute(&pool).await?;
    Ok(pool)
}

/// One local transaction with its message; `chance` says how it ends.
async fn place<DB: Kind>(producer: &Producer, pool: &Pool<DB>, chance: u64) -> Result<()> {
    let body = vec![b'x'; (chance % 2_000) as usize];
    let message = Message::builder(TOPIC).tag("placed").body(body).build()?;
    let mut local = producer.begin(pool, message).await?;
    let id = local.id();
    println!("half {id}");
    let row = id.to_bytes();
    let row = sql("INSERT INTO placed (id) VALUES ($1)").bind(&row[..]);
    DB::execute(&mut local, row).await?;
    let (word, settled) = match chance % 10 {
        0..7 => ("committed", local.commit().await?),
        7..9 => ("rolled_back", local.roll_back().await),
        // The producer forgets about it.
        _ => return Ok(()),
    };
    if settled == Settled::Decided {
        println!("{word} {id}");
    } else if let Settled::Deferred(why) = settled {
        eprintln!("{id} is decided later: {why}");
    } else {
        bail!("{id} was to be {word}: {settled:?}");
    }
    Ok(())
}

/// Applies every message once.
async fn consume<DB: Kind>(mut consumer: Consumer, inbox: Inbox<DB>) -> Result<()> {
    while let Some(delivery) = consumer.next().await? {
        if let Entry::First(mut local) = inbox.begin(&delivery).await? {
            let row = sql("INSERT INTO applied (consumers, message) VALUES ($1, $2)");
            let row = row.bind(CONSUMERS).bind(delivery.message_key());
            DB::execute(&mut local, row).await?;
            local.commit().await?;
        }
        delivery.ack();
    }
    Ok(())
}

/// Fills the log until everything that is in it now is deleted, or carried forward if it is open, and until history is
/// forgotten.
async fn trimmed<DB: Kind>(halfmoon: &Embedded, fillers: &Producer, pool: &Pool<DB>) -> Result<()> {
    let (log, reader) = (halfmoon.broker().log(), halfmoon.coordinator().reader());
    let sender = Sender::attach(halfmoon.broker());
    let found = log.range().end;
    let forgotten = reader.forgotten().await?.decisions;
    // What is deleted unread is never applied.
    while unread(halfmoon.broker(), pool).await? {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    loop {
        for _ in 0..20 {
            let message = Message::builder(NEWS_TOPIC).body(vec![b'x'; 3_000]);
            sender.send(message.build()?).await?;
        }
        // Rolled back: the database reflects all before it.
        place(fillers, pool, 7).await?;
        let is_trimmed = log.range().start >= found;
        if is_trimmed && reader.forgotten().await?.decisions > forgotten {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether there are messages that its consumer has not applied.
async fn unread<DB: Kind>(broker: &Broker, pool: &Pool<DB>) -> Result<bool> {
    let reader = PullConsumer::attach(broker, GroupName::new("counters")?);
    let mut published = 0;
    for queue in reader.queues(&TopicName::new(TOPIC)?).await? {
        published += reader.range(&queue).await?.end;
    }
    let counted = sql("SELECT count(*) FROM applied");
    let applied: i64 = DB::value(&mut *pool.acquire().await?, counted).await?;
    Ok(i64::try_from(published)? > applied)
}

/// Sends plain messages, one after the other, until that fails.
async fn send_news(sender: Sender, flush: Flush, seed: u64) -> Result<()> {
    for number in 0_u64.. {
        let id = u128::from(seed) << 64 | u128::from(number);
        let key = format!("{id:032X}");
        let message = Message::builder(NEWS_TOPIC)
            .key(key.clone())
            .body(key.clone());
        let receipt = sender.send(message.build()?).await?;
        match flush {
            Flush::Async => println!("written {key} {}", receipt.position.0),
            Flush::Sync | Flush::Along => println!("sent {key}"),
        }
        tokio::time::sleep(NEWS_EVERY).await;
    }
    Ok(())
}

/// Reads them.
async fn read_news(broker: Broker) -> Result<()> {
    let readers = Consumer::builder("readers").subscribe(NEWS_TOPIC, "*");
    let mut readers = readers.attach(&broker).await?;
    while let Some(delivery) = readers.next().await? {
        for key in delivery.keys() {
            println!("seen {key}");
        }
        delivery.ack();
    }
    Ok(())
}

/// Returns once nothing is open or unpublished and every business row's message was applied.
async fn settled<DB: Kind>(coordinator: &Coordinator, pool: &Pool<DB>) -> Result<()> {
    let reader = coordinator.reader();
    let open = Filter {
        state: Some(State::Prepared),
        limit: 1,
        ..Filter::default()
    };
    loop {
        coordinator.write_held().await.map_err(anyhow::Error::msg)?;
        // In this order: a decision that comes in between is not yet counted as published.
        let none_open = reader.list(&open).await?.is_empty();
        let owner = reader.owner().await?.context("the store has an owner")?;
        let published = owner.published == owner.last_decision;
        let counted = sql("SELECT (SELECT count(*) FROM placed) - (SELECT count(*) FROM applied)");
        let mut connection = pool.acquire().await?;
        let unapplied: i64 = DB::value(&mut connection, counted).await?;
        drop(connection);
        if none_open && published && unapplied == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the service said it was told, from its lines.
#[must_use]
pub fn answers(lines: &[String]) -> Vec<Answer> {
    let answer = |line: &String| {
        let mut words = line.split(' ');
        let (word, id) = (words.next()?, words.next()?);
        let id = u128::from_str_radix(id, 16).ok()?;
        match word {
            "sent" => Some(Answer::Sent(id)),
            "seen" => Some(Answer::Seen(id)),
            "written" => Some(Answer::Written(id, words.next()?.parse().ok()?)),
            "half" => Some(Answer::Half(id)),
            "committed" => Some(Answer::Decided(id, true)),
            "rolled_back" => Some(Answer::Decided(id, false)),
            _ => None,
        }
    };
    lines.iter().filter_map(answer).collect()
}
