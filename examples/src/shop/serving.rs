//! A service's loop: take deliveries, apply a few at a time, settle each.

use std::sync::Arc;

use anyhow::Result;
use coordinator::client::half::Settled;
use mq_core::client::{Consumer, Delivery};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Deliveries that one service works on at a time: enough that one commits while others wait for the log and the
/// coordinator.
const AT_A_TIME: usize = 8;
/// Delay level of a delivery that could not be applied now: 1 s.
const SOON: u8 = 1;
/// How many bytes of messages a service reads ahead.
pub const PREFETCH_BYTES: u32 = 256 << 10;

/// Why a delivery was not applied.
#[derive(Debug)]
pub enum Failure {
    /// Not now: it comes again, and the inbox knows whether it was applied after all.
    Later(anyhow::Error),
    /// Never: something that the design excludes has happened. The service stops.
    Never(anyhow::Error),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Later(error.into())
    }
}

/// What a service does with messages.
pub trait Service: Send + Sync + 'static {
    /// Applies a delivery. After `Ok` its effect is committed, now or when it came before, and it is acknowledged.
    fn apply(&self, delivery: &Delivery) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Serves until `stop` becomes true, then finishes what was begun and leaves the consumer group.
///
/// # Errors
/// The first [`Failure::Never`], or that the broker refuses to go on.
pub async fn serve(
    service: impl Service,
    mut consumer: Consumer,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let service = Arc::new(service);
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(done) = under_way.join_next() => done??,
            next = consumer.next(), if under_way.len() < AT_A_TIME => {
                let Some(delivery) = next? else { break };
                under_way.spawn(settle(Arc::clone(&service), delivery));
            }
        }
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(consumer.close().await?)
}

async fn settle(service: Arc<impl Service>, delivery: Delivery) -> Result<()> {
    match service.apply(&delivery).await {
        Ok(()) => delivery.ack(),
        Err(Failure::Later(error)) => {
            tracing::info!(message = delivery.message_id(), error = %format!("{error:#}"), "a message comes again later");
            delivery.retry_later(SOON);
        }
        Err(Failure::Never(error)) => return Err(error),
    }
    Ok(())
}

/// What it means for a delivery how the transaction that answered it was settled.
///
/// # Errors
/// [`Failure::Later`] when it is not known whether the local transaction has committed; [`Failure::Never`] when the
/// coordinator holds another decision than the database.
pub fn settled(settled: Settled) -> Result<(), Failure> {
    match settled {
        Settled::Decided => Ok(()),
        Settled::Deferred(why) => Err(Failure::Later(anyhow::anyhow!(
            "left to a check-back: {why}"
        ))),
        Settled::Contradicted(verdict) => Err(Failure::Never(anyhow::anyhow!(
            "the local transaction committed, the coordinator says {verdict:?}"
        ))),
        Settled::NotFound(why) => Err(Failure::Never(anyhow::anyhow!(
            "the coordinator does not know the half message: {why}"
        ))),
        other => Err(Failure::Never(anyhow::anyhow!("settled as {other:?}"))),
    }
}
