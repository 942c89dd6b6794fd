//! One service as a process: opens its database, takes its place at the server, serves until it is told to stop.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use coordinator::client::Producer;
use coordinator::marker::databases::Markers;
use mq_core::client::{Builder, Consumer};
use mq_core::clock::{Clock, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Place, http, processes};
use crate::shop::catalog::Catalog;
use crate::shop::databases::{self, Databases, Layout};
use crate::shop::kinds::Kind;
use crate::shop::orders::{self, Orders};
use crate::shop::payments::{self, Payments};
use crate::shop::serving::{Service, serve};
use crate::shop::stock::{self, Stock};

/// How long a service waits for a server that is not there yet.
const SERVER_WITHIN: Duration = Duration::from_secs(120);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(100);
/// So often a database that another process is making is tried again.
const TURNS: u32 = 100;
/// Markers are kept until the books are made, and a while longer for whoever wants to look.
const MARKERS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Folder of the services' databases inside the data folder.
pub const SHOPS_FOLDER: &str = "shops";
/// The first word of the line by which a service says that it is ready; its address may follow.
pub const READY: &str = "ready";

/// The order service, an instance of possibly many: takes orders at `listen` and ends them as the others say. Its databases
/// are at `home`.
///
/// # Errors
/// Database, port or server cannot be used, or something has happened that the design excludes.
pub async fn order<DB: Kind>(
    place: &Place,
    home: &DB::Home,
    layout: Layout,
    listen: SocketAddr,
) -> Result<()> {
    let own = Layout {
        payments: 0,
        stock: 0,
        ..layout
    };
    let databases = open::<DB>(place, home, own).await?;
    let markers = databases::markers(&databases.orders).await?;
    let producer = producer(orders::GROUP, markers, place).await?;
    let orders = Orders::new(&databases.orders, producer.clone()).await?;
    let listener = tokio::net::TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("nothing can listen at {listen}"))?;
    let consumer = consumer(Orders::<DB>::consumer, place).await?;
    let stop = until_told();
    println!("{READY} at {}", listener.local_addr()?);
    let requests = http::serve(listener, orders.clone(), stop.clone());
    tokio::try_join!(serve(orders, consumer, stop), requests)?;
    producer.close().await;
    databases.close().await;
    Ok(())
}

/// The stock service.
///
/// # Errors
/// As [`order`].
pub async fn stock<DB: Kind>(place: &Place, home: &DB::Home, layout: Layout) -> Result<()> {
    let own = Layout {
        orders: 0,
        payments: 0,
        ..layout
    };
    let databases = open::<DB>(place, home, own).await?;
    databases.stock_up(&Catalog::northwind()?.products).await?;
    let markers = databases::markers(&databases.stock).await?;
    let producer = producer(stock::GROUP, markers, place).await?;
    let stock = Stock::new(&databases.stock, producer.clone()).await?;
    until_done(stock, Stock::<DB>::consumer, place).await?;
    producer.close().await;
    databases.close().await;
    Ok(())
}

/// The payment service.
///
/// # Errors
/// As [`order`].
pub async fn payment<DB: Kind>(place: &Place, home: &DB::Home, layout: Layout) -> Result<()> {
    let own = Layout {
        orders: 0,
        stock: 0,
        ..layout
    };
    let databases = open::<DB>(place, home, own).await?;
    let markers = databases::markers(&databases.payments).await?;
    let producer = producer(payments::GROUP, markers, place).await?;
    let payments = Payments::new(&databases.payments, producer.clone()).await?;
    until_done(payments, Payments::<DB>::consumer, place).await?;
    producer.close().await;
    databases.close().await;
    Ok(())
}

async fn until_done(service: impl Service, join: fn() -> Builder, place: &Place) -> Result<()> {
    let consumer = consumer(join, place).await?;
    println!("{READY}");
    serve(service, consumer, until_told()).await
}

/// The databases of one service. SQLite lets one process at a time make a new one: another instance waits its turn.
async fn open<DB: Kind>(place: &Place, home: &DB::Home, own: Layout) -> Result<Databases<DB>> {
    if place.with_parent {
        processes::end_with_standard_input();
    }
    for _ in 0..TURNS {
        match Databases::open(home, own).await {
            Err(error) if is_locked(&error) => tokio::time::sleep(AGAIN).await,
            other => return other,
        }
    }
    Databases::open(home, own).await
}

fn is_locked(error: &anyhow::Error) -> bool {
    const SQLITE_BUSY: &str = "5";
    let error = error.downcast_ref::<sqlx::Error>();
    let code = error.and_then(|error| error.as_database_error()?.code());
    code.is_some_and(|code| code == SQLITE_BUSY)
}

async fn producer(group: &str, markers: Markers, place: &Place) -> Result<Producer> {
    let connected = in_time(async || {
        let builder = Producer::builder(group).markers(markers.clone());
        let builder = builder.keep_markers(MARKERS_KEPT);
        builder.connect(&place.nameserver).await
    });
    let connected = connected.await;
    connected.with_context(|| format!("{group} finds no server at {}", place.nameserver))
}

async fn consumer(join: fn() -> Builder, place: &Place) -> Result<Consumer> {
    let joined = in_time(async || join().connect(&place.nameserver).await).await;
    joined.with_context(|| format!("no messages come from {}", place.nameserver))
}

/// Tries until it succeeds, for as long as a server may take to come.
async fn in_time<T, E>(attempt: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    loop {
        match attempt().await {
            Err(error) if clock.monotonic().saturating_sub(start) < SERVER_WITHIN => {
                tracing::debug!(
                    attempt_failed = true,
                    "{}",
                    std::any::type_name_of_val(&error)
                );
                tokio::time::sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

/// Becomes true when the process is told to stop, with SIGTERM or Ctrl-C.
fn until_told() -> watch::Receiver<bool> {
    let (told, stop) = watch::channel(false);
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.send_replace(true);
    });
    stop
}
