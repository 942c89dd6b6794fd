//! A nameserver or broker that runs, from its ports to its good-bye.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::sync::Arc;

use coordinator::embedded::{Embedded, OpenError, Settings as EmbeddedSettings};
use coordinator::engine::settings::{CheckBackSettings, Settings as CoordinatorSettings};
use mq_core::broker::Settings as BrokerSettings;
use mq_core::clock::SystemClock;
use mq_core::log::open::{OpenError as LogOpenError, Settings as LogSettings};
use mq_core::nameserver::{Nameserver as Routes, NameserverService};
use mq_core::remoting::listener::Listener;
use mq_core::serving::registration::{Registration, Standing};
use mq_core::serving::{BrokerService, Presence};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::addresses;
use crate::failure::Failure;
use crate::settings::Settings;

/// The memory that the defaults of log and coordinator are meant for.
const USUAL_MEMORY: u64 = 96 << 20;

/// Takes a port.
async fn bind(what: &str, address: SocketAddrV4, setting: &str) -> Result<Listener, Failure> {
    Listener::bind(address).await.map_err(|error| {
        let advice = if error.kind() == ErrorKind::AddrInUse {
            "another process has the port; stop it or choose another"
        } else {
            "choose another address"
        };
        Failure::Environment(format!(
            "{what} cannot listen on {address} ({error}): {advice} with {setting}"
        ))
    })
}

/// A nameserver that has its port and answers nobody yet.
pub(super) struct Nameserver {
    address: SocketAddrV4,
    listener: Listener,
}

impl Nameserver {
    pub(super) async fn bind(address: SocketAddrV4) -> Result<Self, Failure> {
        let setting = "--nameserver-listen or HALFMOON_NAMESERVER_LISTEN";
        let listener = bind("the nameserver", address, setting).await?;
        Ok(Self { address, listener })
    }

    /// Answers from now on.
    pub(super) fn start(self) -> RunningNameserver {
        let stop = watch::Sender::new(false);
        let service = NameserverService::new(Routes::new(Arc::new(SystemClock::new())));
        RunningNameserver {
            address: self.address,
            task: tokio::spawn(self.listener.serve(service, stop.subscribe())),
            stop,
        }
    }
}

/// A nameserver that answers.
pub(super) struct RunningNameserver {
    pub(super) address: SocketAddrV4,
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl RunningNameserver {
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        // A panic in it has been reported.
        let _ = self.task.await;
    }
}

/// A broker that has its ports; nothing is opened and nobody is answered yet.
pub(super) struct Broker {
    settings: Settings,
    presence: Presence,
    listeners: [Listener; 2],
}

impl Broker {
    pub(super) async fn bind(settings: Settings) -> Result<Self, Failure> {
        let (advertised, warning) = addresses::advertised(&settings)?;
        if let Some(warning) = warning {
            eprintln!("halfmoon: {warning}");
        }
        let setting = "--broker-listen, HALFMOON_BROKER_LISTEN or listenPort";
        let address = settings.broker_listen;
        let main = bind("the broker", address, setting).await?;
        let old = old_clients(address);
        let second = bind("the broker, for clients of 4.x,", old, setting).await?;
        Ok(Self {
            presence: Presence {
                cluster: settings.cluster.clone(),
                name: settings.name.clone(),
                advertised,
            },
            settings,
            listeners: [main, second],
        })
    }

    /// Opens the data folder, recovers what a crash has left, answers, and registers.
    pub(super) async fn start(self) -> Result<RunningBroker, Failure> {
        let data = &self.settings.data;
        let opened = Embedded::open(data, embedded(&self.settings)).await;
        let open = opened.map_err(|error| {
            if matches!(error, OpenError::Log(LogOpenError::Locked { .. })) {
                return Failure::Environment(format!(
                    "{} is in use by a running process; stop it, or give another folder with --data",
                    data.display()
                ));
            }
            Failure::Environment(error.to_string())
        })?;
        let stop = watch::Sender::new(false);
        let service = BrokerService::new(open.broker().clone(), self.presence.clone());
        let serve = |listener: Listener| {
            tokio::spawn(listener.serve(Arc::clone(&service), stop.subscribe()))
        };
        let tasks = self.listeners.map(serve);
        let nameservers = &self.settings.nameservers;
        let registration = Registration::start(open.broker(), &self.presence, nameservers);
        Ok(RunningBroker {
            open,
            settings: self.settings,
            presence: self.presence,
            registration,
            tasks,
            stop,
        })
    }
}

/// The port for clients of 4.x.
pub(super) const fn old_clients(address: SocketAddrV4) -> SocketAddrV4 {
    SocketAddrV4::new(*address.ip(), address.port().saturating_sub(2))
}

/// A broker that answers.
pub(super) struct RunningBroker {
    open: Embedded,
    pub(super) settings: Settings,
    pub(super) presence: Presence,
    registration: Registration,
    tasks: [JoinHandle<()>; 2],
    stop: watch::Sender<bool>,
}

impl RunningBroker {
    /// How it stands with its nameservers, once each was tried.
    pub(super) async fn nameservers(&mut self) -> Vec<(String, Standing)> {
        self.registration.tried().await
    }

    /// Waits until it cannot go on, and says why.
    pub(super) async fn failed(&self) -> String {
        self.open.failed().await
    }

    /// Refuses new connections from now on, answers what was accepted, long polls with what there is, tells nameservers and
    /// clients good-bye, and closes the files.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.stop.send_replace(true);
        self.open.broker().stop_waiting();
        let drained = async {
            for task in self.tasks {
                // A panic in it has been reported.
                let _ = task.await;
            }
        };
        tokio::join!(self.registration.stop(), drained);
        self.open.close().await.map_err(|error| {
            Failure::Environment(format!(
                "not everything could be finished: {error}; the next start recovers"
            ))
        })
    }
}

/// Settings of everything behind the ports.
fn embedded(settings: &Settings) -> EmbeddedSettings {
    let usual = LogSettings::default();
    let share = |bytes: usize| {
        let part = u128::from(settings.memory) * bytes as u128 / u128::from(USUAL_MEMORY);
        usize::try_from(part).unwrap_or(bytes)
    };
    let cached =
        u128::from(usual.cached_bytes) * u128::from(settings.memory) / u128::from(USUAL_MEMORY);
    let coordinator = CoordinatorSettings::default();
    EmbeddedSettings {
        log: LogSettings {
            segment_bytes: settings.segment,
            keep_for: settings.keep_age,
            keep_bytes: settings.keep_bytes,
            cached_bytes: u64::try_from(cached).unwrap_or(usual.cached_bytes),
            waiting_bytes: share(usual.waiting_bytes),
            batch_bytes: share(usual.batch_bytes).min(usual.batch_bytes),
            index_bytes: share(usual.index_bytes),
            ..usual
        },
        broker: BrokerSettings {
            auto_create_topics: settings.auto_create_topics,
            default_queues: settings.default_queues,
            property_filter: settings.property_filter,
            flush_async: settings.flush_async,
            ..BrokerSettings::default()
        },
        coordinator: CoordinatorSettings {
            waiting_halves: share(coordinator.waiting_halves).min(coordinator.waiting_halves),
            keep_history: settings.keep_history,
            check_back: CheckBackSettings {
                immunity: settings.immunity,
                longest_wait: settings.check_interval,
                budget: settings.check_max,
                ..CheckBackSettings::default()
            },
            ..coordinator
        },
        database: settings.database.clone(),
        ..EmbeddedSettings::default()
    }
}
