//! The sweep: reads what is open, asks who can answer, remembers what is outstanding.
//!
//! It takes no input and can run at any time: it is woken by the alarm, by a producer that came or went, and by its own
//! deadlines. A transaction that nobody can answer costs a read and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mq_core::broker::Broker;
use mq_core::broker::clients::{Client, Notice};
use mq_core::clock::ServerTime;
use mq_core::log::{Position, ReadError};
use mq_core::names::GroupName;
use tokio::sync::{Notify, mpsc, watch};

use super::plan::{Action, Attempt, Member, Reason, Sender, plan};
use super::unanswered::Unanswered;
use crate::engine::command::Command;
use crate::engine::half;
use crate::engine::settings::CheckBackSettings;
use crate::engine::status::Status;
use crate::steps;
use crate::store::{Filter, Row, StoreError, TxReader};

/// Rows read at a time.
const PAGE: u32 = 500;
/// Most pages of one group in one sweep; the next sweep goes on behind them.
const PAGES: usize = 20;
/// Most outstanding check-backs that are remembered; behind that new ones wait for a later sweep. Over each connection there are
/// at most [`super::unanswered::MOST`].
const ATTEMPTS: usize = 65_536;
/// A sweep reads what is due until then, to know when to wake up next; whoever writes a row that is due sooner wakes it.
pub const HORIZON: Duration = Duration::from_secs(1);
/// How long an answer may be on its way into SQL before it is taken for lost, and asked for again.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// How often finals that could not be published are tried again.
const PUBLISH_AGAIN: Duration = Duration::from_secs(5);
/// Shortest pause between two sweeps.
const PAUSE: Duration = Duration::from_millis(10);

/// What is outstanding, shared between the sweep and those who take the answers.
#[derive(Debug)]
pub struct Attempts {
    table: Mutex<Table>,
    /// Wakes the sweeper when a connection that owed too many answers has room again.
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    /// In log order, in which they are asked about.
    open: BTreeMap<Position, Open>,
    unanswered: Unanswered,
    /// While a sweep works with rows that it has read: those that have changed since.
    changed: Option<HashSet<Position>>,
}

#[derive(Debug, Clone)]
struct Open {
    attempt: Attempt,
    row: Row,
    reason: Reason,
    first_asked: ServerTime,
    /// When it was answered. The answer is on its way into SQL, and nobody is asked meanwhile.
    answered_at: Option<ServerTime>,
}

impl Open {
    /// Number of the connection that owes an answer.
    fn owed_by(&self) -> Option<u64> {
        let is_owed = self.attempt.asked_at.is_some() && self.answered_at.is_none();
        is_owed.then_some(self.attempt.asked_over)
    }
}

impl Attempts {
    /// Nothing is outstanding.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> Self {
        Self {
            table: Mutex::default(),
            wake,
        }
    }

    /// Has the next sweep ask about `row`, due or not, parked or not.
    pub fn demand(&self, row: Row, now: ServerTime) {
        let attempt = Attempt {
            demanded: true,
            ..Attempt::default()
        };
        let open = Open {
            attempt,
            reason: Reason::Operator,
            first_asked: now,
            answered_at: None,
            row,
        };
        self.put(&mut self.lock(), open.row.half.position, Some(open));
    }

    /// Takes note of *in flight*.
    pub fn in_flight(&self, position: Position, now: ServerTime, settings: &CheckBackSettings) {
        self.change(&mut self.lock(), position, |open| {
            open.attempt.answered_in_flight(now, settings);
        });
    }

    /// Takes note of UNKNOWN. False if nobody had asked, or the question is answered already: such an answer does not count.
    pub fn unknown(&self, position: Position, now: ServerTime) -> bool {
        let counts = |open: &mut Open| {
            open.attempt.asked_at.is_some() && open.answered_at.replace(now).is_none()
        };
        self.change(&mut self.lock(), position, counts)
            .unwrap_or(false)
    }

    /// Takes note of a decision that is on its way into SQL; returns why the transaction was asked about, and when first.
    pub fn deciding(&self, position: Position, now: ServerTime) -> Option<(Reason, ServerTime)> {
        self.change(&mut self.lock(), position, |open| {
            open.answered_at = Some(now);
            (open.reason, open.first_asked)
        })
    }

    /// Forgets what has changed in SQL, before anybody is told: whoever wants to ask reads it anew.
    pub fn written(&self, positions: impl IntoIterator<Item = Position>) {
        let mut table = self.lock();
        for position in positions {
            self.put(&mut table, position, None);
            if let Some(changed) = &mut table.changed {
                changed.insert(position);
            }
        }
    }

    /// A sweep reads rows now: from here on it must know which of them change. `false`: it is done with them.
    fn reading(&self, reading: bool) {
        self.lock().changed = reading.then(HashSet::new);
    }

    /// Changes what is known about the transaction at `position`, if anything is.
    fn change<T>(
        &self,
        table: &mut Table,
        position: Position,
        how: impl FnOnce(&mut Open) -> T,
    ) -> Option<T> {
        let open = table.open.get_mut(&position)?;
        let before = open.owed_by();
        let result = how(open);
        let after = open.owed_by();
        self.note(table, before, after);
        Some(result)
    }

    /// Remembers this about the transaction at `position`, or nothing.
    fn put(&self, table: &mut Table, position: Position, open: Option<Open>) {
        let after = open.as_ref().and_then(Open::owed_by);
        let known = match open {
            Some(open) => table.open.insert(position, open),
            None => table.open.remove(&position),
        };
        self.note(table, known.as_ref().and_then(Open::owed_by), after);
    }

    fn note(&self, table: &mut Table, before: Option<u64>, after: Option<u64>) {
        if table.unanswered.moved(before, after) {
            self.wake.notify_one();
        }
    }

    /// Whether this connection owes so many answers that it is asked nothing more.
    fn is_full(&self, connection: u64) -> bool {
        self.lock().unanswered.is_full(connection)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a sweeper works with.
#[derive(Debug)]
pub struct Parts {
    /// Reads what is open.
    pub reader: Arc<dyn TxReader>,
    /// Who is connected, under which address, server time, and the half messages to show to producers.
    pub broker: Broker,
    /// Publishes again what could not be published.
    pub commands: mpsc::WeakSender<Command>,
    /// What is outstanding.
    pub attempts: Arc<Attempts>,
    /// Wakes the sweeper.
    pub wake: Arc<Notify>,
    /// Told when what is stored contradicts itself.
    pub status: Status,
    /// Settings.
    pub settings: CheckBackSettings,
}

/// The sweeper.
#[derive(Debug)]
pub struct Sweeper {
    parts: Parts,
    started: ServerTime,
    groups: HashMap<GroupName, Watched>,
    published_again: ServerTime,
}

/// What a sweeper knows about a connected group.
#[derive(Debug, Default)]
struct Watched {
    /// Numbers of its members' connections.
    members: BTreeSet<u64>,
    /// Every open transaction is looked at when these times have come, not only those that are due: members changed.
    look_at_all: Vec<ServerTime>,
    all: bool,
    behind: Option<(ServerTime, Position)>,
}

impl Sweeper {
    /// A sweeper that has seen nobody yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let started = parts.broker.log().now();
        Self {
            parts,
            started,
            groups: HashMap::new(),
            published_again: started,
        }
    }

    /// Sweeps until `stop` becomes true or its sender is gone, or a row cannot be understood.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut changes = self.parts.broker.clients().changes();
        loop {
            self.parts.attempts.reading(true);
            let swept = self.sweep().await;
            self.parts.attempts.reading(false);
            let pause = match swept {
                Ok(until) => until.map_or(Duration::from_secs(1), |until| {
                    until.since(self.parts.broker.log().now()).max(PAUSE)
                }),
                // Going on would leave others unasked without a word.
                Err(error @ StoreError::Damaged(_)) => {
                    return self.parts.status.fail(&error.to_string());
                }
                Err(error) => {
                    tracing::warn!(%error, "a sweep could not read the database; trying again");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.parts.wake.notified() => {}
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(pause.min(Duration::from_secs(1))) => {}
            }
        }
    }

    /// One pass over everything that is open and could be answered. Returns when to look again at the latest.
    async fn sweep(&mut self) -> Result<Option<ServerTime>, StoreError> {
        let now = self.parts.broker.log().now();
        let mut next: Option<ServerTime> = None;
        let groups = self.parts.broker.clients().producer_groups();
        self.groups.retain(|group, _| groups.contains(group));
        for group in groups {
            let clients = self.parts.broker.clients().producers(&group);
            let until = self.sweep_group(now, &group, &clients).await?;
            next = earlier(next, until);
        }
        next = earlier(next, self.sweep_outstanding(now));
        if now.since(self.published_again) >= PUBLISH_AGAIN {
            self.published_again = now;
            self.publish_again().await?;
        }
        Ok(next)
    }

    async fn sweep_group(
        &mut self,
        now: ServerTime,
        group: &GroupName,
        clients: &[Client],
    ) -> Result<Option<ServerTime>, StoreError> {
        let grace = self.parts.settings.grace;
        let watched = self.groups.entry(group.clone()).or_default();
        let members: BTreeSet<u64> = clients.iter().map(|client| client.connection).collect();
        if members != watched.members {
            watched.members = members;
            watched.look_at_all = vec![now, now.after(grace)];
        }
        if watched.behind.is_none() {
            watched.all = watched.look_at_all.iter().any(|at| *at <= now);
            watched.look_at_all.retain(|at| *at > now);
        }
        let (all, mut behind) = (watched.all, watched.behind.take());
        let mut next = watched.look_at_all.iter().min().copied();
        let until = if all {
            ServerTime(i64::MAX as u64)
        } else {
            now.after(HORIZON)
        };
        let is_full = |client: &Client| self.parts.attempts.is_full(client.connection);
        let mut is_done = false;
        for _ in 0..PAGES {
            is_done = clients.iter().all(is_full);
            if is_done {
                break;
            }
            // Done with the page before.
            self.parts.attempts.reading(true);
            let rows = self.parts.reader.due(group, until, behind, PAGE).await?;
            let Some(last) = rows.last() else {
                is_done = true;
                break;
            };
            behind = Some((last.check_at.unwrap_or_default(), last.half.position));
            for row in rows {
                next = earlier(next, self.look_at(now, row, clients));
            }
        }
        let passed_over = all && clients.iter().any(is_full);
        if let Some(watched) = self.groups.get_mut(group) {
            if passed_over {
                watched.look_at_all.push(now);
            }
            watched.behind = behind.filter(|_| !is_done);
        }
        Ok(if is_done { next } else { Some(now) })
    }

    /// Those that were asked before and whose next time has come, without reading them again.
    fn sweep_outstanding(&self, now: ServerTime) -> Option<ServerTime> {
        let waiting: Vec<Row> = self
            .parts
            .attempts
            .lock()
            .open
            .values()
            .map(|open| open.row.clone())
            .collect();
        let mut next = None;
        let mut clients: HashMap<GroupName, Vec<Client>> = HashMap::new();
        for row in waiting {
            let group = row.half.group.clone();
            let clients = clients
                .entry(group)
                .or_insert_with_key(|group| self.parts.broker.clients().producers(group));
            next = earlier(next, self.look_at(now, row, clients));
        }
        next
    }

    /// Decides about one transaction and does it. Returns when to look again.
    fn look_at(&self, now: ServerTime, row: Row, clients: &[Client]) -> Option<ServerTime> {
        let settings = &self.parts.settings;
        let position = row.half.position;
        let attempts = &self.parts.attempts;
        let (mut attempt, members) = {
            let mut table = attempts.lock();
            if table.changed.as_ref()?.contains(&position) {
                return None;
            }
            if let Some(open) = table.open.get(&position) {
                let lost_at = open.answered_at.map(|at| at.after(WRITTEN_WITHIN));
                if lost_at.is_some_and(|at| now < at) {
                    return lost_at;
                }
            }
            let attempt = attempts.change(&mut table, position, |open| {
                open.attempt.expire(now, settings);
                open.attempt.clone()
            });
            let member = |client: &Client| Member {
                connection: client.connection,
                incarnation: client.incarnation,
                answers_for: client.answers_for.clone(),
                is_full: table.unanswered.is_full(client.connection),
            };
            let members: Vec<Member> = clients.iter().map(member).collect();
            (attempt.unwrap_or_default(), members)
        };
        match plan(
            now,
            settings,
            &row,
            &attempt,
            self.sender(now, &row),
            &members,
        ) {
            Action::Wait { until } => until,
            Action::Ask {
                incarnation,
                reason,
            } => {
                steps::reach("check_back.planned");
                let unanswered = attempt.unanswered;
                let client = connection(clients, &members, incarnation, unanswered)?;
                attempt.asked_at = Some(now);
                attempt.asked_over = client.connection;
                if !self.remember(now, &row, attempt, reason) {
                    return None;
                }
                let Some(record) = self.record_of(&row) else {
                    // Carried forward since the row was read: it is read anew.
                    attempts.put(&mut attempts.lock(), position, None);
                    return Some(now.after(settings.first_wait));
                };
                if !self.ask(&row, &record, unanswered, client) {
                    // The connection is gone or full: as if nothing had been asked.
                    attempts.change(&mut attempts.lock(), position, |open| {
                        open.attempt.asked_at = None;
                        open.attempt.not_before = now.after(settings.first_wait);
                    });
                }
                steps::reach("check_back.asked");
                Some(now.after(settings.answer_within))
            }
        }
    }

    fn sender(&self, now: ServerTime, row: &Row) -> Sender {
        let Some(sender) = row.half.sender else {
            return Sender::GoneFor(Duration::MAX);
        };
        let clients = self.parts.broker.clients();
        if let Some(connected_for) = clients.connected_for(sender.0) {
            // Not the sweep's `now`, which was before the rows were read.
            let age = self.parts.broker.log().now().since(row.half.prepared_at);
            return if age > connected_for {
                Sender::Back
            } else {
                Sender::Connected
            };
        }
        let since_start = now.since(self.started);
        Sender::GoneFor(clients.last_seen(sender.0).unwrap_or(since_start))
    }

    fn remember(&self, now: ServerTime, row: &Row, attempt: Attempt, reason: Reason) -> bool {
        let attempts = &self.parts.attempts;
        let mut table = attempts.lock();
        let changed = table.changed.as_ref();
        if changed.is_none_or(|changed| changed.contains(&row.half.position)) {
            return false;
        }
        let position = row.half.position;
        if table.open.contains_key(&position) {
            attempts.change(&mut table, position, |known| {
                known.attempt = attempt;
                known.row = row.clone();
                known.answered_at = None;
            });
            return true;
        }
        if table.open.len() >= ATTEMPTS {
            return false;
        }
        let open = Open {
            attempt,
            row: row.clone(),
            reason,
            first_asked: now,
            answered_at: None,
        };
        attempts.put(&mut table, position, Some(open));
        true
    }

    /// The record of the row's half message; `None` if it is not where the row says.
    fn record_of(&self, row: &Row) -> Option<Bytes> {
        match half::kept(&**self.parts.broker.log(), row) {
            Ok(stored) => Some(stored.bytes),
            Err(ReadError::Gone(_)) => None,
            Err(error) => {
                tracing::error!(%error, transaction = %row.half.id, "a half message cannot be read");
                None
            }
        }
    }

    fn ask(&self, row: &Row, record: &[u8], unanswered: u32, client: &Client) -> bool {
        let times = row.checks.saturating_add(unanswered).saturating_add(1);
        half::check_back(&row.half, record, times, self.parts.broker.host())
            .is_some_and(|notice: Notice| client.link.push(notice))
    }

    async fn publish_again(&self) -> Result<(), StoreError> {
        let filter = Filter {
            unpublished: true,
            limit: PAGE,
            ..Filter::default()
        };
        let rows = self.parts.reader.list(&filter).await?;
        if let (false, Some(commands)) = (rows.is_empty(), self.parts.commands.upgrade()) {
            // Full: the next sweep tries again.
            let _ = commands.try_send(Command::PublishAgain(rows));
        }
        Ok(())
    }
}

/// The connection over which to ask the process `incarnation`: the newest one, and after two unanswered check-backs the one
/// before it, since a connection can be dead without anybody having noticed. `members` tells the same of each as `clients`.
fn connection<'a>(
    clients: &'a [Client],
    members: &[Member],
    incarnation: u128,
    unanswered: u32,
) -> Option<&'a Client> {
    let of_it = || {
        let all = clients.iter().zip(members).rev();
        let free =
            all.filter(|(client, member)| client.incarnation == incarnation && !member.is_full);
        free.map(|(client, _)| client)
    };
    let turn = usize::try_from(unanswered / 2).unwrap_or(usize::MAX);
    let index = turn.checked_rem(of_it().count())?;
    of_it().nth(index)
}

fn earlier(a: Option<ServerTime>, b: Option<ServerTime>) -> Option<ServerTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
