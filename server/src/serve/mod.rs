//! `halfmoon server`, `nameserver` and `broker`: the processes that stay.
//!
//! | file | owns |
//! |---|---|
//! | `addresses` | which address clients are told, and whether they can reach it |
//! | `node` | a broker or nameserver that runs, from its ports to its good-bye |
//! | `ready` | what is printed once it answers |
//! | `signals` | when to stop |

mod addresses;
mod node;
mod ready;
mod signals;

use std::path::PathBuf;

use clap::Args;
use coordinator::steps;
use coordinator::store::REPAIR;

use crate::failure::Failure;
use crate::output::Output;
use crate::settings::{Given, Key, NAMESERVERS_VARIABLE, Origin, Program, Settings};

use node::{Broker, Nameserver};
use ready::Ready;
use signals::Signals;

/// Run nameserver, broker and coordinator in one process
///
/// RocketMQ clients connect to it as they are: NAMESRV_ADDR=127.0.0.1:9876. SIGTERM or Ctrl-C ends it cleanly.
#[derive(Debug, Args)]
#[command(after_help = SERVER_HELP)]
pub struct ServerArguments {
    /// A file with settings: halfmoon.toml, or RocketMQ's broker.conf
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    storage: Storage,
    /// Where the nameserver listens; 127.0.0.1:9876 unless set [env: HALFMOON_NAMESERVER_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    nameserver_listen: Option<String>,
    /// Where the broker listens, and on the port two below it; 127.0.0.1:10911 unless set [env: HALFMOON_BROKER_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    broker_listen: Option<String>,
    /// Print one line of JSON when ready
    #[arg(long)]
    json: bool,
}

/// Run a nameserver alone
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  halfmoon nameserver --nameserver-listen 0.0.0.0:9876

It keeps nothing on disk: brokers register again within seconds after a restart.")]
pub struct NameserverArguments {
    /// A file with settings: halfmoon.toml, or RocketMQ's namesrv.conf
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where it listens; 127.0.0.1:9876 unless set [env: HALFMOON_NAMESERVER_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    nameserver_listen: Option<String>,
    /// Print one line of JSON when ready
    #[arg(long)]
    json: bool,
}

/// Run a broker with its coordinator, registered with nameservers elsewhere
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  halfmoon broker -n 192.168.1.10:9876 -c broker.conf

Two brokers under one nameserver need two names (brokerName), two ports and two data folders.")]
pub struct BrokerArguments {
    /// Nameservers to register with, several separated by ; [env: NAMESRV_ADDR]
    #[arg(short = 'n', long = "nameserver", value_name = "HOST:PORT")]
    nameservers: Option<String>,
    /// A file with settings: halfmoon.toml, or RocketMQ's broker.conf
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    storage: Storage,
    /// Where it listens, and on the port two below it; 127.0.0.1:10911 unless set [env: HALFMOON_BROKER_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    broker_listen: Option<String>,
    /// Print one line of JSON when ready
    #[arg(long)]
    json: bool,
}

/// Where messages and decisions are kept, and at what cost.
#[derive(Debug, Args)]
struct Storage {
    /// The data folder, made if it is missing; ./halfmoon-data unless set [env: HALFMOON_DATA]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// The database, if it is not inside the data folder: sqlite:PATH or postgres://USER@HOST/DATABASE [env: HALFMOON_DATABASE]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// How much memory caches and queues may take; 96MiB unless set [env: HALFMOON_MEMORY]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Kill this process at a named step, for tests: STEP or STEP:N; `list` shows all steps
    #[arg(long, value_name = "STEP")]
    crash_at: Option<String>,
    /// Allow --crash-at
    #[arg(long)]
    allow_crash: bool,
}

const SERVER_HELP: &str = "\
Examples:
  halfmoon server                                  everything on 127.0.0.1, data in ./halfmoon-data
  halfmoon server -c broker.conf --data /var/lib/halfmoon
  HALFMOON_BROKER_LISTEN=0.0.0.0:10911 HALFMOON_BROKER_ADVERTISE=192.168.1.10 halfmoon server

Every setting of halfmoon.toml is also a variable: broker.listen is HALFMOON_BROKER_LISTEN. An option counts more than a
variable, a variable more than the file.";

impl Storage {
    fn give(&self, given: &mut Given) {
        given.option(Key::Data, "--data", self.data.as_ref());
        given.option(Key::Database, "--database", self.database.as_ref());
        given.option(Key::Memory, "--memory", self.memory.as_ref());
    }

    /// Arranges the crash that is wanted. True when only the list was asked for: it is printed.
    fn arrange_crash(&self) -> Result<bool, Failure> {
        let Some(wanted) = &self.crash_at else {
            return Ok(false);
        };
        if wanted == "list" {
            let mut output = Output::new(false);
            for (step, what) in steps::ALL {
                output.line(&format!("{step:<26} {what}"))?;
            }
            output.finish()?;
            return Ok(true);
        }
        if !self.allow_crash {
            return Err(Failure::Environment(
                "--crash-at kills the server; add --allow-crash if you mean it".into(),
            ));
        }
        steps::arm(wanted).map_err(|error| Failure::Environment(error.to_string()))?;
        Ok(false)
    }
}

/// What options, environment and file say, together; warnings about the file go to stderr.
fn decide(mut given: Given, file: Option<&PathBuf>, of: Program) -> Result<Settings, Failure> {
    given.environment(|name| std::env::var(name).ok());
    if let Some(file) = file {
        for warning in given.file(file, of)? {
            eprintln!("halfmoon: {warning}");
        }
    }
    Settings::decide(&given)
}

/// Runs the whole server until it is told to stop.
///
/// # Errors
/// [`Failure`]: it does not start, or could not go on.
pub async fn server(arguments: ServerArguments) -> Result<(), Failure> {
    if arguments.storage.arrange_crash()? {
        return Ok(());
    }
    let mut given = Given::default();
    arguments.storage.give(&mut given);
    let listen = arguments.nameserver_listen.as_ref();
    given.option(Key::NameserverListen, "--nameserver-listen", listen);
    let listen = arguments.broker_listen.as_ref();
    given.option(Key::BrokerListen, "--broker-listen", listen);
    let mut settings = decide(given, arguments.file.as_ref(), Program::Broker)?;
    let signals = Signals::listen()?;
    let nameserver = Nameserver::bind(settings.nameserver_listen).await?;
    let own = addresses::reachable(settings.nameserver_listen).to_string();
    if !settings.nameservers.contains(&own) {
        settings.nameservers.insert(0, own);
    }
    let broker = Broker::bind(settings).await?;
    let nameserver = nameserver.start();
    let mut broker = broker.start().await?;
    let ready = Ready::of(Some(&nameserver), Some(&mut broker)).await;
    ready.print(arguments.json);
    let failed = stopped(signals, Some(&broker)).await;
    let stopped = broker.stop().await;
    nameserver.stop().await;
    failed.and(stopped)
}

/// Runs a nameserver until it is told to stop.
///
/// # Errors
/// [`Failure`]: it does not start.
pub async fn nameserver(arguments: NameserverArguments) -> Result<(), Failure> {
    let mut given = Given::default();
    let listen = arguments.nameserver_listen.as_ref();
    given.option(Key::NameserverListen, "--nameserver-listen", listen);
    let settings = decide(given, arguments.file.as_ref(), Program::Nameserver)?;
    let signals = Signals::listen()?;
    let nameserver = Nameserver::bind(settings.nameserver_listen).await?.start();
    Ready::of(Some(&nameserver), None)
        .await
        .print(arguments.json);
    stopped(signals, None).await?;
    nameserver.stop().await;
    Ok(())
}

/// Runs a broker until it is told to stop.
///
/// # Errors
/// [`Failure`]: it does not start, or could not go on.
pub async fn broker(arguments: BrokerArguments) -> Result<(), Failure> {
    if arguments.storage.arrange_crash()? {
        return Ok(());
    }
    let mut given = Given::default();
    arguments.storage.give(&mut given);
    let nameservers = arguments.nameservers.as_ref();
    given.option(Key::Nameservers, "--nameserver", nameservers);
    let listen = arguments.broker_listen.as_ref();
    given.option(Key::BrokerListen, "--broker-listen", listen);
    if let Some(value) = std::env::var(NAMESERVERS_VARIABLE)
        .ok()
        .filter(|v| !v.is_empty())
    {
        let origin = Origin::Variable(NAMESERVERS_VARIABLE.into());
        given.give(Key::Nameservers, value, origin);
    }
    let settings = decide(given, arguments.file.as_ref(), Program::Broker)?;
    if settings.nameservers.is_empty() {
        return Err(Failure::Environment(format!(
            "no nameserver is named; give -n HOST:PORT, {NAMESERVERS_VARIABLE}, or namesrvAddr in the file"
        )));
    }
    let signals = Signals::listen()?;
    let mut broker = Broker::bind(settings).await?.start().await?;
    let ready = Ready::of(None, Some(&mut broker)).await;
    ready.print(arguments.json);
    let failed = stopped(signals, Some(&broker)).await;
    failed.and(broker.stop().await)
}

/// Waits for a signal to stop, or for the reason why the process cannot go on.
async fn stopped(
    mut signals: Signals,
    broker: Option<&node::RunningBroker>,
) -> Result<(), Failure> {
    let failed = async {
        match broker {
            Some(broker) => broker.failed().await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        () = signals.wait() => Ok(()),
        why = failed => Err(Failure::Environment(if why.contains(REPAIR) {
            why
        } else {
            format!("{why}; start again to recover")
        })),
    };
    signals.end_at_the_next();
    result
}
