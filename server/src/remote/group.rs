//! `halfmoon group`: consumer groups and how far they have come.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use mq_core::names::{GroupName, TopicName};
use mq_core::wire::codes::{request, response};
use serde::{Deserialize, Serialize};

use super::Remote;
use super::cluster::{Cluster, number, read, request};
use super::topic::ends;
use crate::failure::Failure;
use crate::output::{Cell, Output};

/// List consumer groups, see how far they have come, and set them back or forward
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfmoon group show warehouse --topic orders
  halfmoon group reset warehouse --topic orders --to earliest

A reset reaches connected consumers at once; stop them first if they must not see it.")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the groups of all brokers
    List,
    /// Show how far a group has come in a topic, and who its members are
    Show {
        /// The group
        name: GroupName,
        /// The topic
        #[arg(long)]
        topic: TopicName,
    },
    /// Have a group go on elsewhere
    Reset {
        /// The group
        name: GroupName,
        /// The topic
        #[arg(long)]
        topic: TopicName,
        /// Where: earliest, latest, or a time in ms since 1970
        #[arg(long, value_parser = moment)]
        to: i64,
    },
}

fn moment(text: &str) -> Result<i64, String> {
    match text {
        "earliest" => Ok(0),
        "latest" => Ok(-1),
        text => text
            .parse()
            .ok()
            .filter(|ms| *ms >= 0)
            .ok_or_else(|| "write earliest, latest, or a time in ms since 1970".into()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Groups {
    #[serde(default)]
    subscription_group_table: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    #[serde(default)]
    consumer_id_list: Vec<String>,
}

/// How far a group has come in a queue, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Progress {
    broker: String,
    queue: u32,
    /// The next offset that the group reads; nothing if it has not begun.
    offset: Option<i64>,
    next: i64,
    behind: i64,
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut cluster = arguments.remote.cluster().await?;
    let mut output = arguments.remote.output();
    match arguments.command {
        Command::List => list(&mut cluster, &mut output).await?,
        Command::Show { name, topic } => show(&mut cluster, &name, &topic, &mut output).await?,
        Command::Reset { name, topic, to } => {
            reset(&mut cluster, &name, &topic, to, &mut output).await?;
        }
    }
    output.finish()
}

async fn list(cluster: &mut Cluster, output: &mut Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (broker, address) in cluster.brokers(None).await? {
        let asked = request(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], "");
        let groups: Groups = read(&cluster.ask(&address, asked, Duration::ZERO).await?)?;
        for group in groups.subscription_group_table.into_keys() {
            let members = members(cluster, &address, &group).await?;
            rows.push((group, broker.clone(), members.len()));
        }
    }
    if output.is_json() {
        let groups: Vec<_> = rows
            .iter()
            .map(|(group, broker, members)| {
                serde_json::json!({ "group": group, "broker": broker, "members": members })
            })
            .collect();
        return output.value(&serde_json::json!({ "groups": groups }));
    }
    let cells: Vec<Vec<Cell>> = rows
        .into_iter()
        .map(|(group, broker, members)| {
            vec![group.into(), broker.into(), members.to_string().into()]
        })
        .collect();
    output.table(&["group", "broker", "members"], &cells)
}

async fn members(
    cluster: &mut Cluster,
    address: &str,
    group: &str,
) -> Result<Vec<String>, Failure> {
    let fields = [("consumerGroup", group)];
    let asked = request(request::GET_CONSUMER_LIST_BY_GROUP, &fields, "");
    let answer = cluster.try_ask(address, asked, Duration::ZERO).await?;
    if answer.code != response::SUCCESS {
        // A broker answers like this when nobody is connected.
        return Ok(Vec::new());
    }
    Ok(read::<Members>(&answer)?.consumer_id_list)
}

async fn show(
    cluster: &mut Cluster,
    name: &GroupName,
    topic: &TopicName,
    output: &mut Output,
) -> Result<(), Failure> {
    let route = cluster.existing(topic.as_str()).await?;
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for data in &route.queue_datas {
        let broker = (route.broker_datas.iter()).find(|b| b.broker_name == data.broker_name);
        let Some(address) = broker.and_then(|broker| broker.broker_addrs.get(&0)) else {
            continue;
        };
        all.extend(members(cluster, address, name.as_str()).await?);
        for queue in 0..data.read_queue_nums {
            let (first, next) = ends(cluster, address, topic.as_str(), queue).await?;
            let number_of_queue = queue.to_string();
            let fields = [
                ("consumerGroup", name.as_str()),
                ("topic", topic.as_str()),
                ("queueId", &number_of_queue),
            ];
            let asked = request(request::QUERY_CONSUMER_OFFSET, &fields, "");
            let answer = cluster.try_ask(address, asked, Duration::ZERO).await?;
            let offset = match answer.code {
                response::SUCCESS => Some(number(&answer, "offset")?),
                _ => None,
            };
            rows.push(Progress {
                broker: data.broker_name.clone(),
                queue,
                offset,
                next,
                behind: next - offset.unwrap_or(first).max(first),
            });
        }
    }
    all.sort();
    all.dedup();
    if output.is_json() {
        let value =
            serde_json::json!({ "group": name, "topic": topic, "members": all, "queues": rows });
        return output.value(&value);
    }
    let cells: Vec<Vec<Cell>> = rows
        .into_iter()
        .map(|row| {
            let offset = row
                .offset
                .map_or_else(String::new, |offset| offset.to_string());
            vec![
                row.broker.into(),
                row.queue.to_string().into(),
                offset.into(),
                row.next.to_string().into(),
                row.behind.to_string().into(),
            ]
        })
        .collect();
    output.table(&["broker", "queue", "offset", "next", "behind"], &cells)?;
    output.line(&format!(
        "members: {}",
        if all.is_empty() {
            "none".into()
        } else {
            all.join(", ")
        }
    ))
}

async fn reset(
    cluster: &mut Cluster,
    name: &GroupName,
    topic: &TopicName,
    to: i64,
    output: &mut Output,
) -> Result<(), Failure> {
    let route = cluster.existing(topic.as_str()).await?;
    for broker in &route.broker_datas {
        let Some(address) = broker.broker_addrs.get(&0) else {
            continue;
        };
        let time = to.to_string();
        let fields = [
            ("topic", topic.as_str()),
            ("group", name.as_str()),
            ("timestamp", &time),
            ("isForce", "true"),
        ];
        let asked = request(request::INVOKE_BROKER_TO_RESET_OFFSET, &fields, "");
        cluster.ask(address, asked, Duration::ZERO).await?;
        let broker = &broker.broker_name;
        if output.is_json() {
            let value = serde_json::json!({ "group": name, "topic": topic, "broker": broker, "answer": "reset" });
            output.value(&value)?;
        } else {
            output.line(&format!("{name}: reset in {topic} on {broker}"))?;
        }
    }
    Ok(())
}
