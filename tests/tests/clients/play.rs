//! The scenarios as every client plays them, each on topics and groups of its own, and what must come of them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use tests::cluster::Cluster;
use tests::server::{Plan, Server};

use super::facts::{self, Fact, answered, each_came, each_came_once, in_order, named};
use super::stock::{Client, Order};

/// The server under test.
pub(super) struct Stage {
    server: Tested,
}

enum Tested {
    /// Everything in one process, or a server that runs elsewhere.
    Whole(Server),
    /// Processes of their own.
    Split(Cluster),
}

/// Names are fresh for all stages: they may be on one server.
static USED: AtomicU32 = AtomicU32::new(0);

impl Stage {
    pub(super) fn new() -> Self {
        let server = Plan::of(env!("CARGO_BIN_EXE_server")).start();
        Self {
            server: Tested::Whole(server.expect("the server starts")),
        }
    }

    /// A nameserver, and brokers beside it.
    pub(super) fn split(brokers: &[&str]) -> Self {
        let cluster = Cluster::start(env!("CARGO_BIN_EXE_server"), brokers);
        Self {
            server: Tested::Split(cluster.expect("all processes start")),
        }
    }

    fn nameserver(&self) -> &str {
        match &self.server {
            Tested::Whole(server) => server.nameserver(),
            Tested::Split(cluster) => cluster.nameserver(),
        }
    }

    const fn is_ours(&self) -> bool {
        match &self.server {
            Tested::Whole(server) => server.is_ours(),
            Tested::Split(_) => true,
        }
    }

    /// A name that no other topic or group has, also on a server that outlives the test.
    fn fresh(name: &str) -> String {
        let number = USED.fetch_add(1, Ordering::Relaxed);
        format!("{name}-{}-{number}", std::process::id())
    }

    fn play(
        &self,
        client: Client,
        scenario: &str,
        (topic, group): (&str, &str),
        count: usize,
    ) -> Vec<Fact> {
        self.play_filtered(client, scenario, (topic, group), count, "*")
    }

    fn play_filtered(
        &self,
        client: Client,
        scenario: &str,
        (topic, group): (&str, &str),
        count: usize,
        subscription: &str,
    ) -> Vec<Fact> {
        client.play(Order {
            scenario,
            nameserver: self.nameserver(),
            topic,
            group,
            count,
            subscription,
        })
    }
}

/// Lets all clients do something at the same time.
pub(super) fn at_once<T: Send>(clients: &[Client], work: impl Fn(Client) -> T + Sync) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(move || work(*client)))
            .collect();
        let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        // A panic of one client is the test's own, after the others have ended.
        ended
            .collect::<Vec<_>>()
            .into_iter()
            .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// What is sent is received: all of it, some of it by tags, and by an SQL92 expression where the client can ask for that.
pub(super) fn sent_is_received(stage: &Stage, client: Client) {
    let topic = Stage::fresh(&client.name());
    let facts = stage.play(client, "send", (&topic, "senders"), 6);
    let sent = named(&facts, "sent");
    assert_eq!(sent.len(), 6);
    let mut subscriptions = vec!["*", "TagA || TagC"];
    if client != Client::Node {
        subscriptions.push("sql:number > 1 AND number <= 4");
    }
    thread::scope(|scope| {
        for subscription in subscriptions {
            let (sent, topic) = (&sent, &topic);
            scope.spawn(move || {
                let wanted: Vec<&Fact> = sent
                    .iter()
                    .filter(|fact| matches(fact, subscription))
                    .copied()
                    .collect();
                let group = Stage::fresh("readers");
                let facts = stage.play_filtered(
                    client,
                    "consume",
                    (topic, &group),
                    wanted.len(),
                    subscription,
                );
                let name = format!("{} with {subscription}", client.name());
                each_came_once(&wanted, &answered(&facts, "taken"), &name);
            });
        }
    });
}

fn matches(fact: &Fact, subscription: &str) -> bool {
    let tag = fact.tag.as_deref().unwrap_or_default();
    let body = fact.body.as_deref().unwrap_or_default();
    match subscription {
        "*" => true,
        "TagA || TagC" => tag != "TagB",
        _ => body.ends_with(['2', '3', '4']),
    }
}

/// A group goes on where it stopped; what it sends back comes again, once.
pub(super) fn sent_back_comes_again(stage: &Stage, client: Client) {
    let topic = Stage::fresh(&client.name());
    let group = Stage::fresh("readers");
    for (senders, scenario) in [("first", "consume"), ("second", "consume-retry")] {
        let facts = stage.play(client, "send", (&topic, senders), 3);
        let sent = named(&facts, "sent");
        let facts = stage.play(client, scenario, (&topic, &group), 3);
        let taken = answered(&facts, "taken");
        if scenario == "consume" {
            each_came_once(&sent, &taken, &client.name());
            continue;
        }
        each_came_once(&sent, &answered(&facts, "later"), &client.name());
        // Now they come from the retry topic, which has places of its own.
        let contents =
            |facts: &[&Fact]| -> BTreeSet<_> { facts.iter().map(|fact| fact.content()).collect() };
        assert_eq!(contents(&taken), contents(&sent), "{}", client.name());
        assert_eq!(taken.len(), 3, "{}: {taken:?}", client.name());
        for fact in taken {
            assert_eq!(fact.reconsumed, Some(1), "{}: {fact:?}", client.name());
        }
    }
}

/// A batch stands together; a queue that the sender chose is read in order by an orderly consumer.
pub(super) fn order_is_kept(stage: &Stage, client: Client) {
    let topic = Stage::fresh(&client.name());
    let mut facts = stage.play(client, "send-batch", (&topic, "batch"), 5);
    facts.extend(stage.play(client, "send-ordered", (&topic, "one-by-one"), 8));
    let sent = named(&facts, "sent");
    assert_eq!(sent.len(), 13);
    let group = Stage::fresh("readers");
    let read = stage.play(client, "consume-orderly", (&topic, &group), 13);
    let taken = answered(&read, "taken");
    each_came_once(&sent, &taken, &client.name());
    in_order(&taken, &client.name());
}

/// Messages of one topic are spread over two brokers and read from both.
pub(super) fn brokers_share_a_topic(stage: &Stage, client: Client) {
    const COUNT: usize = 16;
    let topic = Stage::fresh(&client.name());
    let Tested::Split(cluster) = &stage.server else {
        panic!("one broker shares nothing");
    };
    cluster.create(&topic).expect("every broker has the topic");
    let facts = stage.play(client, "send", (&topic, "senders"), COUNT);
    let sent = named(&facts, "sent");
    assert_eq!(sent.len(), COUNT);
    let places: BTreeSet<_> = sent.iter().filter_map(|fact| fact.place()).collect();
    // Queue and offset are the same for two messages only if they are on two brokers.
    assert!(places.len() < COUNT, "{}: {places:?}", client.name());
    let group = Stage::fresh("readers");
    let read = stage.play(client, "consume", (&topic, &group), COUNT);
    each_came_once(&sent, &answered(&read, "taken"), &client.name());
}

/// A message with delay level 1 is delivered a second later.
pub(super) fn delay_is_kept(stage: &Stage, client: Client) {
    let topic = Stage::fresh(&client.name());
    let facts = stage.play(client, "send-delayed", (&topic, "senders"), 2);
    let sent = named(&facts, "sent");
    let group = Stage::fresh("readers");
    let read = stage.play(client, "consume", (&topic, &group), 2);
    let taken = answered(&read, "taken");
    each_came_once(&sent, &taken, &client.name());
    for fact in taken {
        let (born, stored) = fact.born.zip(fact.stored).expect("consumers know both");
        let waited = stored - born;
        // The producer's clock and the server's are the same; a busy machine is late, never early.
        assert!(waited >= 990, "{}: after {waited} ms", client.name());
        assert!(waited < 10_000, "{}: after {waited} ms", client.name());
    }
}

/// Who pulls by itself gets everything once; the program checks the ends of queues and, if it can, the kept offsets.
pub(super) fn pulled_is_whole(stage: &Stage, client: Client) {
    let topic = Stage::fresh(&client.name());
    let facts = stage.play(client, "send", (&topic, "senders"), 7);
    let sent = named(&facts, "sent");
    let group = Stage::fresh("readers");
    let read = stage.play(client, "pull", (&topic, &group), 7);
    let taken = answered(&read, "taken");
    each_came_once(&sent, &taken, &client.name());
    in_order(&taken, &client.name());
}

/// Stored messages are found by place, unique id and key.
pub(super) fn sent_is_found(stage: &Stage, client: Client) {
    let topic = Stage::fresh(&client.name());
    let facts = stage.play(client, "look-up", (&topic, "senders"), 3);
    assert_eq!(named(&facts, "found").len(), 3, "{}", client.name());
}

/// Of ten transactions exactly those are delivered that the producer committed, at once or when asked; each once.
pub(super) fn transactions_are_settled(stage: &Stage, client: Client) {
    const COUNT: usize = 10;
    let topic = Stage::fresh(&client.name());
    let producers = Stage::fresh("producers");
    let facts = stage.play(client, "transaction", (&topic, &producers), COUNT);
    let halves = named(&facts, "half");
    assert_eq!(halves.len(), COUNT);
    let committed = facts::committed(&facts);
    assert_eq!(committed.len(), 6, "{}: {committed:?}", client.name());
    if stage.is_ours() {
        asked_only_about_open_ones(&facts, client);
    }
    let group = Stage::fresh("readers");
    let read = stage.play(client, "consume", (&topic, &group), committed.len());
    let mut wanted = halves;
    wanted.retain(|fact| fact.key.as_ref().is_some_and(|key| committed.contains(key)));
    let mut wanted: Vec<Fact> = wanted.into_iter().cloned().collect();
    for fact in &mut wanted {
        // A half message's offset is another than the one it is delivered from.
        fact.offset = None;
    }
    let wanted: Vec<&Fact> = wanted.iter().collect();
    let taken = answered(&read, "taken");
    // A stock server delivers again what is committed again, late answers to check-backs included.
    if stage.is_ours() {
        each_came_once(&wanted, &taken, &client.name());
    } else {
        each_came(&wanted, &taken, &client.name());
    }
}

/// Nobody asks about what was decided at once. About the others a busy client may be asked again before it has answered.
fn asked_only_about_open_ones(facts: &[Fact], client: Client) {
    let checked = named(facts, "checked");
    let mut decided = named(facts, "half");
    decided.retain(|half| half.local.as_deref() != Some("unknown"));
    for half in decided {
        let asked = checked.iter().any(|fact| fact.key == half.key);
        assert!(!asked, "{}: {half:?}", client.name());
    }
}

/// What each client sent, every client reads.
pub(super) fn all_read_what_all_sent(stage: &Stage, clients: &[Client]) {
    let topic = Stage::fresh("everybody");
    let told = at_once(clients, |client| {
        stage.play(client, "send", (&topic, &client.name()), 4)
    });
    let sent: Vec<&Fact> = told.iter().flat_map(|facts| named(facts, "sent")).collect();
    assert_eq!(sent.len(), 4 * clients.len());
    at_once(clients, |client| {
        let group = Stage::fresh(&client.name());
        let facts = stage.play(client, "consume", (&topic, &group), sent.len());
        each_came_once(&sent, &answered(&facts, "taken"), &client.name());
    });
}
