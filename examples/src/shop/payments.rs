//! The payment service: captures or refuses an order's amount by a rule, and answers.

use anyhow::{Context, Result, anyhow};
use coordinator::client::Producer;
use coordinator::inbox::Inbox;
use mq_core::client::{Builder, Consumer, Delivery};
use sqlx::{Pool, Sqlite};

use super::events::{self, About, CAPTURED, PAYMENTS, REFUSED, RESERVED, STOCK};
use super::kinds::{Kind, sql};
use super::rules::{is_captured, payment_shard};
use super::serving::{Failure, PREFETCH_BYTES, Service, settled};

/// Producer group and consumer group of the service.
pub const GROUP: &str = "payment-service";

/// The payment service.
#[derive(Debug)]
pub struct Payments<DB: Kind = Sqlite> {
    shards: Vec<(Pool<DB>, Inbox<DB>)>,
    producer: Producer,
}

impl<DB: Kind> Payments<DB> {
    /// The service over its databases.
    ///
    /// # Errors
    /// A database cannot be written.
    pub async fn new(pools: &[Pool<DB>], producer: Producer) -> Result<Self> {
        let mut shards = Vec::new();
        for pool in pools {
            let inbox = Inbox::new(pool.clone(), GROUP)?;
            inbox.ensure_table().await?;
            shards.push((pool.clone(), inbox));
        }
        Ok(Self { shards, producer })
    }

    /// What the service listens to.
    #[must_use]
    pub fn consumer() -> Builder {
        Consumer::builder(GROUP)
            .subscribe(STOCK, RESERVED)
            .prefetch_bytes(PREFETCH_BYTES)
    }
}

impl<DB: Kind> Service for Payments<DB> {
    async fn apply(&self, delivery: &Delivery) -> Result<(), Failure> {
        const PAY: &str = "INSERT INTO payment (order_id, amount_cents, status, answered_by) VALUES ($1, $2, $3, $4)";
        let about: About = events::body(delivery).map_err(Failure::Never)?;
        if delivery.tag() != Some(RESERVED) {
            return Err(Failure::Never(anyhow!(
                "the payment service does not listen to {:?}",
                delivery.tag()
            )));
        }
        let shard = self
            .shards
            .get(payment_shard(about.order, self.shards.len()));
        let (pool, inbox) = shard
            .context("there is no database for the order's payment")
            .map_err(Failure::Never)?;
        let status = if is_captured(about.amount_cents) {
            CAPTURED
        } else {
            REFUSED
        };
        let message =
            events::message(PAYMENTS, status, about.order, &about).map_err(Failure::Never)?;
        let mut tx = self.producer.begin(pool, message).await?;
        if !inbox.enter(&mut tx, delivery).await? {
            let _ = tx.roll_back().await;
            return Ok(());
        }
        let id = tx.id().to_bytes();
        let pay = sql(PAY).bind(about.order).bind(about.amount_cents);
        DB::execute(&mut tx, pay.bind(status).bind(&id[..])).await?;
        settled(tx.commit().await?)
    }
}
