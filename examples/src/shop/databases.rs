//! The databases of all services: how many there are, and the pools that lead to them.

use anyhow::Result;
use coordinator::marker::databases::Markers;
use sqlx::{Pool, Sqlite};

use super::catalog::Product;
use super::kinds::{Kind, Tables, sql};

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

impl Layout {
    /// The name of every database, and what is in it.
    pub fn names(self) -> impl Iterator<Item = (String, Tables)> + Send {
        let orders = (0..self.orders).map(|shard| (format!("orders_{shard}"), Tables::Orders));
        let payments =
            (0..self.payments).map(|shard| (format!("payments_{shard}"), Tables::Payments));
        let stock = (0..self.stock).map(|shard| (format!("stock_{shard}"), Tables::Stock));
        orders.chain(payments).chain(stock)
    }
}

/// The databases of all services.
#[derive(Debug)]
pub struct Databases<DB: Kind = Sqlite> {
    /// The order service's shards.
    pub orders: Vec<Pool<DB>>,
    /// The payment service's shards.
    pub payments: Vec<Pool<DB>>,
    /// The stock service's shards.
    pub stock: Vec<Pool<DB>>,
}

impl<DB: Kind> Databases<DB> {
    /// Opens all databases at `home`, creating what is missing.
    ///
    /// # Errors
    /// Names the database or folder that cannot be used.
    pub async fn open(home: &DB::Home, layout: Layout) -> Result<Self> {
        let (mut orders, mut payments, mut stock) = (Vec::new(), Vec::new(), Vec::new());
        for (name, tables) in layout.names() {
            let pool = DB::open(home, &name, tables).await?;
            match tables {
                Tables::Orders => orders.push(pool),
                Tables::Payments => payments.push(pool),
                Tables::Stock => stock.push(pool),
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
        const PUT: &str = "INSERT INTO product (product_id, name, initial, on_hand) VALUES ($1, $2, $3, $3) \
                           ON CONFLICT DO NOTHING";
        for warehouse in &self.stock {
            let mut tx = warehouse.begin().await?;
            for product in products {
                let put = sql(PUT).bind(product.id).bind(&*product.name);
                DB::execute(&mut tx, put.bind(product.stock)).await?;
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
pub async fn markers<DB: Kind>(pools: &[Pool<DB>]) -> Result<Markers> {
    let mut markers = Markers::new();
    for pool in pools {
        markers = markers.add(pool.clone()).await?;
    }
    Ok(markers)
}
