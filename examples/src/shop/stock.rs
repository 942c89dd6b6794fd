//! The stock service: reserves all lines of an order or none, releases them when it is cancelled, takes deliveries in.

use anyhow::{Context, Result, anyhow};
use coordinator::client::Producer;
use coordinator::inbox::{Entry, Inbox};
use mq_core::client::{Builder, Consumer, Delivery};
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::events::{
    self, About, CANCELLED, ORDERS, PLACED, Placed, REFUSED, RESERVED, STOCK, Wanted,
};
use super::rules::{RESTOCK_TO, is_restocked, stock_shard};
use super::serving::{Failure, PREFETCH_BYTES, Service, settled};

/// Producer group and consumer group of the service.
pub const GROUP: &str = "stock-service";

/// The stock service.
#[derive(Debug)]
pub struct Stock {
    warehouses: Vec<Warehouse>,
    producer: Producer,
}

/// One database of the service, with everything on its shelves.
#[derive(Debug)]
struct Warehouse {
    pool: SqlitePool,
    inbox: Inbox<Sqlite>,
}

impl Stock {
    /// The service over its databases.
    ///
    /// # Errors
    /// A database cannot be written.
    pub async fn new(pools: &[SqlitePool], producer: Producer) -> Result<Self> {
        let mut warehouses = Vec::new();
        for pool in pools {
            let inbox = Inbox::new(pool.clone(), GROUP)?;
            inbox.ensure_table().await?;
            let pool = pool.clone();
            warehouses.push(Warehouse { pool, inbox });
        }
        Ok(Self {
            warehouses,
            producer,
        })
    }

    /// What the service listens to.
    #[must_use]
    pub fn consumer() -> Builder {
        Consumer::builder(GROUP)
            .subscribe(ORDERS, format!("{PLACED} || {CANCELLED}"))
            .prefetch_bytes(PREFETCH_BYTES)
    }

    /// The warehouse that serves an order.
    fn warehouse(&self, order: i64) -> Result<&Warehouse, Failure> {
        let warehouse = self
            .warehouses
            .get(stock_shard(order, self.warehouses.len()));
        warehouse
            .context("there is no database for the order's goods")
            .map_err(Failure::Never)
    }

    /// Answers an order. The message must be known before the local transaction begins, so the answer is worked out
    /// first and checked inside: when somebody else has taken the last units meanwhile, that attempt is rolled back
    /// together with its message, and another one begins.
    async fn answer(&self, delivery: &Delivery, placed: &Placed) -> Result<(), Failure> {
        let warehouse = self.warehouse(placed.about.order)?;
        loop {
            let tag = if has_all(&warehouse.pool, &placed.wanted).await? {
                RESERVED
            } else {
                REFUSED
            };
            let order = placed.about.order;
            let message =
                events::message(STOCK, tag, order, &placed.about).map_err(Failure::Never)?;
            let mut tx = self.producer.begin(&warehouse.pool, message).await?;
            if !warehouse.inbox.enter(&mut tx, delivery).await? {
                let _ = tx.roll_back().await;
                return Ok(());
            }
            let id = tx.id().to_bytes();
            write_answer(&mut tx, order, tag, &id).await?;
            if tag == RESERVED && !take(&mut tx, order, &placed.wanted).await? {
                let _ = tx.roll_back().await;
                continue;
            }
            restock(&mut tx).await?;
            return settled(tx.commit().await?);
        }
    }

    /// Puts back what was reserved for an order.
    async fn release(&self, delivery: &Delivery, about: &About) -> Result<(), Failure> {
        const RELEASE: &str = "UPDATE reservation SET status = 'released' WHERE order_id = ?1 AND status = 'reserved'";
        const PUT_BACK: &str = "UPDATE product SET on_hand = on_hand + line.quantity FROM reservation_line AS line \
                                WHERE line.order_id = ?1 AND line.product_id = product.product_id";
        let warehouse = self.warehouse(about.order)?;
        let Entry::First(mut tx) = warehouse.inbox.begin(delivery).await? else {
            return Ok(());
        };
        let release = sqlx::query(RELEASE).bind(about.order);
        if release.execute(&mut *tx).await?.rows_affected() != 1 {
            return Err(Failure::Never(anyhow!(
                "order {} is cancelled and has nothing reserved",
                about.order
            )));
        }
        let put_back = sqlx::query(PUT_BACK).bind(about.order);
        put_back.execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
}

impl Service for Stock {
    async fn apply(&self, delivery: &Delivery) -> Result<(), Failure> {
        match delivery.tag() {
            Some(PLACED) => {
                let placed: Placed = events::body(delivery).map_err(Failure::Never)?;
                self.answer(delivery, &placed).await
            }
            Some(CANCELLED) => {
                let about: About = events::body(delivery).map_err(Failure::Never)?;
                self.release(delivery, &about).await
            }
            tag => Err(Failure::Never(anyhow!(
                "the stock service does not listen to {tag:?}"
            ))),
        }
    }
}

async fn has_all(pool: &SqlitePool, wanted: &[Wanted]) -> Result<bool, sqlx::Error> {
    const HAS: &str =
        "SELECT EXISTS (SELECT 1 FROM product WHERE product_id = ?1 AND on_hand >= ?2)";
    let mut connection = pool.acquire().await?;
    for Wanted { product, quantity } in wanted {
        let has = sqlx::query_scalar(HAS).bind(product).bind(quantity);
        if !has.fetch_one(&mut *connection).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn write_answer(
    connection: &mut SqliteConnection,
    order: i64,
    status: &str,
    transaction: &[u8],
) -> Result<(), sqlx::Error> {
    const ANSWER: &str =
        "INSERT INTO reservation (order_id, status, answered_by) VALUES (?1, ?2, ?3)";
    let answer = sqlx::query(ANSWER)
        .bind(order)
        .bind(status)
        .bind(transaction);
    answer.execute(connection).await.map(drop)
}

/// Takes every line off the shelf; false when one is short: roll back.
async fn take(
    connection: &mut SqliteConnection,
    order: i64,
    wanted: &[Wanted],
) -> Result<bool, sqlx::Error> {
    const TAKE: &str =
        "UPDATE product SET on_hand = on_hand - ?2 WHERE product_id = ?1 AND on_hand >= ?2";
    const LINE: &str =
        "INSERT INTO reservation_line (order_id, product_id, quantity) VALUES (?1, ?2, ?3)";
    for Wanted { product, quantity } in wanted {
        let taken = sqlx::query(TAKE)
            .bind(product)
            .bind(quantity)
            .execute(&mut *connection)
            .await?;
        if taken.rows_affected() != 1 {
            return Ok(false);
        }
        let line = sqlx::query(LINE).bind(order).bind(product).bind(quantity);
        line.execute(&mut *connection).await?;
    }
    Ok(true)
}

/// Counts the answer, and with every so many takes a delivery in: what is below its level is filled up.
async fn restock(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    const COUNT: &str = "UPDATE warehouse SET answers = answers + 1 RETURNING answers";
    const DELIVER: &str = "INSERT INTO restocking (after_answers, product_id, quantity) \
                           SELECT ?1, product_id, max(initial, ?2) - on_hand FROM product WHERE on_hand < max(initial, ?2)";
    const FILL_UP: &str =
        "UPDATE product SET on_hand = max(initial, ?1) WHERE on_hand < max(initial, ?1)";
    let answers: i64 = sqlx::query_scalar(COUNT)
        .fetch_one(&mut *connection)
        .await?;
    if is_restocked(answers) {
        let deliver = sqlx::query(DELIVER).bind(answers).bind(RESTOCK_TO);
        deliver.execute(&mut *connection).await?;
        let fill_up = sqlx::query(FILL_UP).bind(RESTOCK_TO);
        fill_up.execute(&mut *connection).await?;
    }
    Ok(())
}
