//! A member of a producer group: begins local transactions whose message is stored first, and answers check-backs.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mq_core::client::{self, ClientError};
use mq_core::clock::{Clock, SystemClock};
use mq_core::exchange::Receipt;
use mq_core::message::Message;
use mq_core::names::{GroupName, NameError};
use mq_core::random::{Random, SystemRandom};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::check_back::{Answerer, CheckBack, CheckBackQueue, QUEUE};
use super::endpoint::{Endpoint, HalfError, HalfRequest};
use super::half::{HalfMessage, Outgoing, Pending, Settled};
use super::left_behind::LeftBehind;
use super::live::Live;
use super::local::{CommitError, Transaction};
use super::pruning::Pruning;
use crate::marker::MarkerError;
use crate::marker::database::{DatabaseError, LocalDatabase, Pool, is_key_violation};
use crate::marker::databases::Markers;
use crate::marker::local::Open;
use crate::steps;
use crate::transaction::{Incarnation, MarkerIdentity, TransactionId};

/// How long a local transaction may run before a check-back fences it like any other.
pub const LONGEST_LOCAL_TRANSACTION: Duration = Duration::from_secs(600);

/// How long a marker is kept after the coordinator has confirmed the decision.
pub const MARKERS_KEPT: Duration = Duration::from_secs(600);

/// What a producer tells the coordinator when it connects, before the first half message.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Its group.
    pub group: GroupName,
    /// Its process life.
    pub incarnation: Incarnation,
    /// The marker databases it answers for.
    pub markers: Vec<MarkerIdentity>,
    /// Whether it also answers for half messages without a marker.
    pub check_back: bool,
}

/// A producer's way to its coordinator.
pub struct Connection {
    /// Where half messages and resolutions go.
    pub endpoint: Arc<dyn Endpoint>,
    /// Where plain messages go.
    pub plain: client::Producer,
    /// Dropped together with the last clone of the producer: says goodbye.
    pub guard: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Why a producer cannot be connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The group's name breaks a rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The coordinator refuses; the text says why.
    #[error("{0}")]
    Refused(String),
    /// The coordinator cannot be reached now, as the text says. Try again.
    #[error("{0}")]
    Unreachable(String),
}

/// Why a local transaction did not begin. Nothing of it stands in the database, and the message never appears.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// The pool leads to a database that is none of the producer's marker databases, or that cannot be asked.
    #[error(transparent)]
    Markers(#[from] MarkerError),
    /// The half message is not known to be stored.
    #[error(transparent)]
    Half(#[from] HalfError),
    /// The local transaction could not be begun.
    #[error("the local transaction could not be begun: {0}")]
    Database(#[source] DatabaseError),
    /// A check-back came first and settled it as rolled back. Begin again.
    #[error("transaction {0} was settled by a check-back before it began; begin again")]
    Fenced(TransactionId),
}

/// Why [`Producer::run`] did not commit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E> {
    /// The local transaction did not begin.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// The work failed; the local transaction is rolled back.
    #[error("{0}")]
    Work(E),
    /// The local transaction was not committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The future that the work of [`Producer::run`] returns.
pub type Work<'t, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 't>>;

/// Collects what a [`Producer`] is made of.
pub struct Builder {
    group: String,
    markers: Markers,
    check_back: Option<Arc<dyn CheckBack>>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    longest: Duration,
    markers_kept: Duration,
}

impl Builder {
    /// The databases in which local transactions run.
    #[must_use]
    pub fn markers(mut self, markers: Markers) -> Self {
        self.markers = markers;
        self
    }

    /// Answers for half messages without a marker. Without it such check-backs are left to other members of the group.
    #[must_use]
    pub fn check_back(mut self, check_back: impl CheckBack) -> Self {
        self.check_back = Some(Arc::new(check_back));
        self
    }

    /// How long a local transaction may run before a check-back fences it; [`LONGEST_LOCAL_TRANSACTION`] unless set.
    #[must_use]
    pub const fn longest_local_transaction(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// How long markers are kept after the coordinator has confirmed the decision; [`MARKERS_KEPT`] unless set.
    #[must_use]
    pub const fn keep_markers(mut self, kept: Duration) -> Self {
        self.markers_kept = kept;
        self
    }

    /// Other sources of time and chance than the operating system's.
    #[must_use]
    pub fn clock_and_random(mut self, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        self.clock = clock;
        self.random = random;
        self
    }

    /// Connects through `connect`, which announces the producer and puts its check-backs into the queue from then on.
    ///
    /// This is what `attach` and `connect` are made of. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn over<F, Fut>(self, connect: F) -> Result<Producer, ConnectError>
    where
        F: FnOnce(Announcement, CheckBackQueue) -> Fut,
        Fut: Future<Output = Result<Connection, ConnectError>>,
    {
        let group = GroupName::new(&self.group)?;
        let incarnation = Incarnation(self.random.next_u128());
        let (sender, queue) = mpsc::channel(QUEUE);
        let announcement = Announcement {
            group: group.clone(),
            incarnation,
            markers: self.markers.identities(),
            check_back: self.check_back.is_some(),
        };
        let connection = connect(announcement, CheckBackQueue(sender)).await?;
        let source: Arc<str> = format!("{group}@{:032X}", incarnation.0).into();
        let live = Arc::new(Live::new(Arc::clone(&self.clock), self.longest));
        let pruning = Arc::new(Pruning::new(Arc::clone(&self.clock), self.markers_kept));
        let answerer = Answerer {
            endpoint: Arc::clone(&connection.endpoint),
            markers: self.markers.clone(),
            check_back: self.check_back,
            live: Arc::clone(&live),
            pruning: Arc::clone(&pruning),
            source: Arc::clone(&source),
        };
        let mut answering = JoinSet::new();
        answering.spawn(answerer.run(queue));
        answering.spawn(Arc::clone(&pruning).run(self.markers.clone()));
        let left_behind = LeftBehind {
            endpoint: Arc::clone(&connection.endpoint),
            markers: self.markers.clone(),
            clock: Arc::clone(&self.clock),
            kept: self.markers_kept,
        };
        answering.spawn(left_behind.run());
        Ok(Producer {
            shared: Arc::new(Shared {
                group,
                incarnation,
                endpoint: connection.endpoint,
                plain: connection.plain,
                markers: self.markers,
                live,
                clock: self.clock,
                random: self.random,
                source,
                pruning,
                background: Background::new(),
                #[cfg(test)]
                loses_commits: Mutex::default(),
                connected: Mutex::new(Some(Connected {
                    answering,
                    _guard: connection.guard,
                })),
            }),
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("group", &self.group)
            .field("markers", &self.markers)
            .finish_non_exhaustive()
    }
}

/// A member of a producer group. Cheap to clone; the last clone takes its leave from the coordinator.
#[derive(Debug, Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

impl Producer {
    /// Starts a producer of `group`.
    #[must_use]
    pub fn builder(group: impl Into<String>) -> Builder {
        Builder {
            group: group.into(),
            markers: Markers::new(),
            check_back: None,
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            longest: LONGEST_LOCAL_TRANSACTION,
            markers_kept: MARKERS_KEPT,
        }
    }

    /// Its group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.shared.group
    }

    /// Stores `message` as a half message, then begins a local transaction on `pool` with its marker in it.
    ///
    /// The database is not touched before the half message is durable. If the future is dropped, the message never
    /// appears.
    ///
    /// # Errors
    /// [`BeginError`]; nothing of it stands, and trying again is safe.
    pub async fn begin<DB: LocalDatabase>(
        &self,
        pool: &Pool<DB>,
        message: impl Into<Outgoing>,
    ) -> Result<Transaction<DB>, BeginError> {
        let shared = &self.shared;
        let identity = shared.markers.identity_of(pool).await?;
        let half = shared.send_half(message.into(), Some(identity)).await?;
        steps::reach("local.half_stored");
        // From here on an early return or a dropped future rolls the half message back.
        let mut transaction = Transaction::<DB>::unbegun(half);
        let id = transaction.id();
        let open = Open::begin(pool).await.map_err(BeginError::Database)?;
        let connection = transaction.begun(open);
        let inserted = DB::insert_marker(connection, id, identity, shared.clock.wall_ms()).await;
        match inserted {
            Ok(true) => {
                steps::reach("local.begun");
                Ok(transaction)
            }
            Ok(false) => Err(BeginError::Markers(MarkerError::Refused(
                "the database's marker identity has changed since its pool was added".into(),
            ))),
            Err(error) if is_key_violation(&error) => {
                transaction.abandon().await;
                Err(BeginError::Fenced(id))
            }
            Err(error) => Err(BeginError::Database(error)),
        }
    }

    /// [`Producer::begin`], then `work`, then commit or, if `work` fails, roll back.
    ///
    /// ```no_run
    /// # use coordinator::client::Producer;
    /// # async fn example(producer: Producer, pool: sqlx::SqlitePool) -> Result<(), Box<dyn std::error::Error>> {
    /// # let message = mq_core::message::Message::builder("orders").build()?;
    /// let work = producer.run(&pool, message, |tx| {
    ///     Box::pin(async move { sqlx::query("INSERT INTO orders VALUES (10248)").execute(&mut **tx).await })
    /// });
    /// let (_, settled) = work.await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RunError`]; the local transaction is rolled back, and the message never appears.
    pub async fn run<DB, T, E, F>(
        &self,
        pool: &Pool<DB>,
        message: impl Into<Outgoing>,
        work: F,
    ) -> Result<(T, Settled), RunError<E>>
    where
        DB: LocalDatabase,
        F: for<'t> FnOnce(&'t mut Transaction<DB>) -> Work<'t, T, E>,
    {
        let mut transaction = self.begin(pool, message).await?;
        match work(&mut transaction).await {
            Ok(value) => Ok((value, transaction.commit().await?)),
            Err(error) => {
                // However this is settled, the local transaction is rolled back.
                let _ = transaction.roll_back().await;
                Err(RunError::Work(error))
            }
        }
    }

    /// Stores `message` as a half message whose local transaction the service runs by itself; its [`CheckBack`] is asked
    /// if the service says nothing.
    ///
    /// # Errors
    /// [`HalfError`].
    pub async fn half(&self, message: impl Into<Outgoing>) -> Result<HalfMessage, HalfError> {
        let pending = self.shared.send_half(message.into(), None).await?;
        Ok(HalfMessage { pending })
    }

    /// [`Producer::half`] for a local transaction in the marker database `identity`. The service inserts the marker with
    /// the statement in `sql/marker/README.md`, before anything else.
    ///
    /// # Errors
    /// [`HalfError::Refused`] when the producer has no such marker database, or another [`HalfError`].
    pub async fn half_in(
        &self,
        identity: MarkerIdentity,
        message: impl Into<Outgoing>,
    ) -> Result<HalfMessage, HalfError> {
        if self.shared.markers.get(identity).is_none() {
            return Err(HalfError::Refused(format!(
                "marker database {:032X} was not added to the producer's markers",
                identity.0
            )));
        }
        let pending = self
            .shared
            .send_half(message.into(), Some(identity))
            .await?;
        Ok(HalfMessage { pending })
    }

    /// Sends a plain message, of no transaction. When it returns, the message is durable (or as the broker's settings say).
    ///
    /// # Errors
    /// [`ClientError`]. Sending again after [`ClientError::Unknown`] may store the message twice, under two ids.
    pub async fn send(&self, message: Message) -> Result<Receipt, ClientError> {
        self.plain().send(message).await
    }

    /// The producer of plain messages on the same connection: to chosen queues, by key, several at once.
    #[must_use]
    pub fn plain(&self) -> &client::Producer {
        &self.shared.plain
    }

    /// Waits until everything that was committed or rolled back has been said to the coordinator.
    pub async fn flush(&self) {
        self.shared.background.flush().await;
    }

    /// Waits as [`Producer::flush`] does, then takes leave of the coordinator: nothing is begun or answered any more.
    /// Local transactions that are still open are settled by another instance, or by this one's next start.
    pub async fn close(&self) {
        self.flush().await;
        let connected = self.shared.connected().take();
        if let Some(mut connected) = connected {
            connected.answering.shutdown().await;
        }
    }

    #[cfg(test)]
    pub(crate) async fn prune_now(&self) {
        self.shared.pruning.prune(&self.shared.markers).await;
    }

    #[cfg(test)]
    pub(crate) async fn confirmed(&self, ids: &[TransactionId]) -> Vec<TransactionId> {
        self.shared.endpoint.committed(ids).await
    }

    #[cfg(test)]
    pub(crate) fn lose_commits(&self, how: LostCommit) {
        *self.shared.loses_commits.lock().expect("never poisoned") = Some(how);
    }
}

/// What all clones of a producer share.
pub(super) struct Shared {
    pub(super) group: GroupName,
    incarnation: Incarnation,
    pub(super) endpoint: Arc<dyn Endpoint>,
    plain: client::Producer,
    markers: Markers,
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    pub(super) source: Arc<str>,
    pub(super) pruning: Arc<Pruning>,
    pub(super) background: Background,
    #[cfg(test)]
    loses_commits: Mutex<Option<LostCommit>>,
    /// `None` once the producer was closed.
    connected: Mutex<Option<Connected>>,
}

/// Being asked, and the way to be asked: ends with the producer.
struct Connected {
    answering: JoinSet<()>,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Shared {
    fn connected(&self) -> MutexGuard<'_, Option<Connected>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_half(
        self: &Arc<Self>,
        outgoing: Outgoing,
        marker: Option<MarkerIdentity>,
    ) -> Result<Pending, HalfError> {
        if self.connected().is_none() {
            return Err(HalfError::Refused("the producer was closed".into()));
        }
        let id = TransactionId::new(self.clock.wall_ms(), self.random.next_u128());
        let live = self.live.enter(id);
        let request = HalfRequest {
            id,
            group: self.group.clone(),
            message: outgoing.message,
            queue: outgoing.queue,
            sender: self.incarnation,
            marker,
            immunity: outgoing.immunity,
        };
        let receipt = self.endpoint.half(request).await?;
        Ok(Pending {
            shared: Arc::clone(self),
            receipt,
            marker,
            _live: live,
        })
    }

    /// Commits a local transaction. A test loses the COMMIT here, or its reply.
    #[cfg(test)]
    pub(super) async fn commit<DB: LocalDatabase>(
        &self,
        open: Open<DB>,
    ) -> Result<(), DatabaseError> {
        let lost = *self.loses_commits.lock().expect("never poisoned");
        match lost {
            None => return open.commit().await,
            Some(LostCommit::Reply) => open.commit().await?,
            // With it goes the connection.
            Some(LostCommit::Request) => drop(open),
        }
        Err(DatabaseError::WorkerCrashed)
    }

    #[cfg(not(test))]
    pub(super) async fn commit<DB: LocalDatabase>(
        &self,
        open: Open<DB>,
    ) -> Result<(), DatabaseError> {
        open.commit().await
    }
}

/// What a test loses of a COMMIT, together with the connection.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum LostCommit {
    /// It never reaches the database.
    Request,
    /// It does, and nobody hears so.
    Reply,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("group", &self.group)
            .field("incarnation", &self.incarnation)
            .field("endpoint", &self.endpoint)
            .field("markers", &self.markers)
            .finish_non_exhaustive()
    }
}

/// Commits and rollbacks in progress, on the runtime the producer was made in. Each one keeps its producer.
pub(super) struct Background {
    runtime: Handle,
    running: watch::Sender<usize>,
}

/// Counts one task, however it ends.
struct Counted(watch::Sender<usize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl Background {
    fn new() -> Self {
        Self {
            runtime: Handle::current(),
            running: watch::Sender::new(0),
        }
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.send_modify(|running| *running += 1);
        let counted = Counted(self.running.clone());
        self.runtime.spawn(async move {
            task.await;
            drop(counted);
        });
    }

    async fn flush(&self) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`.
        let _ = running.wait_for(|running| *running == 0).await;
    }
}
