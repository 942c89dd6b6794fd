//! A producer beside its coordinator, in one process: no socket, the same steps.

use std::sync::Arc;

use mq_core::membership::{Announcement, Link, Notice};

use super::check_back::{Asked, CheckBackQueue};
use super::producer::{Builder, ConnectError, Connection, Producer};
use crate::engine::Coordinator;

impl Builder {
    /// Connects to a coordinator in this process.
    ///
    /// # Errors
    /// [`ConnectError`] when the group's name breaks a rule or the coordinator has not been started by a broker.
    pub async fn attach(self, coordinator: &Coordinator) -> Result<Producer, ConnectError> {
        let broker = coordinator.broker().ok_or_else(|| {
            ConnectError::Refused(
                "the coordinator is not running; open a broker with it as extension first".into(),
            )
        })?;
        let endpoint = Arc::new(coordinator.clone());
        self.over(async move |said, queue| {
            let name = format!("{}@{:032X}", said.group, said.incarnation.0);
            let link = Arc::new(Beside { queue });
            let clients = broker.clients();
            let connection = clients.connect(name.clone(), said.incarnation.0, name, link);
            connection.announce(Announcement {
                producer_groups: vec![said.group],
                consumer_groups: Vec::new(),
                answers_for: said.markers.iter().map(|marker| marker.0).collect(),
            });
            Ok(Connection {
                endpoint,
                plain: mq_core::client::Producer::attach(&broker),
                guard: Box::new(connection),
            })
        })
        .await
    }
}

/// The way from the coordinator to a producer in the same process.
#[derive(Debug)]
struct Beside {
    queue: CheckBackQueue,
}

impl Link for Beside {
    fn push(&self, notice: Notice) -> bool {
        match Asked::from_notice(&notice) {
            Ok(asked) => self.queue.ask(asked).is_ok(),
            Err(error) => {
                tracing::warn!(code = notice.code, %error, "a check-back is left unanswered");
                true
            }
        }
    }
}
