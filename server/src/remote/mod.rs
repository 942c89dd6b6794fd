//! `halfmoon topic`, `group` and `message`: commands that work over the wire, against any broker that speaks RocketMQ.
//!
//! | file | owns |
//! |---|---|
//! | `cluster` | connections to nameservers and brokers, and calls that must succeed |
//! | `topic` | topics on all brokers |
//! | `group` | consumer groups and how far they have come |
//! | `message` | single messages: send, read, find |

mod cluster;
pub mod group;
pub mod message;
pub mod topic;

use clap::Args;

use crate::failure::Failure;
use crate::output::Output;
use crate::settings::{NAMESERVERS_VARIABLE, values};

/// Where to ask, and how to print.
#[derive(Debug, Clone, Args)]
pub struct Remote {
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
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Remote {
    async fn cluster(&self) -> Result<cluster::Cluster, Failure> {
        let addresses = values::nameservers(&self.nameservers).map_err(|why| {
            Failure::Environment(format!("--nameserver {:?} {why}", self.nameservers))
        })?;
        cluster::Cluster::connect(addresses).await
    }

    fn output(&self) -> Output {
        Output::new(self.json)
    }
}
