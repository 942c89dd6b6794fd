//! The brokers behind some nameservers, as this process is connected to them: shared by all its producers and consumers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::link::BrokerLink;
use super::nameservers::Nameservers;
use super::questions::{Answering, Questions};
use super::route::{self, Route};
use super::{DEFAULT_QUEUES, requests};
use crate::client::{BrokerName, ClientError, MessageQueue};
use crate::clock::{Clock, SystemClock};
use crate::membership::Announcement;
use crate::names::{GroupName, TopicName};
use crate::random::{Random, SystemRandom};
use crate::remoting::client::Requests;
use crate::wire::codes::{request, response};
use crate::wire::command::Command;
use crate::wire::reserved;
use crate::wire::route::{ClusterInfo, TopicRoute, read};

/// How often brokers and routes are looked up, and heartbeats sent, as RocketMQ's clients do.
const REFRESH: Duration = Duration::from_secs(30);
/// How long it is believed that a topic does not exist, or that nothing has changed after a look-up has failed.
const BRIEFLY: Duration = Duration::from_secs(1);

/// Whose place in a process a group takes: a broker tells the members of a group apart by their connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A consumer of the group.
    Consumer(GroupName),
    /// A producer of the group that can be asked.
    Producer(GroupName),
}

/// One way of this process to the brokers behind some nameservers: one client id, one connection to each broker.
pub struct Network {
    nameservers: Nameservers,
    client_id: Arc<str>,
    incarnation: u128,
    started_ms: u64,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    links: Mutex<HashMap<String, Arc<BrokerLink>>>,
    brokers: Mutex<BTreeMap<BrokerName, String>>,
    routes: Mutex<HashMap<TopicName, Known>>,
    refreshing: tokio::sync::Mutex<()>,
    attached: Mutex<Attached>,
    places: Mutex<HashSet<Place>>,
    look: Arc<Notify>,
    turn: AtomicU64,
}

/// What is known of a topic's route, and until when it is believed.
#[derive(Debug, Clone)]
struct Known {
    route: Option<Arc<Route>>,
    until: Duration,
}

/// The clients of this process behind one network.
#[derive(Debug, Default)]
struct Attached {
    next: u64,
    parts: BTreeMap<u64, Part>,
}

#[derive(Debug)]
struct Part {
    said: Announcement,
    questions: Arc<dyn Questions>,
}

/// A place in a network that nobody else of this process takes meanwhile; given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    network: Weak<Network>,
    place: Place,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(network) = self.network.upgrade() {
            network.places().remove(&self.place);
        }
    }
}

/// One client's part in a network. Leaves its groups when it is dropped.
#[derive(Debug)]
pub struct Joined {
    network: Arc<Network>,
    number: u64,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("nameservers", &self.nameservers.names())
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// A new way; its task ends with its last handle. Call it inside a runtime.
    pub(super) fn new(addresses: Arc<[String]>, client_id: Option<&str>) -> Arc<Self> {
        let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom));
        let incarnation = random.next_u128();
        let own = || format!("{}@{incarnation:032x}", std::process::id());
        let network = Arc::new(Self {
            nameservers: Nameservers::new(addresses),
            client_id: client_id.map_or_else(own, str::to_owned).into(),
            incarnation,
            started_ms: clock.wall_ms(),
            turn: AtomicU64::new(random.next_u64()),
            clock,
            random,
            links: Mutex::default(),
            brokers: Mutex::default(),
            routes: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            attached: Mutex::default(),
            places: Mutex::default(),
            look: Arc::new(Notify::new()),
        });
        tokio::spawn(keep(Arc::downgrade(&network), Arc::clone(&network.look)));
        network
    }

    /// Takes a place; `None` when somebody else of this process has it.
    pub(super) fn take(self: &Arc<Self>, place: &Place) -> Option<Taken> {
        self.places().insert(place.clone()).then(|| Taken {
            network: Arc::downgrade(self),
            place: place.clone(),
        })
    }

    /// Asks the nameservers which brokers there are.
    ///
    /// # Errors
    /// [`ClientError`] when none answers, or none knows a broker.
    pub(super) async fn find_brokers(&self) -> Result<(), ClientError> {
        let asked = requests::asked(request::GET_BROKER_CLUSTER_INFO, &[]);
        let answer = self.nameservers.ask(&asked).await?;
        let who = || format!("nameserver {}", self.nameservers.names());
        if answer.code != response::SUCCESS {
            return Err(requests::refused(&answer, &who()));
        }
        let info: ClusterInfo = read(&answer.body).map_err(|error| {
            ClientError::Unavailable(format!(
                "the answer of {} is not understood: {error}",
                who()
            ))
        })?;
        let found: BTreeMap<_, _> = info
            .broker_addr_table
            .values()
            .filter_map(route::broker)
            .collect();
        let mut brokers = self.brokers();
        let links = self.links();
        let is_open = |address: &String| {
            links
                .get(address)
                .is_some_and(|link| link.current().is_some())
        };
        brokers.retain(|name, address| found.contains_key(name) || is_open(address));
        brokers.extend(found);
        if brokers.is_empty() {
            let why = format!("{} knows no broker; start one", who());
            return Err(ClientError::Unavailable(why));
        }
        Ok(())
    }

    /// Adds a client that says `said` about itself. At least one broker has heard it when this returns, and others hear it as
    /// soon as they can be reached.
    ///
    /// # Errors
    /// [`ClientError`] when no broker has heard it, or one refuses it.
    pub async fn join(
        self: &Arc<Self>,
        said: Announcement,
        questions: Arc<dyn Questions>,
    ) -> Result<Joined, ClientError> {
        let joined = self.enter(said, questions);
        self.say_everywhere().await?;
        self.look();
        Ok(joined)
    }

    /// Adds a client of which brokers hear with the next heartbeat.
    pub(super) fn enter(
        self: &Arc<Self>,
        said: Announcement,
        questions: Arc<dyn Questions>,
    ) -> Joined {
        let mut attached = self.attached();
        let number = attached.next;
        attached.next += 1;
        attached.parts.insert(number, Part { said, questions });
        Joined {
            network: Arc::clone(self),
            number,
        }
    }

    /// The client's id.
    #[must_use]
    pub const fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    /// This process life, as brokers know it.
    #[must_use]
    pub const fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// The brokers that have told that they are ours, and not stock RocketMQ.
    #[must_use]
    pub fn ours(&self) -> Vec<BrokerName> {
        let brokers: Vec<BrokerName> = self.brokers().keys().cloned().collect();
        brokers
            .into_iter()
            .filter(|broker| self.is_ours(broker))
            .collect()
    }

    /// Whether the broker has told that it is one of ours, and not stock RocketMQ.
    #[must_use]
    pub fn is_ours(&self, broker: &str) -> bool {
        let link = self.link_to(broker);
        link.is_ok_and(|link| link.is_native())
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn random(&self) -> &Arc<dyn Random> {
        &self.random
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn chance(&self) -> u64 {
        self.random.next_u64()
    }

    /// Has the keeping task look at the connections.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    pub(super) fn answering(self: &Arc<Self>, address: &str) -> Arc<dyn Requests> {
        Arc::new(Answering::new(Arc::downgrade(self), address))
    }

    pub(super) fn heartbeat(&self) -> Command {
        let said: Vec<Announcement> = {
            let attached = self.attached();
            attached
                .parts
                .values()
                .map(|part| part.said.clone())
                .collect()
        };
        let version = i64::try_from(self.started_ms).unwrap_or(i64::MAX);
        requests::heartbeat(&self.client_id, self.incarnation, version, &said)
    }

    /// Those who take questions and whose announcement `wanted` accepts.
    pub(super) fn asked(&self, wanted: impl Fn(&Announcement) -> bool) -> Vec<Arc<dyn Questions>> {
        let attached = self.attached();
        let parts = attached.parts.values().filter(|part| wanted(&part.said));
        parts.map(|part| Arc::clone(&part.questions)).collect()
    }

    /// The name of the broker at `address`.
    pub(super) fn name_of(&self, address: &str) -> Option<BrokerName> {
        let brokers = self.brokers();
        let mut named = brokers.iter().filter(|(_, known)| *known == address);
        named.next().map(|(name, _)| Arc::clone(name))
    }

    /// Asks a broker; whatever it answers is returned.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when nothing was sent, [`ClientError::Unknown`] when no answer came.
    pub async fn call(
        self: &Arc<Self>,
        broker: &str,
        command: Command,
        within: Duration,
    ) -> Result<Command, ClientError> {
        self.link_to(broker)?.call(self, command, within).await
    }

    /// Tells a broker something that it does not answer.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when nothing was sent.
    pub async fn tell(self: &Arc<Self>, broker: &str, command: Command) -> Result<(), ClientError> {
        let connection = self.link_to(broker)?.connection(self).await?;
        let told = connection.one_way(command);
        told.map_err(|error| ClientError::Unavailable(error.to_string()))
    }

    /// Sends to a queue of `topic`: the one with this number over all brokers, or else the one whose turn it is, and if its
    /// broker cannot be reached or takes nothing now, a queue of another one. `command` makes the request for a queue.
    ///
    /// # Errors
    /// [`ClientError`] of the last broker tried. A request whose answer is lost is [`ClientError::Unknown`] and not repeated.
    pub async fn send(
        self: &Arc<Self>,
        topic: &TopicName,
        queue: Option<u32>,
        within: Duration,
        command: impl Fn(&MessageQueue) -> Command + Send,
    ) -> Result<(MessageQueue, Command), ClientError> {
        let route = self.route_for_sending(topic).await?;
        let missing = |why: String| ClientError::Missing(why);
        let route = route
            .ok_or_else(|| missing(format!("topic {topic} does not exist; create it first")))?;
        let tries = match queue {
            None => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                route::tries(&route.writable, turn, |broker| self.is_down(broker))
            }
            Some(number) => {
                let chosen = usize::try_from(number).ok();
                let chosen = chosen.and_then(|number| route.writable.get(number));
                chosen.into_iter().cloned().collect()
            }
        };
        let mut failed = missing(match queue {
            Some(number) => format!(
                "topic {topic} has no queue {number}; it has {}",
                route.writable.len()
            ),
            None => format!("topic {topic} has no queue that can be sent to"),
        });
        for queue in tries {
            let answer = self.call(&queue.broker, command(&queue), within).await;
            failed = match answer {
                Ok(answer) if is_stored(answer.code) => return Ok((queue, answer)),
                Ok(answer) => {
                    self.doubt(topic);
                    requests::refused(&answer, &format!("broker {}", queue.broker))
                }
                Err(error) => error,
            };
            if !matches!(failed, ClientError::Unavailable(_)) {
                break;
            }
            self.doubt(topic);
        }
        Err(failed)
    }

    /// The route of a topic, not older than half a minute where the nameservers can be asked; `None` without such a topic.
    ///
    /// # Errors
    /// [`ClientError`] when nothing is known and nobody can be asked.
    pub(super) async fn route(&self, topic: &TopicName) -> Result<Option<Arc<Route>>, ClientError> {
        if let Some(known) = self.fresh(topic) {
            return Ok(known.route);
        }
        let _one_at_a_time = self.refreshing.lock().await;
        if let Some(known) = self.fresh(topic) {
            return Ok(known.route);
        }
        let (route, believed) = match self.look_up(topic).await {
            Ok(Some(route)) => (Some(Arc::new(route)), REFRESH),
            Ok(None) => (None, BRIEFLY),
            Err(error) => {
                let old = self
                    .routes()
                    .get(topic)
                    .and_then(|known| known.route.clone());
                (Some(old.ok_or(error)?), BRIEFLY)
            }
        };
        let known = Known {
            route: route.clone(),
            until: self.now() + believed,
        };
        self.routes().insert(topic.clone(), known);
        Ok(route)
    }

    /// Like [`Self::route`]; a topic that sending would create has the queues it will have.
    pub(super) async fn route_for_sending(
        &self,
        topic: &TopicName,
    ) -> Result<Option<Arc<Route>>, ClientError> {
        if let Some(route) = self.route(topic).await? {
            return Ok(Some(route));
        }
        let Ok(parent) = TopicName::new(reserved::AUTO_CREATE_TOPIC) else {
            return Ok(None);
        };
        let parent = self.route(&parent).await?;
        Ok(parent.map(|parent| Arc::new(parent.inherited(topic, DEFAULT_QUEUES))))
    }

    /// Believes nothing about a topic's route any more.
    pub(super) fn doubt(&self, topic: &TopicName) {
        if let Some(known) = self.routes().get_mut(topic) {
            known.until = Duration::ZERO;
        }
    }

    /// Believes nothing about any route any more.
    pub(super) fn doubt_all(&self) {
        for known in self.routes().values_mut() {
            known.until = Duration::ZERO;
        }
    }

    fn fresh(&self, topic: &TopicName) -> Option<Known> {
        let now = self.now();
        self.routes()
            .get(topic)
            .filter(|known| now < known.until)
            .cloned()
    }

    async fn look_up(&self, topic: &TopicName) -> Result<Option<Route>, ClientError> {
        let fields = [
            ("topic", topic.as_str()),
            ("acceptStandardJsonOnly", "true"),
        ];
        let asked = requests::asked(request::GET_ROUTEINFO_BY_TOPIC, &fields);
        let answer = self.nameservers.ask(&asked).await?;
        let who = format!("nameserver {}", self.nameservers.names());
        match answer.code {
            response::SUCCESS => {}
            response::TOPIC_NOT_EXIST => return Ok(None),
            _ => return Err(requests::refused(&answer, &who)),
        }
        let told: TopicRoute = read(&answer.body).map_err(|error| {
            ClientError::Unavailable(format!("the answer of {who} is not understood: {error}"))
        })?;
        let route = Route::of(topic, &told);
        self.brokers().extend(route.brokers.clone());
        Ok(Some(route))
    }

    fn is_down(&self, broker: &str) -> bool {
        self.link_to(broker).is_ok_and(|link| link.is_down())
    }

    fn link_to(&self, broker: &str) -> Result<Arc<BrokerLink>, ClientError> {
        let address = self.brokers().get(broker).cloned();
        let address = address.ok_or_else(|| {
            let nameservers = self.nameservers.names();
            ClientError::Unavailable(format!("nameserver {nameservers} knows no broker {broker}"))
        })?;
        Ok(self.link(&address))
    }

    fn link(&self, address: &str) -> Arc<BrokerLink> {
        let mut links = self.links();
        if let Some(link) = links.get(address) {
            return Arc::clone(link);
        }
        let link = Arc::new(BrokerLink::new(address.to_owned()));
        links.insert(address.to_owned(), Arc::clone(&link));
        link
    }

    /// Says to every broker what this process says about itself, connecting to those it is not connected to.
    async fn say_everywhere(self: &Arc<Self>) -> Result<(), ClientError> {
        if self.brokers().is_empty() {
            self.find_brokers().await?;
        }
        let addresses: HashSet<String> = self.brokers().values().cloned().collect();
        let mut saying = JoinSet::new();
        for address in addresses {
            let (network, link) = (Arc::clone(self), self.link(&address));
            saying.spawn(async move {
                match link.current() {
                    Some(_) => link.say(&network).await,
                    None => link.connection(&network).await.map(drop),
                }
            });
        }
        let (mut heard, mut failed) = (false, None);
        while let Some(said) = saying.join_next().await {
            match said {
                Ok(Ok(())) => heard = true,
                Ok(Err(error @ ClientError::Unavailable(_))) => failed = failed.or(Some(error)),
                Ok(Err(error)) => return Err(error),
                Err(panicked) => failed = Some(ClientError::Unknown(panicked.to_string())),
            }
        }
        match failed {
            Some(error) if !heard => Err(error),
            _ => Ok(()),
        }
    }

    /// Connects to the brokers to which the connection is lost.
    async fn reconnect(self: &Arc<Self>) {
        let addresses: HashSet<String> = self.brokers().values().cloned().collect();
        let mut connecting = JoinSet::new();
        for address in addresses {
            let (network, link) = (Arc::clone(self), self.link(&address));
            if link.due().is_some() {
                connecting.spawn(async move {
                    if let Err(error) = link.connection(&network).await {
                        tracing::debug!(%error, "a broker is tried again");
                    }
                });
            }
        }
        while connecting.join_next().await.is_some() {}
    }

    fn has_parts(&self) -> bool {
        !self.attached().parts.is_empty()
    }

    /// When the next connection is to be tried: at once for zero, never for `None`.
    fn next_attempt(&self) -> Option<Duration> {
        let brokers: Vec<String> = self.brokers().values().cloned().collect();
        let due = brokers
            .iter()
            .filter_map(|address| self.link(address).due());
        due.min()
    }

    fn attached(&self) -> MutexGuard<'_, Attached> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<String, Arc<BrokerLink>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn brokers(&self) -> MutexGuard<'_, BTreeMap<BrokerName, String>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<TopicName, Known>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for link in self.links().values() {
            link.close();
        }
        self.look.notify_one();
    }
}

impl Joined {
    /// Says something else about this client from now on.
    ///
    /// # Errors
    /// As [`Network::join`].
    pub async fn say(&self, said: Announcement) -> Result<(), ClientError> {
        {
            let mut attached = self.network.attached();
            match attached.parts.get_mut(&self.number) {
                Some(part) if part.said != said => part.said = said,
                // The keeping task repeats it.
                _ => return Ok(()),
            }
        }
        self.network.say_everywhere().await
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let network = &self.network;
        let Some(part) = network.attached().parts.remove(&self.number) else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let id = &network.client_id;
        let producers = part.said.producer_groups.iter();
        let consumers = part.said.consumer_groups.iter();
        let leaving: Vec<Command> = producers
            .map(|group| requests::leave(id, "producerGroup", group))
            .chain(consumers.map(|member| requests::leave(id, "consumerGroup", &member.group)))
            .collect();
        let links: Vec<_> = network.links().values().cloned().collect();
        let open: Vec<_> = links.iter().filter_map(|link| link.current()).collect();
        // The connections may close as soon as the network is gone: what is sent before is still written.
        for connection in &open {
            for command in &leaving {
                let _ = connection.one_way(command.clone());
            }
        }
        drop(runtime);
    }
}

/// Looks up brokers and sends heartbeats every half minute, and connects again where a connection was lost.
async fn keep(network: Weak<Network>, look: Arc<Notify>) {
    let mut refresh_at = None;
    loop {
        let Some(network) = network.upgrade() else {
            return;
        };
        let now = network.now();
        let due = *refresh_at.get_or_insert(now + REFRESH);
        if now >= due {
            refresh_at = Some(now + REFRESH);
            if let Err(error) = network.find_brokers().await {
                tracing::warn!(%error, "brokers could not be looked up; trying again");
            }
            if let Err(error) = network.say_everywhere().await {
                tracing::warn!(%error, "no broker hears this client; trying again");
            }
        }
        let mut pause = due.saturating_sub(network.now());
        if network.has_parts()
            && let Some(at) = network.next_attempt()
        {
            let now = network.now();
            if now >= at {
                network.reconnect().await;
            }
            let next = network.next_attempt().unwrap_or(due);
            pause = pause.min(
                next.saturating_sub(network.now())
                    .max(Duration::from_millis(10)),
            );
        }
        drop(network);
        tokio::select! {
            () = look.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whether a send was stored: codes 10 to 12 say that a flush or a copy is late.
const fn is_stored(code: i32) -> bool {
    matches!(code, response::SUCCESS | 10..=12)
}
