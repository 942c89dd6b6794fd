//! The stock service: reserves all lines of an order or none, releases them when it is cancelled, takes deliveries in.

use anyhow::{Context, Result, anyhow};
use coordinator::client::Producer;
use coordinator::inbox::{Entry, Inbox};
use mq_core::client::{Builder, Consumer, Delivery};
use sqlx::{Pool, Sqlite};

use super::events::{
    self, About, CANCELLED, ORDERS, PLACED, Placed, REFUSED, RESERVED, STOCK, Wanted,
};
use super::kinds::{Kind, sql};
use super::rules::{RESTOCK_TO, is_restocked, stock_shard};
use super::serving::{Failure, PREFETCH_BYTES, Service, settled};

/// Producer group and consumer group of the service.
pub const GROUP: &str = "stock-service";

/// The stock service.
#[derive(Debug)]
pub struct Stock<DB: Kind = Sqlite> {
    warehouses: Vec<Warehouse<DB>>,
    producer: Producer,
}

/// One database of the service, with everything on its shelves.
#[derive(Debug)]
struct Warehouse<DB: Kind> {
    pool: Pool<DB>,
    inbox: Inbox<DB>,
}

impl<DB: Kind> Stock<DB> {
    /// The service over its databases.
    ///
    /// # Errors
    /// A database cannot be written.
    pub async fn new(pools: &[Pool<DB>], producer: Producer) -> Result<Self> {
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
    fn warehouse(&self, order: i64) -> Result<&Warehouse<DB>, Failure> {
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
            let tag = if has_all::<DB>(&warehouse.pool, &placed.wanted).await? {
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
            write_answer::<DB>(&mut tx, order, tag, &id).await?;
            if tag == RESERVED && !take::<DB>(&mut tx, order, &placed.wanted).await? {
                let _ = tx.roll_back().await;
                continue;
            }
            restock::<DB>(&mut tx).await?;
            return settled(tx.commit().await?);
        }
    }

    /// Puts back what was reserved for an order.
    async fn release(&self, delivery: &Delivery, about: &About) -> Result<(), Failure> {
        const RELEASE: &str = "UPDATE reservation SET status = 'released' WHERE order_id = $1 AND status = 'reserved'";
        const PUT_BACK: &str = "UPDATE product SET on_hand = on_hand + line.quantity FROM reservation_line AS line \
                                WHERE line.order_id = $1 AND line.product_id = product.product_id";
        let warehouse = self.warehouse(about.order)?;
        let Entry::First(mut tx) = warehouse.inbox.begin(delivery).await? else {
            return Ok(());
        };
        if DB::execute(&mut tx, sql(RELEASE).bind(about.order)).await? != 1 {
            return Err(Failure::Never(anyhow!(
                "order {} is cancelled and has nothing reserved",
                about.order
            )));
        }
        DB::execute(&mut tx, sql(PUT_BACK).bind(about.order)).await?;
        Ok(tx.commit().await?)
    }
}

impl<DB: Kind> Service for Stock<DB> {
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

async fn has_all<DB: Kind>(pool: &Pool<DB>, wanted: &[Wanted]) -> Result<bool, sqlx::Error> {
    const HAS: &str =
        "SELECT EXISTS (SELECT 1 FROM product WHERE product_id = $1 AND on_hand >= $2)";
    let mut connection = pool.acquire().await?;
    for Wanted { product, quantity } in wanted {
        let has = sql(HAS).bind(*product).bind(*quantity);
        if !DB::value::<bool>(&mut connection, has).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn write_answer<DB: Kind>(
    connection: &mut DB::Connection,
    order: i64,
    status: &str,
    transaction: &[u8],
) -> Result<(), sqlx::Error> {
    const ANSWER: &str =
        "INSERT INTO reservation (order_id, status, answered_by) VALUES ($1, $2, $3)";
    let answer = sql(ANSWER).bind(order).bind(status).bind(transaction);
    DB::execute(connection, answer).await.map(drop)
}

/// Takes every line off the shelf; false when one is short: roll back.
async fn take<DB: Kind>(
    connection: &mut DB::Connection,
    order: i64,
    wanted: &[Wanted],
) -> Result<bool, sqlx::Error> {
    const TAKE: &str =
        "UPDATE product SET on_hand = on_hand - $2 WHERE product_id = $1 AND on_hand >= $2";
    const LINE: &str =
        "INSERT INTO reservation_line (order_id, product_id, quantity) VALUES ($1, $2, $3)";
    for Wanted { product, quantity } in wanted {
        let taken = sql(TAKE).bind(*product).bind(*quantity);
        if DB::execute(connection, taken).await? != 1 {
            return Ok(false);
        }
        let line = sql(LINE).bind(order).bind(*product).bind(*quantity);
        DB::execute(connection, line).await?;
    }
    Ok(true)
}

/// Counts the answer, and with every so many takes a delivery in: what is below its level is filled up.
async fn restock<DB: Kind>(connection: &mut DB::Connection) -> Result<(), sqlx::Error> {
    const COUNT: &str = "UPDATE warehouse SET answers = answers + 1 RETURNING answers";
    const DELIVER: &str = "INSERT INTO restocking (after_answers, product_id, quantity) \
                           SELECT $1, product_id, CASE WHEN initial > $2 THEN initial ELSE $2 END - on_hand FROM product \
                           WHERE on_hand < CASE WHEN initial > $2 THEN initial ELSE $2 END";
    const FILL_UP: &str = "UPDATE product SET on_hand = CASE WHEN initial > $1 THEN initial ELSE $1 END \
                           WHERE on_hand < CASE WHEN initial > $1 THEN initial ELSE $1 END";
    let answers: i64 = DB::value(connection, sql(COUNT)).await?;
    if is_restocked(answers) {
        let deliver = sql(DELIVER).bind(answers).bind(RESTOCK_TO);
        DB::execute(connection, deliver).await?;
        DB::execute(connection, sql(FILL_UP).bind(RESTOCK_TO)).await?;
    }
    Ok(())
}
