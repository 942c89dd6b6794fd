//! Producers and consumers, over whatever reaches a broker.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use mq_core::broker::{Broker, Parts, Settings};
//! use mq_core::client::{Consumer, Producer};
//! use mq_core::clock::SystemClock;
//! use mq_core::log::{LogId, memory::MemoryLog};
//! use mq_core::message::Message;
//! use mq_core::random::SystemRandom;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = Arc::new(SystemClock::new());
//! let parts = Parts {
//!     log: Arc::new(MemoryLog::new(LogId(1), clock.clone())),
//!     clock,
//!     random: Arc::new(SystemRandom),
//!     extensions: vec![],
//! };
//! let broker = Broker::open(Settings::default(), parts).await?;
//!
//! let producer = Producer::attach(&broker);
//! let mut consumer = Consumer::builder("warehouse").subscribe("orders", "placed || cancelled").attach(&broker).await?;
//! producer.send(Message::builder("orders").tag("placed").body("10248").build()?).await?;
//!
//! let delivery = consumer.next().await?.expect("the broker is running");
//! assert_eq!(&delivery.body()[..], b"10248");
//! delivery.ack();
//! consumer.close().await?;
//! broker.close(Duration::from_secs(1)).await?;
//! # Ok(())
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # runtime.block_on(run()).unwrap();
//! ```

mod assignment;
mod consumer;
mod delivery;
#[cfg(feature = "engine")]
mod embedded;
mod error;
mod fetching;
mod member;
mod message_queue;
mod producer;
mod progress;
mod pull_consumer;
mod received;
pub mod remote;
mod settling;
mod transport;

#[cfg(feature = "engine")]
#[cfg(test)]
mod tests;

pub use assignment::{Sharing, share};
pub use consumer::{Builder, Consumer};
pub use delivery::Delivery;
#[cfg(feature = "engine")]
pub use embedded::Embedded;
pub use error::ClientError;
pub use message_queue::{BrokerName, LOCAL, MessageQueue};
pub use producer::{Builder as ProducerBuilder, Producer};
pub use pull_consumer::PullConsumer;
pub use received::{Received, ReceivedError};
pub use transport::{Attachment, Transport};
