//! Asking nameservers: one at a time, the next one when it fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::client::ClientError;
use crate::remoting::client::{Connection, Limits};
use crate::wire::command::Command;

/// How long a nameserver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The nameservers of one network; all of them know the same brokers.
#[derive(Debug)]
pub(super) struct Nameservers {
    addresses: Arc<[String]>,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    index: usize,
    connection: Option<Connection>,
}

impl Nameservers {
    pub(super) fn new(addresses: Arc<[String]>) -> Self {
        Self {
            addresses,
            current: Mutex::default(),
        }
    }

    /// Their addresses, for people.
    pub(super) fn names(&self) -> String {
        self.addresses.join("; ")
    }

    /// The answer of the first one that gives any, whatever its code.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] says why each of them has failed.
    pub(super) async fn ask(&self, command: &Command) -> Result<Command, ClientError> {
        let mut failed = Vec::new();
        let first = self.current().index;
        for turn in 0..self.addresses.len() {
            let index = (first + turn) % self.addresses.len();
            let Some(address) = self.addresses.get(index) else {
                continue;
            };
            match self.ask_one(index, address, command.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(why) => failed.push(format!("{address}: {why}")),
            }
        }
        Err(ClientError::Unavailable(format!(
            "no nameserver answers; {}",
            failed.join("; ")
        )))
    }

    async fn ask_one(
        &self,
        index: usize,
        address: &str,
        command: Command,
    ) -> Result<Command, String> {
        let known = {
            let current = self.current();
            let connection = current.connection.clone();
            connection.filter(|open| current.index == index && !open.is_closed())
        };
        let connection = match known {
            Some(connection) => connection,
            None => {
                let opened = Connection::open(address, Limits::default()).await;
                let opened = opened.map_err(|error| error.to_string())?;
                *self.current() = Current {
                    index,
                    connection: Some(opened.clone()),
                };
                opened
            }
        };
        connection
            .call(command, ANSWER_WITHIN)
            .await
            .map_err(|error| {
                // One that does not answer is not asked over this connection again.
                connection.close();
                error.to_string()
            })
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
