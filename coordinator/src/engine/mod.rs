//! The coordinator: half messages into the log, decisions into SQL, finals back into the log.
//!
//! | file | owns |
//! |---|---|
//! | `admission` | half messages on their way into the log |
//! | `carry` | half messages that are needed for longer than the log keeps them |
//! | `check_at` | when a transaction is first asked about |
//! | `half` | half messages and finals as stored bytes |
//! | `feed` | what became durable, in log order |
//! | `forget` | transactions that were decided long ago |
//! | `ledger` | what the next SQL batch says: pure |
//! | `command` | what the writer is asked, and who waits for the answer |
//! | `retry` | the store, asked until it answers |
//! | `writer` | the one task that speaks to the store |
//! | `publish` | decisions into the log, in decision order |
//! | `recovery` | a start: SQL and log agree again |
//! | `impostors` | half messages that carry the id of another |
//! | `locate` | finding the half message that somebody names |
//! | `serving` | half messages and resolutions that come over the wire |
//! | `operate` | what an operator may do: ask again, decide |
//! | `recent` | half messages that became durable a moment ago |
//! | `holds` | topics that must stay because half messages wait for them |

mod admission;
mod carry;
pub mod check_at;
pub mod command;
pub mod feed;
pub mod forget;
pub mod half;
mod holds;
mod impostors;
pub mod ledger;
mod locate;
pub mod operate;
pub mod publish;
mod recent;
pub mod recovery;
pub mod repair;
pub mod retry;
mod serving;
pub mod settings;
pub mod status;
pub mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use mq_core::broker::Broker;
use mq_core::broker::acks::Acks;
use mq_core::extension::{self, Busy, Call, Caller, Claims, Extension};
use mq_core::log::{AppendError, Full, Placed, Position};
use mq_core::names::{QueueId, TopicName};
use mq_core::wire::{ids, reserved};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::admission::NotAdmitted;
use self::carry::Carrier;
use self::check_at::CheckAt;
use self::command::Command;
use self::feed::Feed;
use self::forget::Forgetter;
use self::holds::{Hold, Holds};
use self::ledger::{Answer, Request, What};
use self::locate::{Located, Missing, Named};
use self::recent::Recent;
use self::recovery::{Found, StartError};
use self::settings::Settings;
use self::status::{Health, Status};
use self::writer::Writer;
use crate::audit::Step;
use crate::check_back::alarm::Alarm;
use crate::check_back::sweep::{self, Attempts, Sweeper};
use crate::client::endpoint::{
    Endpoint, HalfError, HalfReceipt, HalfRequest, Outcome, Resolve, ResolveError, Verdict,
};
use crate::store::{Row, StoreError, TxReader, TxStore};
use crate::transaction::{Actor, Decision, Resolution, TransactionId};

/// A coordinator over one store. Cheap to clone; give a clone to [`Broker::open`] as its extension, which starts it.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    store: Arc<dyn TxStore>,
    status: Status,
    holds: Holds,
    half_queue: QueueId,
    /// Requests that are worked on aside: they wait for the disk before they can be taken.
    aside: Arc<Semaphore>,
    running: RwLock<Option<Arc<Running>>>,
    tasks: Mutex<Option<Tasks>>,
}

/// What exists once the coordinator was started.
struct Running {
    broker: Broker,
    feed: Arc<Feed>,
    slots: Arc<Semaphore>,
    commands: mpsc::Sender<Command>,
    recent: Arc<Recent>,
    acks: Arc<Acks>,
    attempts: Arc<Attempts>,
    wake: Arc<Notify>,
    found: Found,
}

struct Tasks {
    stop: watch::Sender<bool>,
    acks: JoinHandle<()>,
    writer: JoinHandle<()>,
    sweeper: JoinHandle<()>,
    carrier: JoinHandle<()>,
    forgetter: Option<JoinHandle<()>>,
    alarm: Alarm,
}

impl Running {
    /// `evidence` for a decision about the half message at `position`, with what is known about asking for it; it is not
    /// asked about while the decision is on its way.
    fn evidence(&self, position: Position, mut evidence: String) -> String {
        let now = self.broker.log().now();
        if let Some((reason, first_asked)) = self.attempts.deciding(position, now) {
            let waited = now.since(first_asked).as_millis();
            let space = if evidence.is_empty() { "" } else { ", " };
            evidence.push_str(&format!(
                "{space}asked: {}, answered after {waited} ms",
                reason.words()
            ));
        }
        short(evidence)
    }
}

/// Evidence that fits into a row of the history.
fn short(mut evidence: String) -> String {
    evidence.truncate(evidence.floor_char_boundary(EVIDENCE_BYTES));
    evidence
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator")
            .field("health", &self.shared.status.health())
            .finish_non_exhaustive()
    }
}

impl Coordinator {
    /// A coordinator that will keep its transactions in `store`. It does nothing before a broker starts it.
    #[must_use]
    pub fn new(store: Arc<dyn TxStore>, settings: Settings) -> Self {
        let shared = Shared {
            settings,
            store,
            status: Status::default(),
            holds: Holds::default(),
            half_queue: half::half_queue(),
            aside: Arc::new(Semaphore::new(ASIDE)),
            running: RwLock::new(None),
            tasks: Mutex::new(None),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether it works, as a level.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.shared.status
    }

    /// Reads transactions, history and seals. Rows that are held back are not in SQL yet: see [`Self::write_held`].
    #[must_use]
    pub fn reader(&self) -> Arc<dyn TxReader> {
        self.shared.store.reader()
    }

    /// The broker that started it; `None` before.
    #[must_use]
    pub fn broker(&self) -> Option<Broker> {
        self.started().map(|running| running.broker.clone())
    }

    /// What the last start had to mend.
    #[must_use]
    pub fn found(&self) -> Found {
        self.started()
            .map(|running| running.found)
            .unwrap_or_default()
    }

    /// Writes the rows that are held back in memory, so that a reader sees every half message acknowledged so far.
    ///
    /// # Errors
    /// Why the coordinator cannot.
    pub async fn write_held(&self) -> Result<(), String> {
        let running = self.running()?;
        let (reply, done) = oneshot::channel();
        self.command(&running, Command::WriteHeld(reply)).await?;
        done.await.map_err(|_| self.why_not())
    }

    fn started(&self) -> Option<Arc<Running>> {
        self.shared
            .running
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn running(&self) -> Result<Arc<Running>, String> {
        self.shared.status.check()?;
        self.started()
            .ok_or_else(|| "the coordinator is not started".to_owned())
    }

    fn why_not(&self) -> String {
        self.shared
            .status
            .check()
            .err()
            .unwrap_or_else(|| "the database refused it".into())
    }

    /// Sends a command to the SQL writer; waits while its queue is full.
    async fn command(&self, running: &Running, command: Command) -> Result<(), String> {
        running
            .commands
            .send(command)
            .await
            .map_err(|_| self.why_not())
    }

    /// Has what is said in `command` decided on; returns once the `answer` is durable.
    async fn say(
        &self,
        running: &Running,
        (command, answer): (Command, oneshot::Receiver<Answer>),
    ) -> Result<Answer, String> {
        self.command(running, command).await?;
        answer.await.map_err(|_| self.why_not())
    }

    /// The decision that stands, as the history tells it.
    async fn verdict(&self, id: TransactionId) -> Result<Verdict, StoreError> {
        let events = self.reader().events(id).await?;
        let decided = events
            .iter()
            .find(|event| matches!(event.to, Step::Committed | Step::RolledBack));
        let row = self.reader().transaction(id).await?;
        let state = row.map(|row| row.state).filter(|state| state.is_decided());
        let (Some(event), Some(state)) = (decided, state) else {
            return Err(StoreError::Damaged(format!(
                "transaction {id} is decided without an event"
            )));
        };
        Ok(Verdict {
            state,
            actor: event.actor,
            at: event.then_at.unwrap_or(event.at),
            evidence: event.evidence.clone(),
        })
    }

    /// The half message that is `named`, wherever it is kept.
    async fn find_half(
        &self,
        running: &Running,
        named: &Named<'_>,
        commit: bool,
    ) -> Result<Located, Missing> {
        match self.locate(running, named, commit) {
            // Rare: it shall not make every future larger.
            Err(Missing::Gone) => Box::pin(self.locate_row(running, named, commit)).await,
            found => found,
        }
    }

    /// A decision for the SQL writer, with the half message that `request` names.
    async fn decision(
        &self,
        running: &Running,
        request: Resolve,
        decision: Decision,
    ) -> Result<(Command, oneshot::Receiver<Answer>), Missing> {
        let commit = decision == Decision::Commit;
        let named = Named::of(&request);
        let Located { half, copy } = self.find_half(running, &named, commit).await?;
        let evidence = running.evidence(half.position, request.evidence);
        let said = Request {
            half,
            what: What::Decide(decision),
            actor: request.actor,
            source: request.source,
            evidence,
        };
        Ok(command::say(said, copy))
    }

    async fn decide(
        &self,
        running: &Running,
        request: Resolve,
        decision: Decision,
    ) -> Result<Outcome, ResolveError> {
        let id = request.id;
        let said = match self.decision(running, request, decision).await {
            Ok(said) => said,
            Err(missing) => return missing.outcome(),
        };
        match self.say(running, said).await.map_err(ResolveError)? {
            Answer::DecidedNow(_) => Ok(Outcome::DecidedNow),
            Answer::AlreadyTheSame => Ok(Outcome::AlreadyTheSame),
            Answer::AlreadyOtherwise => {
                let verdict = self
                    .verdict(id)
                    .await
                    .map_err(|error| ResolveError(error.to_string()))?;
                Ok(Outcome::AlreadyOtherwise(verdict))
            }
            Answer::Forgotten => Ok(Outcome::NoSuchHalfMessage {
                why: "it was decided, and its row is no longer kept".into(),
            }),
            Answer::Noted => Ok(Outcome::Noted),
        }
    }

    /// UNKNOWN and *in flight*: noted for the next check-back, and counted if it answers one.
    async fn note(&self, running: &Running, request: Resolve) -> Result<Outcome, ResolveError> {
        let settings = &self.shared.settings.check_back;
        if request.resolution == Resolution::InFlight {
            running
                .attempts
                .in_flight(request.position, running.broker.log().now(), settings);
            running.wake.notify_one();
            return Ok(Outcome::Noted);
        }
        let asked = matches!(request.actor, Actor::CheckBack | Actor::Marker);
        let now = running.broker.log().now();
        if !asked || !running.attempts.unknown(request.position, now) {
            return Ok(Outcome::Noted);
        }
        let named = Named::of(&request);
        let half = match self.find_half(running, &named, false).await {
            Ok(located) => located.half,
            Err(missing) => return missing.outcome(),
        };
        let said = Request {
            half,
            what: What::unknown(settings),
            actor: request.actor,
            source: request.source,
            evidence: short(request.evidence),
        };
        self.say(running, command::say(said, None))
            .await
            .map_err(ResolveError)?;
        Ok(Outcome::Noted)
    }

    async fn recover(&self, broker: &Broker) -> Result<(), StartError> {
        let shared = &self.shared;
        let log = broker.log().clone();
        let feed = Arc::new(Feed::default());
        let check_at = CheckAt {
            clients: broker.clients().clone(),
            log: log.clone(),
            grace: shared.settings.check_back.grace,
        };
        let parts = recovery::Parts {
            log: &log,
            store: &shared.store,
            clock: broker.clock(),
            random: broker.random(),
            feed: &feed,
            status: &shared.status,
            settings: &shared.settings,
            check_at: &check_at,
        };
        let (store, ledger, found) = recovery::recover(&parts).await?;
        for (topic, open) in shared.store.reader().open_topics().await? {
            shared.holds.hold(&topic, open);
        }
        let (commands, inbox) = mpsc::channel(shared.settings.waiting_resolutions);
        let wake = Arc::new(Notify::new());
        let attempts = Arc::new(Attempts::new(wake.clone()));
        let slots = Arc::new(Semaphore::new(shared.settings.waiting_halves));
        let alarm = Alarm::start(&shared.settings.check_back.cron, wake.clone())
            .await
            .map_err(StartError::Setting)?;
        let writer = Writer::new(
            writer::Parts {
                log,
                clock: broker.clock().clone(),
                reader: shared.store.reader(),
                random: broker.random().clone(),
                feed: feed.clone(),
                slots: slots.clone(),
                all_slots: shared.settings.waiting_halves,
                holds: shared.holds.clone(),
                wake: wake.clone(),
                attempts: attempts.clone(),
                status: shared.status.clone(),
                hold: shared.settings.hold,
                batch: shared.settings.batch,
                check_at,
            },
            store,
            ledger,
            found.published,
        );
        let sweeper = Sweeper::new(sweep::Parts {
            reader: shared.store.reader(),
            broker: broker.clone(),
            commands: commands.downgrade(),
            attempts: attempts.clone(),
            wake: wake.clone(),
            status: shared.status.clone(),
            settings: shared.settings.check_back.clone(),
        });
        let carrier = Carrier::new(carry::Parts {
            log: broker.log().clone(),
            reader: shared.store.reader(),
            feed: feed.clone(),
            slots: slots.clone(),
            commands: commands.downgrade(),
            status: shared.status.clone(),
        });
        let forgetter = shared.settings.keep_history.map(|keep| {
            Forgetter::new(forget::Parts {
                log: broker.log().clone(),
                reader: shared.store.reader(),
                commands: commands.downgrade(),
                keep,
            })
        });
        let (stop, stopped) = watch::channel(false);
        let acks = Arc::new(Acks::default());
        let telling = acks.clone();
        let tasks = Tasks {
            acks: tokio::spawn(async move { telling.run().await }),
            stop,
            writer: tokio::spawn(writer.run(inbox)),
            sweeper: tokio::spawn(sweeper.run(stopped.clone())),
            carrier: tokio::spawn(carrier.run(stopped.clone())),
            forgetter: forgetter.map(|forgetter| tokio::spawn(forgetter.run(stopped))),
            alarm,
        };
        *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks);
        let running = Running {
            broker: broker.clone(),
            feed,
            slots,
            commands,
            recent: Arc::new(Recent::default()),
            acks,
            attempts,
            wake,
            found,
        };
        *shared
            .running
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(running));
        Ok(())
    }
}

#[async_trait]
impl Extension for Coordinator {
    fn claims(&self) -> Claims {
        let hidden = [reserved::HALF_TOPIC, reserved::OP_TOPIC];
        let hidden =
            hidden.map(|topic| TopicName::new(topic).expect("reserved topics keep the rules"));
        Claims {
            owner: half::OWNER,
            request_codes: vec![
                reserved::END_TRANSACTION,
                reserved::CHECK_TRANSACTION_STATE,
                reserved::RESUME_CHECK_HALF_MESSAGE,
                reserved::COMMITTED_AMONG,
            ],
            send_flags: reserved::FLAG_TRANSACTION_MASK,
            hidden_topics: hidden.to_vec(),
        }
    }

    async fn start(&self, broker: Broker) -> Result<(), extension::StartError> {
        self.recover(&broker)
            .await
            .map_err(|error| extension::StartError(error.to_string()))
    }

    fn call(&self, caller: &Arc<Caller>, calls: Vec<Call>) -> Result<(), Busy> {
        serving::take(self, caller, calls)
    }

    async fn ready(&self) {
        if let Some(running) = self.started() {
            // A queue that is closed takes nothing for ever, and says so.
            let _ = running.commands.reserve().await;
        }
    }

    fn holds_topic(&self, topic: &TopicName) -> bool {
        self.shared.holds.holds(topic)
    }

    async fn stop(&self, within: Duration) {
        // The writer ends when the last sender of commands is gone: this one, and those of calls that are under way.
        self.shared
            .running
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let tasks = self
            .shared
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Tasks {
            acks,
            stop,
            writer,
            sweeper,
            carrier,
            forgetter,
            alarm,
        }) = tasks
        else {
            return;
        };
        // The sweeper may be gone: fine.
        let _ = stop.send(true);
        alarm.stop().await;
        let done = async {
            let _ = sweeper.await;
            let _ = carrier.await;
            if let Some(forgetter) = forgetter {
                let _ = forgetter.await;
            }
            let _ = writer.await;
        };
        if tokio::time::timeout(within, done).await.is_err() {
            tracing::warn!("the coordinator did not finish in time; the next start recovers");
        }
        acks.abort();
        self.shared.status.set(Health::Stopped);
    }
}

#[async_trait]
impl Endpoint for Coordinator {
    async fn half(&self, request: HalfRequest) -> Result<HalfReceipt, HalfError> {
        let running = self.running().map_err(HalfError::Unknown)?;
        if request.message.delay_level() > 0 {
            return Err(HalfError::Refused(
                "a half message cannot be delayed; leave out the delay level".into(),
            ));
        }
        let hold = self.shared.holds.begin(request.message.topic());
        self.store_half(&running, &request, hold).await
    }

    async fn resolve(&self, request: Resolve) -> Result<Outcome, ResolveError> {
        let running = self.running().map_err(ResolveError)?;
        match request.resolution {
            Resolution::Commit => self.decide(&running, request, Decision::Commit).await,
            Resolution::RollBack => self.decide(&running, request, Decision::RollBack).await,
            Resolution::Unknown | Resolution::InFlight => self.note(&running, request).await,
        }
    }

    async fn committed(&self, ids: &[TransactionId]) -> Vec<TransactionId> {
        let committed = self.reader().committed(ids).await;
        committed.unwrap_or_else(|error| {
            tracing::debug!(%error, "which transactions are committed is not known now");
            Vec::new()
        })
    }
}

impl Coordinator {
    async fn store_half(
        &self,
        running: &Running,
        request: &HalfRequest,
        hold: Hold,
    ) -> Result<HalfReceipt, HalfError> {
        let broker = &running.broker;
        let target = broker.admit(request.message.topic(), request.queue).await;
        let target = target.map_err(|error| HalfError::Refused(error.to_string()))?;
        let (queue, unique) = (target.queue, ids::hex128(request.id.0));
        let new = half::new_half(request, &unique, broker.clock().wall_ms(), broker.host());
        let admitted = self
            .admit(running, &new, request.id, target, hold)
            .map_err(|error| match error {
                NotAdmitted::Behind => HalfError::Busy(error.to_string()),
                NotAdmitted::BodyTooLong(_) | NotAdmitted::PropertiesTooLong(_) => {
                    HalfError::Refused(error.to_string())
                }
            })?;
        let (told, placed) = oneshot::channel();
        let tell = move |result: Result<&[Placed], AppendError>| {
            let ack = result.and_then(|placed| placed.first().copied().ok_or(AppendError::Closed));
            // The caller is gone: a check-back settles its half message.
            let _ = told.send(ack);
        };
        if let Err(Full(_)) = self.append(running, vec![admitted], tell) {
            return Err(HalfError::Busy("the log is behind".into()));
        }
        match placed.await {
            Ok(Ok(placed)) => Ok(HalfReceipt {
                id: request.id,
                position: placed.position,
                queue_offset: placed.queue_offset,
                queue,
                broker: None,
            }),
            Ok(Err(error @ (AppendError::Full(_) | AppendError::Refused(_)))) => {
                Err(HalfError::Refused(error.to_string()))
            }
            Ok(Err(error)) => Err(HalfError::Unknown(error.to_string())),
            Err(_) => Err(HalfError::Unknown("the log is gone".into())),
        }
    }

    /// The half message of a transaction that is kept in SQL, as a resolution names it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: TransactionId) -> Result<Option<Row>, StoreError> {
        if self.write_held().await.is_err() {
            tracing::debug!("rows that are held back are not shown");
        }
        self.reader().transaction(id).await
    }
}

#[cfg(test)]
pub(crate) mod tests;

/// Most requests from the wire that are worked on aside; behind that they are told to try again.
const ASIDE: usize = 256;

/// Most bytes of evidence in one row of the history.
const EVIDENCE_BYTES: usize = 512;
