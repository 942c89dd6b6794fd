//! `halfmoon tx ask` and `tx decide`: what a person does about an open transaction.

use clap::{Args, ValueEnum};
use coordinator::client::endpoint::{Outcome, Verdict};
use coordinator::engine::operate::OperateError;
use coordinator::transaction::{Decision, State, TransactionId};
use serde::Serialize;

use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;
use crate::remote::{self, Nameservers};

/// Longest name of an operator, in bytes: it stands in every row of the history.
const NAME_BYTES: usize = 64;

/// Who acts.
#[derive(Debug, Args)]
pub(super) struct Operator {
    /// Your name, for the history; the name of the user you are logged in as unless given
    #[arg(long = "operator", value_name = "NAME", env = "HALFMOON_OPERATOR")]
    name: Option<String>,
}

impl Operator {
    /// What the history says about where the request came from.
    fn source(&self, command: &str) -> Result<String, Failure> {
        let named = self.name.clone().or_else(|| std::env::var("USER").ok());
        let name = named
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()));
        if name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            return Err(Failure::Environment(format!(
                "--operator: the name must have at most {NAME_BYTES} bytes and no control characters"
            )));
        }
        Ok(format!("{name}, halfmoon tx {command}"))
    }
}

/// What a person wants to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Wish {
    /// The message becomes deliverable
    Commit,
    /// No consumer ever sees the message
    Rollback,
}

/// What became of a request, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Answer {
    id: String,
    /// `asked`, `decided_now`, `already_the_same` or `already_otherwise`.
    answer: &'static str,
    /// The state that stands, if it is known.
    state: Option<&'static str>,
    /// Who had decided, if it was decided before.
    decided_by: Option<&'static str>,
}

pub(super) async fn ask(
    nameservers: &Nameservers,
    id: TransactionId,
    operator: &Operator,
    output: &mut Output,
) -> Result<(), Failure> {
    let source = operator.source("ask")?;
    remote::transaction::ask(nameservers, id, &source).await?;
    if output.is_json() {
        return output.value(&Answer {
            id: id.to_string(),
            answer: "asked",
            state: None,
            decided_by: None,
        });
    }
    output.line(&format!(
        "{id}: its producer group is being asked; `halfmoon tx show {id}` tells what it answers"
    ))
}

pub(super) async fn decide(
    folder: &Folder,
    id: TransactionId,
    (wish, force): (Wish, bool),
    operator: &Operator,
    output: &mut Output,
) -> Result<(), Failure> {
    let source = operator.source("decide")?;
    let decision = match wish {
        Wish::Commit => Decision::Commit,
        Wish::Rollback => Decision::RollBack,
    };
    let open = folder.open().await?;
    let decided = open
        .coordinator()
        .decide_for(id, decision, &source, force)
        .await;
    close(open).await?;
    let state = decision.state();
    let (answer, stands, by) = match decided.map_err(failure)? {
        Outcome::DecidedNow => ("decided_now", state, None),
        Outcome::AlreadyTheSame => ("already_the_same", state, None),
        Outcome::AlreadyOtherwise(verdict) => ("already_otherwise", verdict.state, Some(verdict)),
        Outcome::NoSuchHalfMessage { why } => {
            return Err(Failure::Negative(format!("{id} cannot be decided: {why}")));
        }
        Outcome::Noted => {
            return Err(Failure::Negative(format!(
                "{id} is still open; nothing was decided"
            )));
        }
    };
    print(id, (answer, stands), by.as_ref(), output)?;
    match by {
        Some(verdict) => Err(Failure::Negative(otherwise(id, &verdict))),
        None => Ok(()),
    }
}

fn print(
    id: TransactionId,
    (answer, state): (&'static str, State),
    verdict: Option<&Verdict>,
    output: &mut Output,
) -> Result<(), Failure> {
    let state = state.word();
    if output.is_json() {
        return output.value(&Answer {
            id: id.to_string(),
            answer,
            state: Some(state),
            decided_by: verdict.map(|verdict| verdict.actor.word()),
        });
    }
    let when = if answer == "decided_now" {
        "now"
    } else {
        "already"
    };
    if verdict.is_none() {
        output.line(&format!("{id}: {state} {when}"))
    } else {
        Ok(())
    }
}

fn otherwise(id: TransactionId, verdict: &Verdict) -> String {
    let evidence = match verdict.evidence.as_str() {
        "" => String::new(),
        evidence => format!(" ({evidence})"),
    };
    format!(
        "{id} is {} already, decided by the {}{evidence}; a decision never changes: halfmoon tx why {id} tells more",
        verdict.state.word(),
        verdict.actor.word(),
    )
}

async fn close(open: coordinator::embedded::Embedded) -> Result<(), Failure> {
    let closed = open.close().await;
    closed.map_err(|error| {
        Failure::Environment(format!("the data folder did not close cleanly: {error}"))
    })
}

fn failure(error: OperateError) -> Failure {
    // Nobody can be connected: the data folder is ours alone.
    if let OperateError::NobodyCanAnswer(id, group) = &error {
        return Failure::Negative(format!(
            "{id} has a marker, which group {group} has to be asked for: start the server and an instance of the service, \
             then `halfmoon tx ask {id}`; or override the marker with --force"
        ));
    }
    let line = error.to_string();
    if matches!(error, OperateError::Store(_) | OperateError::Unavailable(_)) {
        Failure::Environment(line)
    } else {
        Failure::Negative(line)
    }
}
