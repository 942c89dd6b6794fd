//! `halfmoon message`: single messages, sent, read and found.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use mq_core::clock::{Clock, SystemClock};
use mq_core::names::TopicName;
use mq_core::wire::codes::{request, response};
use mq_core::wire::record::RecordView;
use mq_core::wire::route::TopicRoute;
use mq_core::wire::{properties, reserved};
use serde::Serialize;

use super::Remote;
use super::cluster::{Cluster, number, request};
use super::topic::ends;
use crate::date;
use crate::failure::Failure;
use crate::output::Output;

/// The group under which these commands read and send.
const GROUP: &str = "TOOLS_CONSUMER";
/// How many queues to ask for where sending makes a topic: as RocketMQ's producers do.
const NEW_QUEUES: u32 = 4;
/// Most messages of one answer.
const AT_ONCE: usize = 32;

/// Send, read and find messages
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfmoon message send --topic orders --tag placed --key 42 --body '{\"order\":42}'
  halfmoon message consume --topic orders             everything there is; --follow waits for more
  halfmoon message query --topic orders --key 42      by key, or by the client's message id")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send one message, or the same several times
    Send {
        /// The topic
        #[arg(long)]
        topic: TopicName,
        /// The body
        #[arg(long)]
        body: String,
        /// The tag
        #[arg(long)]
        tag: Option<String>,
        /// A key to find it by
        #[arg(long)]
        key: Option<String>,
        /// How often
        #[arg(long, default_value_t = 1, value_name = "N")]
        count: usize,
    },
    /// Read the messages of a topic, without taking them from any group
    Consume {
        /// The topic
        #[arg(long)]
        topic: TopicName,
        /// Only messages with this tag; several separated by ||
        #[arg(long, default_value = "*")]
        tag: String,
        /// Where to begin
        #[arg(long, value_enum, default_value_t = Begin::Earliest)]
        from: Begin,
        /// Stop after this many
        #[arg(long, value_name = "N")]
        count: Option<usize>,
        /// Wait for more instead of stopping at the end
        #[arg(long)]
        follow: bool,
    },
    /// Find messages of a topic by key or id, newest first
    Query {
        /// The topic
        #[arg(long)]
        topic: TopicName,
        /// A word of KEYS, or the client's message id
        #[arg(long)]
        key: String,
    },
}

/// Where to begin reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Begin {
    /// At the first message kept
    Earliest,
    /// At the end: only what comes from now on
    Latest,
}

/// A message, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    topic: String,
    broker: String,
    queue: u32,
    offset: u64,
    stored_at: String,
    id: Option<String>,
    tag: Option<String>,
    keys: Option<String>,
    body: String,
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut cluster = arguments.remote.cluster().await?;
    let mut output = arguments.remote.output();
    match arguments.command {
        Command::Send {
            topic,
            body,
            tag,
            key,
            count,
        } => {
            let mut encoded = Vec::new();
            for (name, value) in [(reserved::TAGS, tag), (reserved::KEYS, key)] {
                let Some(value) = value else { continue };
                properties::check(name, &value)
                    .map_err(|error| Failure::Environment(error.to_string()))?;
                properties::push(&mut encoded, name, &value);
            }
            let encoded = String::from_utf8_lossy(&encoded).into_owned();
            let message = Outgoing {
                topic: &topic,
                properties: &encoded,
                body: body.into(),
            };
            send(&mut cluster, message, count, &mut output).await?;
        }
        Command::Consume {
            topic,
            tag,
            from,
            count,
            follow,
        } => {
            let mut queues = queues(&mut cluster, &topic, from).await?;
            let wish = Wish {
                tag: &tag,
                most: count.unwrap_or(usize::MAX),
                follow,
            };
            consume(&mut cluster, &mut queues, wish, &mut output).await?;
        }
        Command::Query { topic, key } => query(&mut cluster, &topic, &key, &mut output).await?,
    }
    output.finish()
}

/// A message to be sent.
struct Outgoing<'a> {
    topic: &'a TopicName,
    properties: &'a str,
    body: Bytes,
}

/// The queues that can be sent to: broker, address, number.
fn write_queues(route: &TopicRoute) -> Vec<(String, String, u32)> {
    let mut queues = Vec::new();
    for data in route.queue_datas.iter().filter(|data| data.perm & 2 != 0) {
        if let Some(address) = address(route, &data.broker_name) {
            let numbers = 0..data.write_queue_nums;
            queues.extend(numbers.map(|queue| (data.broker_name.clone(), address.clone(), queue)));
        }
    }
    queues
}

fn address(route: &TopicRoute, broker: &str) -> Option<String> {
    let mut brokers = route.broker_datas.iter();
    let broker = brokers.find(|data| data.broker_name == broker)?;
    broker.broker_addrs.get(&0).cloned()
}

async fn send(
    cluster: &mut Cluster,
    message: Outgoing<'_>,
    count: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let topic = message.topic.as_str();
    let route = match cluster.route(topic).await? {
        Some(route) => route,
        // Brokers that create topics by themselves say so with this one.
        None => match cluster.route(reserved::AUTO_CREATE_TOPIC).await? {
            Some(mut route) => {
                for queues in &mut route.queue_datas {
                    queues.write_queue_nums = queues.write_queue_nums.min(NEW_QUEUES);
                }
                route
            }
            None => cluster.existing(topic).await?,
        },
    };
    let queues = write_queues(&route);
    let clock = SystemClock::new();
    for (_, (broker, address, queue)) in (0..count).zip(queues.iter().cycle()) {
        let (queue_text, born) = (queue.to_string(), clock.wall_ms().to_string());
        let fields = [
            ("a", GROUP),
            ("b", topic),
            ("c", reserved::AUTO_CREATE_TOPIC),
            ("d", &NEW_QUEUES.to_string()),
            ("e", &queue_text),
            ("f", "0"),
            ("g", &born),
            ("h", "0"),
            ("i", message.properties),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ];
        let asked = request(request::SEND_MESSAGE_V2, &fields, message.body.clone());
        let answer = cluster.ask(address, asked, Duration::ZERO).await?;
        let id = answer.fields.get("msgId").unwrap_or_default();
        let offset = number(&answer, "queueOffset")?;
        if output.is_json() {
            let value = serde_json::json!({
                "topic": topic, "broker": broker, "queue": queue, "offset": offset, "id": id,
            });
            output.value(&value)?;
        } else {
            output.line(&format!(
                "{topic}: stored in queue {queue} of {broker} at offset {offset}, id {id}"
            ))?;
        }
    }
    if queues.is_empty() {
        return Err(Failure::Negative(format!(
            "topic {topic} has no queue that can be sent to; `halfmoon topic list` shows permissions"
        )));
    }
    Ok(())
}

/// A queue that is being read.
struct Reading {
    topic: String,
    broker: String,
    address: String,
    queue: u32,
    next: i64,
    end: i64,
}

/// What to read.
struct Wish<'a> {
    tag: &'a str,
    most: usize,
    follow: bool,
}

async fn queues(
    cluster: &mut Cluster,
    topic: &TopicName,
    from: Begin,
) -> Result<Vec<Reading>, Failure> {
    let route = cluster.existing(topic.as_str()).await?;
    let mut queues = Vec::new();
    for data in &route.queue_datas {
        let Some(address) = address(&route, &data.broker_name) else {
            continue;
        };
        for queue in 0..data.read_queue_nums {
            let (first, end) = ends(cluster, &address, topic.as_str(), queue).await?;
            queues.push(Reading {
                topic: topic.to_string(),
                broker: data.broker_name.clone(),
                address: address.clone(),
                queue,
                next: if from == Begin::Earliest { first } else { end },
                end,
            });
        }
    }
    Ok(queues)
}

async fn consume(
    cluster: &mut Cluster,
    queues: &mut [Reading],
    wish: Wish<'_>,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut left = wish.most;
    loop {
        let mut found = false;
        for reading in queues.iter_mut() {
            while left > 0 && (reading.next < reading.end || wish.follow) {
                let before = reading.next;
                // What waits in other queues must not wait for this one.
                left -= pull(cluster, reading, wish.tag, left, output).await?;
                found |= reading.next > before;
                if reading.next == before {
                    break;
                }
            }
        }
        if left == 0 || !wish.follow {
            return Ok(());
        }
        output.flush()?;
        if !found {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Reads once from a queue, prints what was found, and returns how many messages that were.
async fn pull(
    cluster: &mut Cluster,
    reading: &mut Reading,
    tag: &str,
    most: usize,
    output: &mut Output,
) -> Result<usize, Failure> {
    let most = most.min(AT_ONCE).to_string();
    let (queue, offset) = (reading.queue.to_string(), reading.next.to_string());
    let fields = [
        ("consumerGroup", GROUP),
        ("topic", reading.topic.as_str()),
        ("queueId", &queue),
        ("queueOffset", &offset),
        ("maxMsgNums", &most),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", tag),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    let asked = request(request::PULL_MESSAGE, &fields, "");
    let answer = cluster
        .try_ask(&reading.address, asked, Duration::ZERO)
        .await?;
    match answer.code {
        response::SUCCESS
        | response::PULL_NOT_FOUND
        | response::PULL_RETRY_IMMEDIATELY
        | response::PULL_OFFSET_MOVED => {}
        code => {
            let remark = answer.remark.lines().next().unwrap_or_default();
            return Err(Failure::Negative(format!(
                "refused with code {code}: {remark}"
            )));
        }
    }
    reading.next = number(&answer, "nextBeginOffset")?;
    if answer.code != response::SUCCESS {
        return Ok(0);
    }
    print_all(&answer.body, &reading.broker, output)
}

async fn query(
    cluster: &mut Cluster,
    topic: &TopicName,
    key: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    let route = cluster.existing(topic.as_str()).await?;
    let mut count = 0;
    for broker in &route.broker_datas {
        let Some(address) = broker.broker_addrs.get(&0) else {
            continue;
        };
        // By id first: it is found whatever the time; then by key.
        for unique in ["true", "false"] {
            let fields = [
                ("topic", topic.as_str()),
                ("key", key),
                ("maxNum", "64"),
                ("beginTimestamp", "0"),
                ("endTimestamp", "9223372036854775807"),
                ("_UNIQUE_KEY_QUERY", unique),
            ];
            let asked = request(request::QUERY_MESSAGE, &fields, "");
            let answer = cluster.try_ask(address, asked, Duration::ZERO).await?;
            if answer.code == response::SUCCESS {
                count += print_all(&answer.body, &broker.broker_name, output)?;
                break;
            }
        }
    }
    if count == 0 {
        return Err(Failure::Negative(format!(
            "no message of {topic} has the key {key}"
        )));
    }
    Ok(())
}

/// Prints records that stand one after the other.
fn print_all(mut records: &[u8], broker: &str, output: &mut Output) -> Result<usize, Failure> {
    let mut count = 0;
    while !records.is_empty() {
        let view = RecordView::parse(records).map_err(|error| {
            Failure::Environment(format!("an answer is not understood: {error}"))
        })?;
        print(&view, broker, output)?;
        records = records.get(view.size..).unwrap_or_default();
        count += 1;
    }
    Ok(count)
}

fn print(view: &RecordView<'_>, broker: &str, output: &mut Output) -> Result<(), Failure> {
    let property = |name| view.properties.get(name).map(str::to_owned);
    let shown = Shown {
        topic: view.topic.to_owned(),
        broker: broker.to_owned(),
        queue: view.queue,
        offset: view.queue_offset,
        stored_at: date::utc(view.store_ms),
        id: property(reserved::UNIQ_KEY),
        tag: property(reserved::TAGS),
        keys: property(reserved::KEYS),
        body: String::from_utf8_lossy(view.body).into_owned(),
    };
    if output.is_json() {
        return output.value(&shown);
    }
    let tag = shown
        .tag
        .map_or_else(String::new, |tag| format!(" [{tag}]"));
    output.line(&format!(
        "{} {broker}/{}/{}{tag} {}",
        shown.stored_at, shown.queue, shown.offset, shown.body
    ))
}
