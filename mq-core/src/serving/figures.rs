//! 26, 28, 315: what a broker says about its settings and how it is doing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::BrokerService;
use super::refusals::Answered;
use crate::log::{Position, ReadError};
use crate::remoting::service::Answer;
use crate::wire::codes::response;
use crate::wire::command::{Command, VERSION};
use crate::wire::record::{BODY_MAX_BYTES, RecordView};
use crate::wire::reserved::UNCOUNTED_FIGURES;

/// Looks at the counters are this far apart at least.
const APART: Duration = Duration::from_secs(1);
/// How far back rates look, as RocketMQ's three numbers do.
const SPANS: [Duration; 3] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

/// Counts of messages over the wire since the start.
#[derive(Debug, Default)]
pub(super) struct Figures {
    stored: AtomicU64,
    stored_bytes: AtomicU64,
    found: AtomicU64,
    missed: AtomicU64,
    looks: Mutex<VecDeque<Look>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Look {
    at: Duration,
    stored: u64,
    found: u64,
    missed: u64,
}

impl Figures {
    /// Counts messages that were stored.
    pub(super) fn stored(&self, messages: usize, bytes: usize) {
        self.stored.fetch_add(messages as u64, Ordering::Relaxed);
        self.stored_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts messages that a pull found; none is a miss.
    pub(super) fn pulled(&self, messages: usize) {
        if messages == 0 {
            self.missed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.found.fetch_add(messages as u64, Ordering::Relaxed);
        }
    }

    /// Notes the counters, and returns them beside what they were the three spans ago, as far as somebody looked then.
    fn look(&self, now: Duration) -> (Look, [Look; 3]) {
        let look = Look {
            at: now,
            stored: self.stored.load(Ordering::Relaxed),
            found: self.found.load(Ordering::Relaxed),
            missed: self.missed.load(Ordering::Relaxed),
        };
        // Changed in steps that cannot panic half-way.
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let [.., longest] = SPANS;
        while looks.front().is_some_and(|old| old.at + longest < now) {
            looks.pop_front();
        }
        let then = SPANS.map(|span| {
            let within = |old: &&Look| old.at + span >= now;
            looks.iter().find(within).copied().unwrap_or(look)
        });
        if looks.back().is_none_or(|last| last.at + APART <= now) {
            looks.push_back(look);
        }
        (look, then)
    }
}

fn rates(now: Look, then: [Look; 3], count: impl Fn(Look) -> u64) -> String {
    let rate = |old: Look| {
        let seconds = now.at.saturating_sub(old.at).as_secs_f64();
        if seconds > 0.0 {
            count(now).saturating_sub(count(old)) as f64 / seconds
        } else {
            0.0
        }
    };
    let [a, b, c] = then.map(rate);
    format!("{a:.3} {b:.3} {c:.3}")
}

/// 28: how the broker is doing, as text by name.
pub(super) fn runtime(service: &BrokerService) -> Answered {
    let broker = service.broker();
    let figures = &service.figures;
    let now = broker.clock().monotonic();
    let (look, then) = figures.look(now);
    let range = broker.log().range();
    let total = |value: u64| value.to_string();
    let known: [(&str, String); 16] = [
        ("brokerVersionDesc", "V5_3_3".into()),
        ("brokerVersion", VERSION.to_string()),
        ("msgPutTotalTodayNow", total(look.stored)),
        ("msgGetTotalTodayNow", total(look.found)),
        ("putMessageTimesTotal", total(look.stored)),
        (
            "putMessageSizeTotal",
            total(figures.stored_bytes.load(Ordering::Relaxed)),
        ),
        ("putTps", rates(look, then, |look| look.stored)),
        ("getFoundTps", rates(look, then, |look| look.found)),
        ("getTransferedTps", rates(look, then, |look| look.found)),
        ("getMissTps", rates(look, then, |look| look.missed)),
        (
            "getTotalTps",
            rates(look, then, |look| look.found + look.missed),
        ),
        ("commitLogMinOffset", range.start.to_string()),
        ("commitLogMaxOffset", range.end.to_string()),
        (
            "earliestMessageTimeStamp",
            oldest_ms(service, range.start).to_string(),
        ),
        ("bootTimestamp", service.started_ms.to_string()),
        ("runtime", format!("[ {} s ]", now.as_secs())),
    ];
    let mut table: Map<String, Value> = UNCOUNTED_FIGURES
        .iter()
        .map(|name| ((*name).to_owned(), json!("0")))
        .collect();
    for (name, value) in known {
        table.insert(name.to_owned(), value.into());
    }
    Ok(Answer::with_body(json!({ "table": table }).to_string()))
}

/// When the oldest message kept was stored, ms since 1970; now if there is none.
fn oldest_ms(service: &BrokerService, start: Position) -> u64 {
    let log = service.broker().log();
    let stored = log.scan(start).ok().and_then(|mut records| {
        let message = |stored: Result<crate::log::Stored, ReadError>| {
            let stored = stored.ok().filter(|stored| stored.is_message)?;
            Some(RecordView::parse(&stored.bytes).ok()?.store_ms)
        };
        // Messages are rarely far behind the broker's first notes.
        records.by_ref().take(64).find_map(message)
    });
    stored.unwrap_or_else(|| service.broker().clock().wall_ms())
}

/// 26: settings, as Java properties.
pub(super) fn settings(service: &BrokerService) -> Answered {
    let (settings, presence) = (service.broker().settings(), service.presence());
    let flush = if settings.flush_async {
        "ASYNC_FLUSH"
    } else {
        "SYNC_FLUSH"
    };
    let lines = [
        ("brokerClusterName", presence.cluster.clone()),
        ("brokerName", presence.name.clone()),
        ("brokerId", "0".into()),
        ("brokerIP1", presence.advertised.ip().to_string()),
        ("listenPort", presence.advertised.port().to_string()),
        (
            "autoCreateTopicEnable",
            settings.auto_create_topics.to_string(),
        ),
        ("autoCreateSubscriptionGroup", "true".into()),
        ("defaultTopicQueueNums", settings.default_queues.to_string()),
        ("enablePropertyFilter", settings.property_filter.to_string()),
        ("flushDiskType", flush.into()),
        ("maxMessageSize", BODY_MAX_BYTES.to_string()),
    ];
    let text: String = lines
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    Ok(Answer::with_body(text).field(
        "version",
        "{\"counter\":0,\"stateVersion\":0,\"timestamp\":0}",
    ))
}

/// 315: counters by name; there are none, which tools show as zeros.
pub(super) fn counter(command: &Command) -> Answered {
    let name = command.fields.get("statsName").unwrap_or_default();
    Err(Answer::refused(
        response::SYSTEM_ERROR,
        format!("there is no counter {name:?}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_while() {
        let figures = Figures::default();
        let second = Duration::from_secs;
        let (look, then) = figures.look(second(100));
        assert_eq!(rates(look, then, |look| look.stored), "0.000 0.000 0.000");
        figures.stored(500, 1);
        let (look, then) = figures.look(second(150));
        assert_eq!(
            rates(look, then, |look| look.stored),
            "0.000 10.000 10.000",
            "nobody looked within ten seconds"
        );
        figures.stored(50, 1);
        let (look, then) = figures.look(second(155));
        assert_eq!(
            rates(look, then, |look| look.stored),
            "10.000 10.000 10.000"
        );
        let (look, then) = figures.look(second(1_000));
        assert_eq!(rates(look, then, |look| look.stored), "0.000 0.000 0.000");
    }
}
