//! A till: a short-lived instance of the order service whose line is cut before its word about a transaction arrives.
//!
//! Nothing here is pretended to the library: the till's half message arrives, its COMMIT reaches the database (or it gives
//! up before), and its resolution gets lost with the till. The coordinator notices that the till is gone and asks another
//! instance of the group, which finds the marker, or plants a tombstone where none is.

use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use coordinator::client::Producer;
use coordinator::client::endpoint::{
    Endpoint, HalfError, HalfReceipt, HalfRequest, Outcome, Resolve, ResolveError,
};
use coordinator::client::producer::Connection;
use coordinator::engine::Coordinator;
use coordinator::marker::databases::Markers;
use coordinator::transaction::TransactionId;
use mq_core::broker::clients::{Announcement, Link, Notice};

use super::orders;

/// A till. Dies when it is dropped.
#[derive(Debug)]
pub struct Till {
    producer: Producer,
}

impl Till {
    /// Starts a till beside the other instances of the order service.
    ///
    /// # Errors
    /// The coordinator is not running.
    pub async fn start(coordinator: &Coordinator, markers: Markers) -> Result<Self> {
        let broker = coordinator
            .broker()
            .context("the coordinator is not running")?;
        let endpoint = Arc::new(CutLine(coordinator.clone()));
        let connect = async move |said: coordinator::client::producer::Announcement, _| {
            let name = format!("till@{:032X}", said.incarnation.0);
            let connection =
                broker
                    .clients()
                    .connect(name.clone(), said.incarnation.0, name, Arc::new(Deaf));
            connection.announce(Announcement {
                producer_groups: vec![said.group],
                // It will not be there to answer for anybody.
                ..Announcement::default()
            });
            Ok(Connection {
                endpoint,
                plain: mq_core::client::Producer::attach(&broker),
                guard: Box::new(connection),
            })
        };
        let builder = Producer::builder(orders::GROUP).markers(markers);
        let producer = builder.over(connect).await?;
        Ok(Self { producer })
    }

    /// The till's producer.
    #[must_use]
    pub const fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Ends the till: its connection is gone from here on.
    pub async fn die(self) {
        self.producer.close().await;
    }
}

/// A line that takes half messages and loses every resolution.
#[derive(Debug)]
struct CutLine(Coordinator);

#[async_trait]
impl Endpoint for CutLine {
    async fn half(&self, request: HalfRequest) -> Result<HalfReceipt, HalfError> {
        self.0.half(request).await
    }

    async fn resolve(&self, _: Resolve) -> Result<Outcome, ResolveError> {
        Err(ResolveError("the till's line is cut".into()))
    }

    async fn committed(&self, _: &[TransactionId]) -> Vec<TransactionId> {
        Vec::new()
    }
}

/// The way to a till: nobody listens.
#[derive(Debug)]
struct Deaf;

impl Link for Deaf {
    fn push(&self, _: Notice) -> bool {
        false
    }
}
