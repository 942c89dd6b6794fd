//! What the services tell each other: topics, tags and bodies.

use anyhow::{Context, Result};
use mq_core::client::Received;
use mq_core::message::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Topic of what happens to orders; tags [`PLACED`] and [`CANCELLED`].
pub const ORDERS: &str = "orders";
/// Topic of the stock service's answers; tags [`RESERVED`] and [`REFUSED`].
pub const STOCK: &str = "stock";
/// Topic of the payment service's answers; tags [`CAPTURED`] and [`REFUSED`].
pub const PAYMENTS: &str = "payments";

/// An order is in the books; the body is [`Placed`].
pub const PLACED: &str = "placed";
/// An order whose stock was reserved is cancelled; the body is [`About`].
pub const CANCELLED: &str = "cancelled";
/// All lines of an order are reserved; the body is [`About`].
pub const RESERVED: &str = "reserved";
/// All lines of an order are paid; the body is [`About`].
pub const CAPTURED: &str = "captured";
/// The answer is no; the body is [`About`].
pub const REFUSED: &str = "refused";

/// An order, as every service needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its number.
    pub order: i64,
    /// Who ordered.
    pub customer: String,
    /// What goods and transport cost, in cents.
    pub amount_cents: i64,
}

/// Units of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The product.
    pub product: i64,
    /// Units.
    pub quantity: i64,
}

/// An order and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The order.
    pub about: About,
    /// What it takes, each product once.
    pub wanted: Vec<Wanted>,
}

/// A message about `order`; the order's number is its key.
///
/// # Errors
/// The body is larger than a message may be.
pub fn message(topic: &str, tag: &str, order: i64, body: &impl Serialize) -> Result<Message> {
    let message = Message::builder(topic)
        .tag(tag)
        .key(order.to_string())
        .body(serde_json::to_vec(body)?);
    Ok(message.build()?)
}

/// The body of a message.
///
/// # Errors
/// It is not what the message's tag promises.
pub fn body<T: DeserializeOwned>(received: &Received) -> Result<T> {
    serde_json::from_slice(received.body()).with_context(|| {
        format!(
            "message {} of topic {} has a body that is not understood",
            received.message_id(),
            received.topic()
        )
    })
}
