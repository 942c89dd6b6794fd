//! `halfmoon topic`, `group` and `message`: commands that work over the wire, against any broker that speaks RocketMQ; and
//! `halfmoon tx ask`, which needs one of ours.
//!
//! | file | owns |
//! |---|---|
//! | `cluster` | connections to nameservers and brokers, and calls that must succeed |
//! | `topic` | topics on all brokers |
//! | `group` | consumer groups and how far they have come |
//! | `message` | single messages: send, read, find |
//! | `transaction` | an open transaction: asking about it again |

mod cluster;
pub mod group;
pub mod message;
pub mod topic;
pub(crate) mod transaction;

use clap::Args;

use crate::failure::Failure;
use crate::output::Output;
use crate::settings::{NAMESERVERS_VARIABLE, values};

/// Where to ask, and how to print.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    #[command(flatten)]
    nameservers: Nameservers,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

/// Where to ask.
#[derive(Debug, Clone, Args)]
pub struct Nameservers {
    /// Nameservers, several separated by ;
    #[arg(
        short = 'n',
        long = "nameserver",
        value_name = "HOST:PORT",
        env = NAMESERVERS_VARIABLE,
        default_value = "127.0.0.1:9876",
        global = true
    )]
    nameservers: String,
}

impl Nameservers {
    async fn cluster(&self) -> Result<cluster::Cluster, Failure> {
        let addresses = values::nameservers(&self.nameservers).map_err(|why| {
            Failure::Environment(format!("--nameserver {:?} {why}", self.nameservers))
        })?;
        cluster::Cluster::connect(addresses).await
    }
}

impl Remote {
    async fn cluster(&self) -> Result<cluster::Cluster, Failure> {
        self.nameservers.cluster().await
    }

    fn output(&self) -> Output {
        Output::new(self.json)
    }
}
