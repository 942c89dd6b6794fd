//! The services' databases: one SQLite file each, opened for little memory and full durability.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use coordinator::marker::databases::Markers;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::catalog::Product;

/// The page cache of one connection in KiB. Small, because there are many connections and rows are few and short.
const CACHE_KIB: u32 = 256;

/// How a shop is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Databases of the order service.
    pub orders: usize,
    /// Databases of the payment service.
    pub payments: usize,
    /// Databases of the stock service: warehouses, each with everything on its shelves.
    pub stock: usize,
    /// Whether some orders are taken by tills that die.
    pub tills: bool,
}

/// The databases of all services.
#[derive(Debug, Clone)]
pub struct Databases {
    /// The order service's shards.
    pub orders: Vec<SqlitePool>,
    /// The payment service's shards.
    pub payments: Vec<SqlitePool>,
    /// The stock service's shards.
    pub stock: Vec<SqlitePool>,
}

/// Name and path of every file in `folder`.
#[must_use]
pub fn files(folder: &Path, layout: Layout) -> Vec<(String, PathBuf)> {
    let orders = (0..layout.orders).map(|shard| format!("orders_{shard}"));
    let payments = (0..layout.payments).map(|shard| format!("payments_{shard}"));
    let stock = (0..layout.stock).map(|shard| format!("stock_{shard}"));
    orders
        .chain(payments)
        .chain(stock)
        .map(|name| {
            let path = folder.join(format!("{name}.db"));
            (name, path)
        })
        .collect()
}

impl Databases {
    /// Opens all files in `folder`, creating what is missing.
    ///
    /// # Errors
    /// Names the file or folder that cannot be used.
    pub async fn open(folder: &Path, layout: Layout) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("the folder {} cannot be created", folder.display()))?;
        let (mut orders, mut payments, mut stock) = (Vec::new(), Vec::new(), Vec::new());
        for (name, path) in files(folder, layout) {
            if name.starts_with("orders") {
                orders.push(open(&path, include_str!("../../sql/orders.sql")).await?);
            } else if name.starts_with("payments") {
                payments.push(open(&path, include_str!("../../sql/payments.sql")).await?);
            } else {
                stock.push(open(&path, include_str!("../../sql/stock.sql")).await?);
            }
        }
        Ok(Self {
            orders,
            payments,
            stock,
        })
    }

    /// Puts the products on the shelves, those that are there already excepted.
    ///
    /// # Errors
    /// A database cannot be written.
    pub async fn stock_up(&self, products: &[Product]) -> Result<()> {
        const PUT: &str = "INSERT INTO product (product_id, name, initial, on_hand) VALUES (?1, ?2, ?3, ?3) \
                           ON CONFLICT DO NOTHING";
        for warehouse in &self.stock {
            let mut tx = warehouse.begin_with("BEGIN IMMEDIATE").await?;
            for product in products {
                let put = sqlx::query(PUT).bind(product.id).bind(&product.name);
                put.bind(product.stock).execute(&mut *tx).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// Closes every connection of the pools.
    pub async fn close(self) {
        for pool in self.orders.iter().chain(&self.payments).chain(&self.stock) {
            pool.close().await;
        }
    }
}

/// The marker databases of one service.
///
/// # Errors
/// Names the database that must not hold markers, or cannot be used.
pub async fn markers(pools: &[SqlitePool]) -> Result<Markers> {
    let mut markers = Markers::new();
    for pool in pools {
        markers = markers.add(pool.clone()).await?;
    }
    Ok(markers)
}

async fn open(path: &Path, tables: &'static str) -> Result<SqlitePool> {
    let opened = async {
        let pool = SqlitePoolOptions::new()
            // One writer is all that SQLite lets in; here the others wait their turn in order.
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(60))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options(path))
            .await?;
        sqlx::raw_sql(tables).execute(&pool).await?;
        anyhow::Ok(pool)
    };
    let opened = opened.await;
    opened.with_context(|| format!("the database {} cannot be used", path.display()))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Markers insist: what was answered must survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .disable_statement_logging()
}
