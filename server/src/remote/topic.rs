//! `halfmoon topic`: topics on all brokers.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use mq_core::broker::Permission;
use mq_core::names::TopicName;
use mq_core::wire::codes::request;
use mq_core::wire::reserved::{AUTO_CREATE_TOPIC, DEAD_LETTER_PREFIX, EVERYWHERE, RETRY_PREFIX};
use mq_core::wire::route::TopicRoute;
use serde::Serialize;

use super::Remote;
use super::cluster::{Cluster, number, request};
use crate::failure::Failure;
use crate::output::{Cell, Output};

/// List, create, change, delete and look at topics
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfmoon topic create orders --queues 8
  halfmoon topic show orders          first and next offset of every queue")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List topics with their brokers and queues
    List {
        /// Also those for retries, dead letters and automatic creation
        #[arg(long)]
        all: bool,
    },
    /// Create a topic on all brokers, or on one
    Create {
        /// The topic
        name: TopicName,
        /// How many queues on each broker
        #[arg(long, default_value_t = 4, value_name = "N")]
        queues: u32,
        /// Only on this broker
        #[arg(long, value_name = "NAME")]
        broker: Option<String>,
    },
    /// Change the queues or the permission of a topic
    Update {
        /// The topic
        name: TopicName,
        /// How many queues on each broker
        #[arg(long, value_name = "N")]
        queues: Option<u32>,
        /// Who may use it
        #[arg(long, value_enum)]
        permission: Option<Allowed>,
    },
    /// Delete a topic on all brokers; its messages are not delivered any more
    Delete {
        /// The topic
        name: TopicName,
    },
    /// Show the queues of a topic and their offsets
    Show {
        /// The topic
        name: TopicName,
    },
}

/// What is allowed with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Allowed {
    /// Pull only
    Read,
    /// Send only
    Write,
    /// Both
    ReadWrite,
}

/// A topic on one broker, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Row {
    topic: String,
    broker: String,
    read_queues: u32,
    write_queues: u32,
    permission: &'static str,
}

/// A queue, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Queue {
    broker: String,
    queue: u32,
    first: i64,
    next: i64,
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut cluster = arguments.remote.cluster().await?;
    let mut output = arguments.remote.output();
    match arguments.command {
        Command::List { all } => list(&cluster, all, &mut output).await?,
        Command::Create {
            name,
            queues,
            broker,
        } => {
            if broker.is_none() && cluster.route(name.as_str()).await?.is_some() {
                return Err(Failure::Negative(format!(
                    "topic {name} exists; change it with `halfmoon topic update`"
                )));
            }
            let perm = Permission::ALL.bits();
            for (broker, address) in cluster.brokers(broker.as_deref()).await? {
                put(&mut cluster, &address, &name, (queues, queues), perm).await?;
                done(&mut output, &name, &broker, "created")?;
            }
        }
        Command::Update {
            name,
            queues,
            permission,
        } => update(&mut cluster, &name, queues, permission, &mut output).await?,
        Command::Delete { name } => delete(&mut cluster, &name, &mut output).await?,
        Command::Show { name } => show(&mut cluster, &name, &mut output).await?,
    }
    output.finish()
}

fn permission(bits: i32) -> &'static str {
    match Permission::from_bits(bits) {
        Permission {
            read: true,
            write: true,
        } => "read and write",
        Permission { read: true, .. } => "read",
        Permission { write: true, .. } => "write",
        Permission { .. } => "none",
    }
}

async fn list(cluster: &Cluster, all: bool, output: &mut Output) -> Result<(), Failure> {
    let shown = |topic: &String| {
        let of_groups = [RETRY_PREFIX, DEAD_LETTER_PREFIX];
        let hidden = topic == AUTO_CREATE_TOPIC
            || EVERYWHERE.contains(&topic.as_str())
            || of_groups.iter().any(|prefix| topic.starts_with(prefix));
        all || !hidden
    };
    let mut rows = Vec::new();
    for topic in cluster.topics().await?.into_iter().filter(shown) {
        // One that has gone meanwhile is not listed.
        let route = cluster.route(&topic).await?.unwrap_or_default();
        rows.extend(route.queue_datas.into_iter().map(|queues| Row {
            topic: topic.clone(),
            broker: queues.broker_name,
            read_queues: queues.read_queue_nums,
            write_queues: queues.write_queue_nums,
            permission: permission(queues.perm),
        }));
    }
    if output.is_json() {
        return output.value(&serde_json::json!({ "topics": rows }));
    }
    let headings = [
        "topic",
        "broker",
        "read queues",
        "write queues",
        "permission",
    ];
    let cells: Vec<Vec<Cell>> = rows
        .into_iter()
        .map(|row| {
            vec![
                row.topic.into(),
                row.broker.into(),
                row.read_queues.to_string().into(),
                row.write_queues.to_string().into(),
                row.permission.into(),
            ]
        })
        .collect();
    output.table(&headings, &cells)
}

async fn put(
    cluster: &mut Cluster,
    address: &str,
    name: &TopicName,
    (read, write): (u32, u32),
    perm: i32,
) -> Result<(), Failure> {
    let fields = [
        ("topic", name.as_str()),
        ("defaultTopic", AUTO_CREATE_TOPIC),
        ("readQueueNums", &read.to_string()),
        ("writeQueueNums", &write.to_string()),
        ("perm", &perm.to_string()),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ];
    let asked = request(request::UPDATE_AND_CREATE_TOPIC, &fields, "");
    cluster.ask(address, asked, Duration::ZERO).await?;
    Ok(())
}

fn done(output: &mut Output, name: &TopicName, broker: &str, what: &str) -> Result<(), Failure> {
    if output.is_json() {
        let value = serde_json::json!({ "topic": name, "broker": broker, "answer": what });
        return output.value(&value);
    }
    output.line(&format!("{name}: {what} on {broker}"))
}

/// Brokers that have the topic, with their addresses.
fn places(route: &TopicRoute) -> Vec<(String, String)> {
    let brokers = route.broker_datas.iter();
    brokers
        .filter_map(|broker| {
            let address = broker.broker_addrs.get(&0)?;
            Some((broker.broker_name.clone(), address.clone()))
        })
        .collect()
}

async fn update(
    cluster: &mut Cluster,
    name: &TopicName,
    queues: Option<u32>,
    allowed: Option<Allowed>,
    output: &mut Output,
) -> Result<(), Failure> {
    let route = cluster.existing(name.as_str()).await?;
    for (broker, address) in places(&route) {
        let Some(now) = (route.queue_datas.iter()).find(|queues| queues.broker_name == broker)
        else {
            continue;
        };
        let counts = match queues {
            Some(queues) => (queues, queues),
            None => (now.read_queue_nums, now.write_queue_nums),
        };
        let perm = match allowed {
            None => now.perm,
            Some(Allowed::Read) => 4,
            Some(Allowed::Write) => 2,
            Some(Allowed::ReadWrite) => Permission::ALL.bits(),
        };
        put(cluster, &address, name, counts, perm).await?;
        done(output, name, &broker, "set")?;
    }
    Ok(())
}

async fn delete(
    cluster: &mut Cluster,
    name: &TopicName,
    output: &mut Output,
) -> Result<(), Failure> {
    let fields = [("topic", name.as_str())];
    let route = cluster.existing(name.as_str()).await?;
    for (broker, address) in places(&route) {
        let asked = request(request::DELETE_TOPIC_IN_BROKER, &fields, "");
        cluster.ask(&address, asked, Duration::ZERO).await?;
        done(output, name, &broker, "deleted")?;
    }
    let asked = request(request::DELETE_TOPIC_IN_NAMESRV, &fields, "");
    cluster.tell_nameservers(&asked).await
}

async fn show(cluster: &mut Cluster, name: &TopicName, output: &mut Output) -> Result<(), Failure> {
    let route = cluster.existing(name.as_str()).await?;
    let mut queues = Vec::new();
    for (broker, address) in places(&route) {
        let data = (route.queue_datas.iter()).find(|queues| queues.broker_name == broker);
        for queue in 0..data.map_or(0, |data| data.read_queue_nums) {
            let (first, next) = ends(cluster, &address, name.as_str(), queue).await?;
            queues.push(Queue {
                broker: broker.clone(),
                queue,
                first,
                next,
            });
        }
    }
    if output.is_json() {
        return output.value(&serde_json::json!({ "topic": name, "queues": queues }));
    }
    let cells: Vec<Vec<Cell>> = queues
        .into_iter()
        .map(|queue| {
            vec![
                queue.broker.into(),
                queue.queue.to_string().into(),
                queue.first.to_string().into(),
                queue.next.to_string().into(),
                (queue.next - queue.first).to_string().into(),
            ]
        })
        .collect();
    output.table(&["broker", "queue", "first", "next", "messages"], &cells)
}

/// First kept and next offset of a queue.
pub(super) async fn ends(
    cluster: &mut Cluster,
    address: &str,
    topic: &str,
    queue: u32,
) -> Result<(i64, i64), Failure> {
    let queue = queue.to_string();
    let fields = [("topic", topic), ("queueId", &queue)];
    let mut ends = [0; 2];
    for (end, code) in (ends.iter_mut()).zip([request::GET_MIN_OFFSET, request::GET_MAX_OFFSET]) {
        let asked = request(code, &fields, "");
        *end = number(
            &cluster.ask(address, asked, Duration::ZERO).await?,
            "offset",
        )?;
    }
    Ok(ends.into())
}
