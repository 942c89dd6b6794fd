//! The Northwind data: the products with their first stock, and the order book, which repeats under new ids when it is used up.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Orders in the book.
pub const ORDERS: u64 = 830;
/// Ids of repeated orders begin here.
pub const REPEATS_FROM: i64 = 100_000;

/// Something the shop sells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Units on hand when the shop opens.
    pub stock: i64,
}

/// One line of an order. A product is on one line of an order at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The product.
    pub product: i64,
    /// Units.
    pub quantity: i64,
    /// Price of a unit in cents.
    pub unit_price_cents: i64,
    /// Percent taken off the line.
    pub discount_percent: i64,
}

/// An order as a customer gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number.
    pub id: i64,
    /// Who orders.
    pub customer: String,
    /// The day, as `1996-07-04`.
    pub ordered_on: String,
    /// Cost of the transport in cents.
    pub freight_cents: i64,
    /// What is ordered.
    pub lines: Vec<Line>,
}

/// Products and order book.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// By number.
    pub products: Vec<Product>,
    book: Vec<Order>,
}

/// A file of the data is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: {what}")]
pub struct CatalogError {
    file: &'static str,
    line: usize,
    what: String,
}

impl Catalog {
    /// The data that comes with the examples.
    ///
    /// # Errors
    /// [`CatalogError`] names the first line that breaks a rule.
    pub fn northwind() -> Result<Self, CatalogError> {
        Self::parse(
            include_str!("../../data/products.csv"),
            include_str!("../../data/orders.csv"),
            include_str!("../../data/order_lines.csv"),
        )
    }

    fn parse(products: &str, orders: &str, lines: &str) -> Result<Self, CatalogError> {
        let products = rows(
            "products.csv",
            products,
            ["product_id", "name", "unit_price_cents", "units_in_stock"],
        )
        .map(|row| {
            let row = row?;
            let [_, name, _, _] = row.fields;
            Ok(Product {
                id: row.number(0)?,
                name: name.to_owned(),
                stock: row.number(3)?,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
        let columns = [
            "order_id",
            "customer_id",
            "ordered_on",
            "freight_cents",
            "ship_country",
        ];
        let mut book = rows("orders.csv", orders, columns)
            .map(|row| {
                let row = row?;
                let [_, customer, ordered_on, _, _] = row.fields;
                Ok(Order {
                    id: row.number(0)?,
                    customer: customer.to_owned(),
                    ordered_on: ordered_on.to_owned(),
                    freight_cents: row.number(3)?,
                    lines: Vec::new(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        book.sort_by_key(|order| order.id);
        add_lines(&products, &mut book, lines)?;
        Ok(Self { products, book })
    }

    /// The first `count` orders; behind the end of the book its orders come again, under ids from [`REPEATS_FROM`] on.
    pub fn orders(&self, count: u64) -> impl Iterator<Item = Order> {
        let book = self.book.iter().cloned();
        let again = self.book.iter().cycle().zip(REPEATS_FROM..);
        let again = again.map(|(order, id)| Order {
            id,
            ..order.clone()
        });
        book.chain(again)
            .take(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

fn add_lines(products: &[Product], book: &mut [Order], lines: &str) -> Result<(), CatalogError> {
    let columns = [
        "order_id",
        "product_id",
        "unit_price_cents",
        "quantity",
        "discount_percent",
    ];
    for row in rows("order_lines.csv", lines, columns) {
        let row = row?;
        let (id, product) = (row.number(0)?, row.number(1)?);
        let order = book
            .binary_search_by_key(&id, |order| order.id)
            .ok()
            .and_then(|index| book.get_mut(index));
        let Some(order) = order else {
            return Err(row.wrong(format!("there is no order {id}")));
        };
        if !products.iter().any(|known| known.id == product) {
            return Err(row.wrong(format!("there is no product {product}")));
        }
        order.lines.push(Line {
            product,
            quantity: row.number(3)?,
            unit_price_cents: row.number(2)?,
            discount_percent: row.number(4)?,
        });
    }
    Ok(())
}

/// One line of a file, with as many fields as the header has names.
struct Row<'a, const N: usize> {
    file: &'static str,
    line: usize,
    fields: [&'a str; N],
}

impl<const N: usize> Row<'_, N> {
    /// A whole number from 0 on.
    fn number(&self, column: usize) -> Result<i64, CatalogError> {
        let text = self.fields.get(column).copied().unwrap_or_default();
        u32::from_str(text)
            .map(i64::from)
            .map_err(|_| self.wrong(format!("{text:?} is no whole number from 0 on")))
    }

    fn wrong(&self, what: String) -> CatalogError {
        CatalogError {
            file: self.file,
            line: self.line,
            what,
        }
    }
}

/// The rows behind the header, which must name exactly these columns. Plain fields only: no quotes.
fn rows<'a, const N: usize>(
    file: &'static str,
    text: &'a str,
    columns: [&'static str; N],
) -> impl Iterator<Item = Result<Row<'a, N>, CatalogError>> {
    let split = move |line: usize, text: &'a str| {
        let wrong = |what: String| CatalogError { file, line, what };
        if text.contains('"') {
            return Err(wrong("quoted fields are not understood".into()));
        }
        let fields: Vec<&str> = text.split(',').collect();
        let fields = <[&str; N]>::try_from(fields)
            .map_err(|fields| wrong(format!("{} fields instead of {N}", fields.len())))?;
        Ok(Row { file, line, fields })
    };
    let mut lines = (1..).zip(text.lines());
    let header = match lines.next() {
        Some((line, text)) => split(line, text).and_then(|row| {
            let good = row.fields == columns;
            good.then_some(())
                .ok_or_else(|| row.wrong(format!("the header is not {columns:?}")))
        }),
        None => Err(CatalogError {
            file,
            line: 1,
            what: "the file is empty".into(),
        }),
    };
    header
        .err()
        .map(Err)
        .into_iter()
        .chain(lines.map(move |(line, text)| split(line, text)))
}

#[cfg(test)]
mod tests {
    use super::super::rules::goods_cents;
    use super::*;

    #[test]
    fn the_whole_of_northwind_is_read() {
        let catalog = Catalog::northwind().unwrap();
        assert_eq!(catalog.products.len(), 77);
        assert_eq!(catalog.book.len() as u64, ORDERS);
        let lines: usize = catalog.book.iter().map(|order| order.lines.len()).sum();
        assert_eq!(lines, 2155);
        let stock: i64 = catalog.products.iter().map(|product| product.stock).sum();
        assert_eq!(stock, 3119);
        let first = &catalog.book[0];
        assert_eq!((first.id, &*first.customer), (10248, "VINET"));
        assert_eq!(goods_cents(&first.lines), 44_000);
    }

    #[test]
    fn the_book_repeats_under_new_ids() {
        let catalog = Catalog::northwind().unwrap();
        let orders: Vec<Order> = catalog.orders(2 * ORDERS + 1).collect();
        let book = ORDERS as usize;
        assert_eq!((orders[book].id, orders[book + 1].id), (100_000, 100_001));
        assert_eq!(orders[book].lines, orders[0].lines);
        assert_eq!(orders[2 * book].id, 100_830);
        let mut ids: Vec<i64> = orders.iter().map(|order| order.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 2 * book + 1);
        assert_eq!(catalog.orders(3).count(), 3);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let products = "product_id,name,unit_price_cents,units_in_stock\n1,Chai,1800,39\n";
        let orders =
            "order_id,customer_id,ordered_on,freight_cents,ship_country\n7,A,1996-07-04,1,F\n";
        let lines = "order_id,product_id,unit_price_cents,quantity,discount_percent\n";
        let wrong = |products: &str, lines: &str| {
            let error = Catalog::parse(products, orders, lines).unwrap_err();
            error.to_string()
        };
        assert!(wrong("id,name\n", lines).contains("products.csv, line 1"));
        assert!(wrong("", lines).contains("empty"));
        assert!(wrong(&format!("{products}2,Chang,1900,-1\n"), lines).contains("line 3: \"-1\""));
        assert!(wrong(&format!("{products}2,\"a,b\",1,1\n"), lines).contains("quoted"));
        assert!(wrong(products, &format!("{lines}8,1,1,1,0\n")).contains("no order 8"));
        assert!(wrong(products, &format!("{lines}7,2,1,1,0\n")).contains("no product 2"));
        assert!(wrong(products, &format!("{lines}7,1,1\n")).contains("3 fields instead of 5"));
    }
}
