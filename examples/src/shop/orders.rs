//! The order service: places orders, and ends them as stock and payments say.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use coordinator::client::Producer;
use coordinator::client::endpoint::HalfError;
use coordinator::client::half::Settled;
use coordinator::client::producer::BeginError;
use coordinator::inbox::{Entry, Inbox};
use mq_core::client::{Builder, Consumer, Delivery};
use mq_core::message::Message;
use sqlx::{Pool, Sqlite};

use super::catalog::Order;
use super::events::{
    self, About, CANCELLED, CAPTURED, ORDERS, PAYMENTS, PLACED, Placed, REFUSED, STOCK, Wanted,
};
use super::kinds::{Kind, sql};
use super::rules::{goods_cents, order_shard};
use super::serving::{Failure, PREFETCH_BYTES, Service, settled};

/// Producer group and consumer group of the service.
pub const GROUP: &str = "order-service";
/// Wait before an order is placed again after the coordinator was busy.
const BUSY: Duration = Duration::from_millis(20);

/// The order service. Cheap to clone.
#[derive(Debug)]
pub struct Orders<DB: Kind = Sqlite> {
    shards: Arc<[Shard<DB>]>,
    producer: Producer,
}

#[derive(Debug)]
struct Shard<DB: Kind> {
    pool: Pool<DB>,
    inbox: Inbox<DB>,
}

impl<DB: Kind> Shard<DB> {
    /// Whether an order is here, or known to have been rejected.
    async fn knows(&self, order: i64) -> Result<bool, sqlx::Error> {
        const KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM orders WHERE order_id = $1) \
                             OR EXISTS (SELECT 1 FROM rejected_order WHERE order_id = $1)";
        let mut connection = self.pool.acquire().await?;
        DB::value(&mut connection, sql(KNOWN).bind(order)).await
    }

    /// Remembers an order that broke a rule, so that a later start does not try it again.
    async fn reject(&self, order: i64, error: &sqlx::Error) -> Result<(), sqlx::Error> {
        const REJECT: &str =
            "INSERT INTO rejected_order (order_id, reason) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let mut connection = self.pool.acquire().await?;
        let why = error.to_string();
        let reject = sql(REJECT).bind(order).bind(&*why);
        DB::execute(&mut connection, reject).await.map(drop)
    }
}

/// What became of an order that was to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placing {
    /// It was in the database already, or is known to have been rejected.
    Known,
    /// It is in the database now, and the others will hear of it.
    Placed,
    /// It broke a rule of the database: rolled back, and nobody will ever hear of it.
    Rejected,
}

impl<DB: Kind> Clone for Orders<DB> {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            producer: self.producer.clone(),
        }
    }
}

impl<DB: Kind> Orders<DB> {
    /// The service over its databases.
    ///
    /// # Errors
    /// A database cannot be written.
    pub async fn new(pools: &[Pool<DB>], producer: Producer) -> Result<Self> {
        let mut shards = Vec::new();
        for pool in pools {
            let inbox = Inbox::new(pool.clone(), GROUP)?;
            inbox.ensure_table().await?;
            let pool = pool.clone();
            shards.push(Shard { pool, inbox });
        }
        Ok(Self {
            shards: shards.into(),
            producer,
        })
    }

    /// What the service listens to.
    #[must_use]
    pub fn consumer() -> Builder {
        Consumer::builder(GROUP)
            .subscribe(STOCK, REFUSED)
            .subscribe(PAYMENTS, format!("{CAPTURED} || {REFUSED}"))
            .prefetch_bytes(PREFETCH_BYTES)
    }

    /// This instance's own producer.
    #[must_use]
    pub const fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Places `order` unless it is known, through this or another producer of the group. Placing it again is safe.
    ///
    /// # Errors
    /// Database or coordinator do not work; the order is in the database and its message will appear, or neither.
    pub async fn place(&self, order: &Order, producer: &Producer) -> Result<Placing> {
        let shard = self.shard(&order.customer)?;
        loop {
            if shard.knows(order.id).await? {
                return Ok(Placing::Known);
            }
            let mut tx = match producer.begin(&shard.pool, placed(order)?).await {
                Ok(tx) => tx,
                Err(BeginError::Half(HalfError::Busy(_)) | BeginError::Fenced(_)) => {
                    tokio::time::sleep(BUSY).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let id = tx.id();
            match insert::<DB>(&mut tx, order, &id.to_bytes()).await {
                Ok(()) => {}
                // Somebody has placed it meanwhile, perhaps this service before it was killed.
                Err(error) if is_there(&error) => {
                    let _ = tx.roll_back().await;
                    continue;
                }
                Err(error) if breaks_a_rule(&error) => {
                    // Whatever the coordinator says to it: the local transaction is gone, and with it the message.
                    let _ = tx.roll_back().await;
                    shard.reject(order.id, &error).await?;
                    return Ok(Placing::Rejected);
                }
                Err(error) => return Err(error.into()),
            }
            match tx.commit().await? {
                Settled::Decided => return Ok(Placing::Placed),
                // Committed, or its COMMIT had an unknown outcome: the database tells.
                Settled::Deferred(_) if shard.knows(order.id).await? => {
                    return Ok(Placing::Placed);
                }
                Settled::Deferred(_) => {}
                other @ (Settled::Contradicted(_) | Settled::NotFound(_)) | other => {
                    return Err(anyhow!("order {} is placed and {other:?}", order.id));
                }
            }
        }
    }

    /// Begins to place an order that is not placed yet, and stops before its row is written.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub async fn begin_only(&self, order: &Order, producer: &Producer) -> Result<()> {
        let shard = self.shard(&order.customer)?;
        if shard.knows(order.id).await? {
            return Ok(());
        }
        match producer.begin(&shard.pool, placed(order)?).await {
            Ok(tx) => {
                let _ = tx.roll_back().await;
                Ok(())
            }
            Err(BeginError::Half(HalfError::Busy(_)) | BeginError::Fenced(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Where an order is: `placed`, `accepted`, `cancelled` or `rejected`; `None` when nobody has placed it.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn status(&self, order: i64) -> Result<Option<String>> {
        const STATUS: &str = "SELECT status FROM orders WHERE order_id = $1 \
                              UNION ALL SELECT 'rejected' FROM rejected_order WHERE order_id = $1";
        for shard in self.shards.iter() {
            let mut connection = shard.pool.acquire().await?;
            let found: Vec<(String,)> = DB::fetch(&mut connection, sql(STATUS).bind(order)).await?;
            if let Some((status,)) = found.into_iter().next() {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    fn shard(&self, customer: &str) -> Result<&Shard<DB>> {
        let shard = order_shard(customer, self.shards.len());
        self.shards
            .get(shard)
            .with_context(|| format!("there is no database for shard {shard}"))
    }

    /// Ends an order; nobody needs to hear of it.
    async fn end(&self, delivery: &Delivery, about: &About, end: End) -> Result<(), Failure> {
        let shard = self.shard(&about.customer).map_err(Failure::Never)?;
        let Entry::First(mut tx) = shard.inbox.begin(delivery).await? else {
            return Ok(());
        };
        end.write::<DB>(&mut tx, about.order, None).await?;
        Ok(tx.commit().await?)
    }

    /// Cancels an order and says so, so that its stock is released.
    async fn cancel(&self, delivery: &Delivery, about: &About) -> Result<(), Failure> {
        let shard = self.shard(&about.customer).map_err(Failure::Never)?;
        let message =
            events::message(ORDERS, CANCELLED, about.order, about).map_err(Failure::Never)?;
        let mut tx = self.producer.begin(&shard.pool, message).await?;
        if !shard.inbox.enter(&mut tx, delivery).await? {
            let _ = tx.roll_back().await;
            return Ok(());
        }
        let id = tx.id().to_bytes();
        End::NotPaid
            .write::<DB>(&mut tx, about.order, Some(&id))
            .await?;
        settled(tx.commit().await?)
    }
}

impl<DB: Kind> Service for Orders<DB> {
    async fn apply(&self, delivery: &Delivery) -> Result<(), Failure> {
        let about: About = events::body(delivery).map_err(Failure::Never)?;
        match (delivery.topic().as_str(), delivery.tag()) {
            (STOCK, Some(REFUSED)) => self.end(delivery, &about, End::NoStock).await,
            (PAYMENTS, Some(CAPTURED)) => self.end(delivery, &about, End::Accepted).await,
            (PAYMENTS, Some(REFUSED)) => self.cancel(delivery, &about).await,
            (topic, tag) => Err(Failure::Never(anyhow!(
                "the order service does not listen to {topic}/{tag:?}"
            ))),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    Accepted,
    NoStock,
    NotPaid,
}

impl End {
    /// Ends an order that is open. `transaction` is the one whose message tells of it.
    async fn write<DB: Kind>(
        self,
        connection: &mut DB::Connection,
        order: i64,
        transaction: Option<&[u8]>,
    ) -> Result<(), Failure> {
        const END: &str = "UPDATE orders SET status = $2, reason = $3, cancelled_by = $4 \
                           WHERE order_id = $1 AND status = 'placed'";
        let (status, reason) = match self {
            Self::Accepted => ("accepted", None),
            Self::NoStock => ("cancelled", Some("stock")),
            Self::NotPaid => ("cancelled", Some("payment")),
        };
        let end = sql(END).bind(order).bind(status).bind(reason);
        if DB::execute(connection, end.bind(transaction)).await? == 1 {
            return Ok(());
        }
        Err(Failure::Never(anyhow!(
            "order {order} cannot be {status}: it is not open"
        )))
    }
}

fn placed(order: &Order) -> Result<Message> {
    let wanted = order.lines.iter().map(|line| Wanted {
        product: line.product,
        quantity: line.quantity,
    });
    let body = Placed {
        about: About {
            order: order.id,
            customer: order.customer.clone(),
            amount_cents: goods_cents(&order.lines) + order.freight_cents,
        },
        wanted: wanted.collect(),
    };
    events::message(ORDERS, PLACED, order.id, &body)
}

async fn insert<DB: Kind>(
    connection: &mut DB::Connection,
    order: &Order,
    transaction: &[u8],
) -> Result<(), sqlx::Error> {
    const ORDER: &str = "INSERT INTO orders (order_id, customer_id, ordered_on, goods_cents, freight_cents, placed_by) \
                         VALUES ($1, $2, $3, $4, $5, $6)";
    const LINE: &str = "INSERT INTO order_line (order_id, product_id, quantity, unit_price_cents, discount_percent) \
                        VALUES ($1, $2, $3, $4, $5)";
    let row = sql(ORDER)
        .bind(order.id)
        .bind(&*order.customer)
        .bind(&*order.ordered_on)
        .bind(goods_cents(&order.lines))
        .bind(order.freight_cents)
        .bind(transaction);
    DB::execute(connection, row).await?;
    for line in &order.lines {
        let row = sql(LINE)
            .bind(order.id)
            .bind(line.product)
            .bind(line.quantity)
            .bind(line.unit_price_cents)
            .bind(line.discount_percent);
        DB::execute(connection, row).await?;
    }
    Ok(())
}

fn is_there(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation())
}

fn breaks_a_rule(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_check_violation())
}
