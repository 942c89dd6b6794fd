//! `halfmoon tx`: transactions and their history, read and decided by people.

mod list;
mod operate;
mod show;
mod view;
mod why;

pub(crate) use view::StepView;

use clap::{Args, Subcommand, ValueEnum};
use coordinator::transaction::TransactionId;
use mq_core::names::{GroupName, TopicName};

use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;
use crate::remote::Nameservers;

/// Look at transactions and their history, ask and decide.
///
/// list, show, why and parked only read, and work whether or not a process runs in the data folder; ask talks to a running
/// server; decide needs a stopped one.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    folder: Folder,
    /// Print JSON: one object with everything.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List transactions in the order their half messages were stored
    List(Which),
    /// Show one transaction and every step of its history
    Show {
        /// Transaction id: 32 hex digits
        id: TransactionId,
    },
    /// Tell in seven steps why a message was published, or was not
    Why {
        /// Transaction id: 32 hex digits
        id: TransactionId,
    },
    /// Have the producer group of an open transaction asked again, now, a parked one too
    ///
    /// The only one of these commands that talks to a running server, which its nameserver knows: an answer needs an instance
    /// of the service. One with a marker is decided by it: where the local transaction is not there, it is ruled out.
    Ask {
        /// Transaction id: 32 hex digits
        id: TransactionId,
        #[command(flatten)]
        nameservers: Nameservers,
        #[command(flatten)]
        operator: operate::Operator,
    },
    /// Decide an open transaction by hand
    ///
    /// A transaction with a marker is decided by its marker: use `halfmoon tx ask` instead, while the server and an instance of
    /// the service run. --force overrides the marker, and the history says so for ever; do that only when you have looked into
    /// the service's database yourself. Takes the data folder for itself; a process that runs there has to be stopped first.
    Decide {
        /// Transaction id: 32 hex digits
        id: TransactionId,
        /// What to decide
        #[arg(value_enum)]
        wish: operate::Wish,
        /// Override the marker
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operator: operate::Operator,
    },
    /// List parked transactions: asked in vain as often as allowed, they wait for a person
    Parked(Page),
}

const EXAMPLES: &str = "\
Examples:
  halfmoon tx list --state prepared --group order-service
  halfmoon tx list --limit 1000 --after 0192F3C55E7A7B3C8D9E0F1A2B3C4D5E     the next page
  halfmoon tx show 0192F3C55E7A7B3C8D9E0F1A2B3C4D5E --json
  halfmoon tx ask 0192F3C55E7A7B3C8D9E0F1A2B3C4D5E --operator alice
  halfmoon tx decide 0192F3C55E7A7B3C8D9E0F1A2B3C4D5E rollback --operator alice";

/// Which transactions a list shows.
#[derive(Debug, Args)]
struct Which {
    /// Only those in this state; `committed` includes those that are published
    #[arg(long, value_enum)]
    state: Option<WantedState>,
    #[command(flatten)]
    page: Page,
}

/// Which part of a list is shown.
#[derive(Debug, Args)]
struct Page {
    /// Only those of this producer group
    #[arg(long)]
    group: Option<GroupName>,
    /// Only those for this topic
    #[arg(long)]
    topic: Option<TopicName>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Only those behind this transaction: the last one of the page before
    #[arg(long, value_name = "ID")]
    after: Option<TransactionId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum WantedState {
    /// Stored, and nobody has decided
    Prepared,
    /// Asked in vain as often as allowed
    Parked,
    /// Decided: the message is published, or will be
    Committed,
    /// Decided: no consumer ever sees the message
    RolledBack,
    /// Committed, and the message could not be published yet
    Unpublished,
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        command,
        folder,
        json,
    } = arguments;
    let mut output = Output::new(json);
    match command {
        Command::List(which) => list::run(&folder, which.state, which.page, &mut output).await?,
        Command::Parked(page) => {
            list::run(&folder, Some(WantedState::Parked), page, &mut output).await?;
        }
        Command::Show { id } => show::run(&folder, id, &mut output).await?,
        Command::Why { id } => why::run(&folder, id, &mut output).await?,
        Command::Ask {
            id,
            nameservers,
            operator,
        } => operate::ask(&nameservers, id, &operator, &mut output).await?,
        Command::Decide {
            id,
            wish,
            force,
            operator,
        } => {
            // What was printed is not lost when the answer is no.
            let decided = operate::decide(&folder, id, (wish, force), &operator, &mut output).await;
            output.finish()?;
            return decided;
        }
    }
    output.finish()
}

/// There is no such transaction.
fn no_such(id: TransactionId, folder: &Folder) -> Failure {
    let named = folder.named_database().ok().flatten();
    let place = named.map_or_else(
        || folder.data.display().to_string(),
        |database| database.to_string(),
    );
    Failure::Negative(format!(
        "there is no transaction {id} in {place}; one that was stored less than 50 ms ago, or was decided and is no longer kept, is not shown"
    ))
}
