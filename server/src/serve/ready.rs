//! What is printed once a process answers: where everything listens, and how to try it.

use std::io::{self, Write};

use serde::Serialize;

use super::addresses;
use super::node::{RunningBroker, RunningNameserver, old_clients};
use mq_core::serving::registration::Standing;

/// The first word of the first line; scripts wait for it.
const WORD: &str = "ready";

/// Where everything is.
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    ready: bool,
    version: &'static str,
    pid: u32,
    nameserver: Option<String>,
    broker: Option<BrokerPlace>,
}

#[derive(Debug, Serialize)]
struct BrokerPlace {
    name: String,
    listen: String,
    /// The port for clients of 4.x.
    listen_4x: String,
    advertised: String,
    data: String,
    nameservers: Vec<NameserverPlace>,
}

#[derive(Debug, Serialize)]
struct NameserverPlace {
    address: String,
    /// Why it does not know the broker; nothing when it does.
    problem: Option<String>,
}

impl Ready {
    /// Waits until the broker has tried its nameservers.
    pub(super) async fn of(
        nameserver: Option<&RunningNameserver>,
        broker: Option<&mut RunningBroker>,
    ) -> Self {
        let place = match broker {
            Some(broker) => Some(BrokerPlace::of(broker).await),
            None => None,
        };
        Self {
            ready: true,
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            nameserver: nameserver.map(|nameserver| nameserver.address.to_string()),
            broker: place,
        }
    }

    /// Prints it. Nobody needs to read it.
    pub(super) fn print(&self, json: bool) {
        let mut out = io::stdout().lock();
        let text = if json {
            serde_json::to_string(self).unwrap_or_default()
        } else {
            self.text()
        };
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    fn text(&self) -> String {
        let mut first = Vec::new();
        let mut lines = Vec::new();
        if let Some(nameserver) = &self.nameserver {
            first.push(format!("nameserver {nameserver}"));
        }
        if let Some(broker) = &self.broker {
            first.push(format!("broker {}", broker.listen));
            lines.push(format!(
                "  clients are told {}; those of 4.x also use {}",
                broker.advertised, broker.listen_4x
            ));
            lines.push(format!("  data in {}", broker.data));
        }
        lines.insert(0, format!("{WORD}: {}", first.join(", ")));
        if let (Some(nameserver), Some(_)) = (self.nameserver.as_deref(), &self.broker) {
            let reached = nameserver.parse().map(addresses::reachable);
            let reached = reached.map_or(nameserver.to_owned(), |address| address.to_string());
            lines.push("Try it:".into());
            lines.push(format!("  export NAMESRV_ADDR={reached}"));
            lines.push("  halfmoon message send --topic TopicTest --body hello".into());
            lines.push("  halfmoon message consume --topic TopicTest".into());
        }
        lines.join("\n")
    }
}

impl BrokerPlace {
    async fn of(broker: &mut RunningBroker) -> Self {
        let nameservers = broker.nameservers().await;
        let listen = broker.settings.broker_listen;
        Self {
            name: broker.presence.name.clone(),
            listen: listen.to_string(),
            listen_4x: old_clients(listen).to_string(),
            advertised: broker.presence.advertised.to_string(),
            data: broker.settings.data.display().to_string(),
            nameservers: (nameservers.into_iter())
                .map(|(address, standing)| NameserverPlace {
                    address,
                    problem: match standing {
                        Standing::Failed(why) => Some(why),
                        Standing::Registered | Standing::Untried => None,
                    },
                })
                .collect(),
        }
    }
}
