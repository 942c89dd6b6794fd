//! The programs in README.md, word for word, so that they compile.

use anyhow::Result;
use coordinator::client::Producer;
use coordinator::client::half::Settled;
use coordinator::engine::Coordinator;
use coordinator::inbox::{Entry, Inbox};
use coordinator::marker::databases::Markers;
use mq_core::broker::Broker;
use mq_core::client::Consumer;
use mq_core::message::Message;
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool};

async fn place(pool: SqlitePool, coordinator: Coordinator, message: Message) -> Result<Settled> {
    let markers = Markers::new().add(pool.clone()).await?;
    let producer = Producer::builder("order-service")
        .markers(markers)
        .attach(&coordinator)
        .await?;

    let mut tx = producer.begin(&pool, message).await?;
    sqlx::query("INSERT INTO orders ...")
        .execute(&mut *tx)
        .await?;
    let settled = tx.commit().await?;
    Ok(settled)
}

async fn apply(broker: Broker, inbox: Inbox<Sqlite>) -> Result<()> {
    let mut consumer = Consumer::builder("warehouse")
        .subscribe("orders", "placed || cancelled")
        .attach(&broker)
        .await?;
    while let Some(delivery) = consumer.next().await? {
        let Entry::First(mut tx) = inbox.begin(&delivery).await? else {
            delivery.ack();
            continue;
        };
        take_stock(&mut tx, delivery.body()).await?;
        tx.commit().await?;
        delivery.ack();
    }
    Ok(())
}

async fn take_stock(_: &mut SqliteConnection, _: &[u8]) -> Result<()> {
    Ok(())
}

/// Code without comments and white space.
fn bare(code: &str) -> String {
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect()
}

#[test]
fn the_programs_of_the_readme_are_the_ones_that_compile_here() {
    let (_, _) = (place, apply);
    let here = bare(include_str!("readme.rs"));
    let readme = include_str!("../../README.md");
    let programs: Vec<&str> = readme
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(programs.len(), 2);
    for program in programs {
        // Formatting puts this comma and semicolon where the README has none.
        assert!(
            here.contains(&bare(program).replace("continue}", "continue;}")),
            "{program}"
        );
    }
}
