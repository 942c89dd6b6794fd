//! The shop as processes of their own: a server, two instances of the order service, stock and payment, killed in the middle.
//! One way to lay out its databases is [`SPLIT_SERVICES`], another is that of [`crate::split_sharded`].
//!
//! | module | owns |
//! |---|---|
//! | [`service`] | one service as a process: its database, its place at the server, its end |
//! | [`http`] | the order service's HTTP, and the customers at the other end of it |
//! | [`processes`] | starting processes, hearing that they are ready, killing them |
//! | [`plans`] | which processes there are, and where they listen |
//! | [`fleet`] | all of them together |
//! | [`run`] | all of it: start, feed, kill, start again, reconcile |
//! | [`books`] | what the databases and the audit say in the end |

pub mod books;
pub mod fleet;
pub mod http;
pub mod plans;
pub mod processes;
pub mod run;
pub mod service;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, FromArgMatches as _, Parser, Subcommand};
use sqlx::{Postgres, Sqlite};

use crate::process;
use crate::shop::databases::Layout;
use crate::shop::kinds::{Kind, postgres_url};

/// A shop of processes, as one example shows it.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// The name of its program.
    pub name: &'static str,
    /// What it shows, in one line.
    pub about: &'static str,
    /// The services' databases.
    pub layout: Layout,
}

/// One database for each service.
pub const SPLIT_SERVICES: Scene = Scene {
    name: "split_services",
    about: "A shop whose services are processes of their own: they share no database and agree through messages alone",
    layout: Layout {
        orders: 1,
        payments: 1,
        stock: 1,
        tills: false,
    },
};

#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    all: run::Arguments,
}

const HOW: &str = "\
Without a command everything is started by one: `halfmoon server`, two instances of the order service, stock and payment. The
Northwind orders are fed over HTTP, processes are killed with SIGKILL in the middle and started again, and in the end all
databases are compared with the coordinator's audit.";

const BY_HAND: &str = "\
By hand, each in a terminal of its own:
  halfmoon server --data shop/server
  {name} stock   --data shop
  {name} payment --data shop
  {name} order   --data shop --listen 127.0.0.1:8090
  curl -i -H 'content-type: application/json' http://127.0.0.1:8090/orders -d \\
    '{\"id\":1,\"customer\":\"ALFKI\",\"ordered_on\":\"2026-01-31\",\"freight_cents\":500,
      \"lines\":[{\"product\":1,\"quantity\":10,\"unit_price_cents\":1800,\"discount_percent\":0}]}'
  curl http://127.0.0.1:8090/orders/1
In Postgres: `halfmoon server --data shop/server --database URL`, and each service with `--postgres URL`.";

impl CommandLine {
    /// Reads the arguments of the program; wrong ones end it with status 2.
    fn of(scene: &Scene) -> Self {
        let command = <Self as CommandFactory>::command()
            .name(scene.name)
            .about(scene.about)
            .long_about(format!("{}.\n\n{HOW}", scene.about))
            .after_help(BY_HAND.replace("{name}", scene.name));
        let read = Self::from_arg_matches(&command.get_matches());
        read.unwrap_or_else(|error| error.exit())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes orders over HTTP: POST /orders, GET /orders/{id}. Start as many instances as you like
    Order {
        #[command(flatten)]
        place: Place,
        /// Where it takes orders; port 0 takes a free one and says which
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
    },
    /// Reserves the goods of an order, all or none
    Stock {
        #[command(flatten)]
        place: Place,
    },
    /// Captures or refuses the money
    Payment {
        #[command(flatten)]
        place: Place,
    },
    /// `halfmoon server`, as the command without a name starts it
    #[command(hide = true)]
    Server {
        /// Folder of the server.
        #[arg(long)]
        data: PathBuf,
    },
}

impl Command {
    /// Where the service finds what it needs; `None` for what is no service.
    const fn place(&self) -> Option<&Place> {
        match self {
            Self::Order { place, .. } | Self::Stock { place } | Self::Payment { place } => {
                Some(place)
            }
            Self::Server { .. } => None,
        }
    }
}

/// The variable that says the same as `--postgres`, and that other users of the machine cannot read.
pub const POSTGRES: &str = "SHOP_POSTGRES";

/// Where a service finds what it needs.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Folder of the services' databases, inside it each has its own
    #[arg(long, value_name = "DIR", default_value = "shop")]
    pub data: PathBuf,
    /// Nameserver of the server, as every RocketMQ tool takes it
    #[arg(
        short = 'n',
        long,
        value_name = "HOST:PORT",
        env = "NAMESRV_ADDR",
        default_value = "127.0.0.1:9876"
    )]
    pub nameserver: String,
    /// Keep its tables in this Postgres database, a schema for each of its databases; the folder is not used then
    #[arg(long, value_name = "URL", env = POSTGRES, hide_env_values = true, value_parser = postgres_url)]
    pub postgres: Option<String>,
    /// Ends as soon as the standard input does: whoever started it is gone
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// The program. Exit status 0 if everything adds up, 1 if not or if something failed, 2 for wrong arguments.
#[must_use]
pub fn main(scene: &Scene) -> ExitCode {
    let CommandLine { command, all } = CommandLine::of(scene);
    let command = match command {
        Some(Command::Server { data }) => {
            processes::end_with_standard_input();
            let arguments = ["halfmoon", "server", "--data"].map(OsString::from);
            return halfmoon::run(arguments.into_iter().chain([data.into_os_string()]));
        }
        other => other,
    };
    process::diagnose();
    let ended = match process::runtime() {
        Ok(runtime) => runtime.block_on(start(command, &all, scene.layout)),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(command: Option<Command>, all: &run::Arguments, layout: Layout) -> Result<ExitCode> {
    let Some(command) = command else {
        return run::all(all, layout).await;
    };
    if let Some(place) = command.place() {
        match &place.postgres {
            None => {
                let folder = place.data.join(service::SHOPS_FOLDER);
                serve::<Sqlite>(&command, &folder, layout).await?;
            }
            Some(url) => serve::<Postgres>(&command, url, layout).await?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve<DB: Kind>(command: &Command, home: &DB::Home, layout: Layout) -> Result<()> {
    match command {
        Command::Order { place, listen } => {
            service::order::<DB>(place, home, layout, *listen).await
        }
        Command::Stock { place } => service::stock::<DB>(place, home, layout).await,
        Command::Payment { place } => service::payment::<DB>(place, home, layout).await,
        Command::Server { .. } => Ok(()),
    }
}
