//! Who is connected, as a level: producers and consumers with their groups, whatever the transport.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::clock::Clock;
pub use crate::membership::{Announcement, ConsumeFrom, Link, Membership, Notice, Subscription};
use crate::names::{GroupName, TopicName};
use crate::wire::reserved;

/// How many process lives that are gone are remembered for [`Clients::last_seen`]; the oldest is forgotten first.
/// Enough for every instance of a large fleet to restart within one grace time; about 1 MiB.
const REMEMBERED: usize = 16_384;

/// One connected producer.
#[derive(Debug, Clone)]
pub struct Client {
    /// Number of its connection; does not repeat while the process lives.
    pub connection: u64,
    /// Client id; ids repeat in containers.
    pub id: Arc<str>,
    /// Its process life; does not repeat.
    pub incarnation: u128,
    /// Identities it can answer questions about.
    pub answers_for: Arc<[u128]>,
    /// The way to it.
    pub link: Arc<dyn Link>,
    /// Who it is, for people: address and client id.
    pub source: Arc<str>,
}

/// The table of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    connections: BTreeMap<u64, Entry>,
    producers: HashMap<GroupName, BTreeSet<u64>>,
    consumers: HashMap<GroupName, BTreeSet<u64>>,
    open: HashMap<u128, Open>,
    gone: Gone,
}

/// The open connections of a process life.
#[derive(Debug, Default)]
struct Open {
    count: usize,
    /// When the newest was opened.
    newest: Duration,
}

#[derive(Debug)]
struct Entry {
    client: Client,
    said: Announcement,
}

/// When process lives lost their last connection, bounded.
#[derive(Debug, Default)]
struct Gone {
    at: HashMap<u128, Duration>,
    oldest_first: VecDeque<(u128, Duration)>,
}

impl Gone {
    fn insert(&mut self, incarnation: u128, now: Duration) {
        self.at.insert(incarnation, now);
        self.oldest_first.push_back((incarnation, now));
        while self.oldest_first.len() > REMEMBERED {
            if let Some((old, at)) = self.oldest_first.pop_front()
                && self.at.get(&old) == Some(&at)
            {
                self.at.remove(&old);
            }
        }
    }
}

impl Clients {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            clock,
            table: Mutex::default(),
            changes: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Registers a connection; it ends when the returned handle is dropped.
    ///
    /// `incarnation` is random and new for each process life. `source` names the client for people and for histories.
    #[must_use = "dropping the connection closes it"]
    pub fn connect(
        &self,
        client_id: impl Into<Arc<str>>,
        incarnation: u128,
        source: impl Into<Arc<str>>,
        link: Arc<dyn Link>,
    ) -> Connection {
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        let client = Client {
            connection: number,
            id: client_id.into(),
            incarnation,
            answers_for: Arc::default(),
            link,
            source: source.into(),
        };
        table.connections.insert(
            number,
            Entry {
                client,
                said: Announcement::default(),
            },
        );
        let open = table.open.entry(incarnation).or_default();
        open.count += 1;
        open.newest = self.shared.clock.monotonic();
        table.gone.at.remove(&incarnation);
        drop(table);
        self.changed();
        Connection {
            shared: Arc::clone(&self.shared),
            number,
        }
    }

    /// The connected producers of a group, in the order they connected.
    #[must_use]
    pub fn producers(&self, group: &GroupName) -> Vec<Client> {
        let table = self.table();
        let numbers = table.producers.get(group).into_iter().flatten();
        numbers
            .filter_map(|number| table.connections.get(number))
            .map(|entry| entry.client.clone())
            .collect()
    }

    /// Every group that a connected client produces for, sorted.
    #[must_use]
    pub fn producer_groups(&self) -> Vec<GroupName> {
        let mut groups: Vec<_> = self.table().producers.keys().cloned().collect();
        groups.sort_unstable();
        groups
    }

    /// Client ids of the connected consumers of a group, sorted, each once.
    #[must_use]
    pub fn members(&self, group: &GroupName) -> Vec<Arc<str>> {
        self.table().members(group)
    }

    /// Whether any member of the group has subscribed, and to what: the announcement of the newest member.
    #[must_use]
    pub fn membership(&self, group: &GroupName) -> Option<Membership> {
        let table = self.table();
        let newest = table.consumers.get(group)?.last()?;
        table
            .connections
            .get(newest)?
            .said
            .consumer_groups
            .iter()
            .find(|m| m.group == *group)
            .cloned()
    }

    /// How long ago (monotonic) the newest open connection of this process life was opened. `None` while none is open.
    #[must_use]
    pub fn connected_for(&self, incarnation: u128) -> Option<Duration> {
        let newest = self.table().open.get(&incarnation)?.newest;
        Some(self.shared.clock.monotonic().saturating_sub(newest))
    }

    /// How long ago (monotonic) the last connection of this process life closed. `None` while one is open, and for lives
    /// never seen or forgotten (the newest 16,384 are remembered).
    #[must_use]
    pub fn last_seen(&self, incarnation: u128) -> Option<Duration> {
        let closed = *self.table().gone.at.get(&incarnation)?;
        Some(self.shared.clock.monotonic().saturating_sub(closed))
    }

    /// A level that changes with every connect, disconnect and changed announcement. Look at the table after reading it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Tells the members of every group that has subscribed to a topic to look at its queues again.
    pub(crate) fn topic_changed(&self, topic: &TopicName) {
        let table = self.table();
        let subscribed = |m: &&Membership| m.subscriptions.iter().any(|s| s.topic == *topic);
        let memberships = table
            .connections
            .values()
            .flat_map(|entry| &entry.said.consumer_groups);
        let groups = memberships
            .filter(subscribed)
            .map(|m| m.group.clone())
            .collect();
        let notices = table.notices(&groups);
        drop(table);
        push(notices);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table()
    }

    fn changed(&self) {
        self.shared.changed();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|generation| *generation += 1);
    }
}

impl Table {
    fn members(&self, group: &GroupName) -> Vec<Arc<str>> {
        let numbers = self.consumers.get(group).into_iter().flatten();
        let ids = numbers
            .filter_map(|number| self.connections.get(number))
            .map(|e| Arc::clone(&e.client.id));
        ids.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Links of the members of groups whose members may have changed, each with its notice.
    fn notices(&self, groups: &BTreeSet<GroupName>) -> Vec<(Arc<dyn Link>, Notice)> {
        let mut notices = Vec::new();
        for group in groups {
            let numbers = self.consumers.get(group).into_iter().flatten();
            for entry in numbers.filter_map(|number| self.connections.get(number)) {
                let fields = vec![("consumerGroup", group.to_string())];
                let notice = Notice {
                    code: reserved::NOTIFY_CONSUMER_IDS_CHANGED,
                    fields,
                    body: Bytes::new(),
                };
                notices.push((Arc::clone(&entry.client.link), notice));
            }
        }
        notices
    }

    /// Replaces what a connection said; returns the consumer groups for which that changed something, and whether
    /// anything changed at all.
    fn say(&mut self, number: u64, said: Announcement) -> (BTreeSet<GroupName>, bool) {
        let Some(entry) = self.connections.get_mut(&number) else {
            return (BTreeSet::new(), false);
        };
        if entry.said == said {
            return (BTreeSet::new(), false);
        }
        entry.client.answers_for = said.answers_for.clone().into();
        let before = std::mem::replace(&mut entry.said, said.clone());
        for group in &before.producer_groups {
            leave(&mut self.producers, group, number);
        }
        for group in said.producer_groups {
            self.producers.entry(group).or_default().insert(number);
        }
        let mut touched = BTreeSet::new();
        for membership in &before.consumer_groups {
            if !said.consumer_groups.contains(membership) {
                touched.insert(membership.group.clone());
            }
            leave(&mut self.consumers, &membership.group, number);
        }
        for membership in said.consumer_groups {
            if !before.consumer_groups.contains(&membership) {
                touched.insert(membership.group.clone());
            }
            self.consumers
                .entry(membership.group)
                .or_default()
                .insert(number);
        }
        (touched, true)
    }
}

fn leave(groups: &mut HashMap<GroupName, BTreeSet<u64>>, group: &GroupName, number: u64) {
    if let Some(members) = groups.get_mut(group) {
        members.remove(&number);
        if members.is_empty() {
            groups.remove(group);
        }
    }
}

/// One open connection. Dropping it disconnects, and tells the members of its consumer groups.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    number: u64,
}

impl Connection {
    /// Says who the client is. When that changes a consumer group, all of its members get notice 40.
    ///
    /// This updates the table only; retry topics and starting offsets of the groups are the broker's to make.
    pub fn announce(&self, announcement: Announcement) {
        let mut table = self.shared.table();
        let (touched, changed) = table.say(self.number, announcement);
        let notices = table.notices(&touched);
        drop(table);
        if changed {
            self.shared.changed();
        }
        push(notices);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        let (touched, _) = table.say(self.number, Announcement::default());
        if let Some(entry) = table.connections.remove(&self.number) {
            let incarnation = entry.client.incarnation;
            let left = table.open.get_mut(&incarnation).map_or(0, |open| {
                open.count -= 1;
                open.count
            });
            if left == 0 {
                table.open.remove(&incarnation);
                let now = self.shared.clock.monotonic();
                table.gone.insert(incarnation, now);
            }
        }
        let notices = table.notices(&touched);
        drop(table);
        self.shared.changed();
        push(notices);
    }
}

fn push(notices: Vec<(Arc<dyn Link>, Notice)>) {
    for (link, notice) in notices {
        // A lost notice costs nothing but time: members look again by themselves.
        link.push(notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[derive(Debug, Default)]
    struct Recorded(Mutex<Vec<String>>);

    impl Link for Recorded {
        fn push(&self, notice: Notice) -> bool {
            assert_eq!(notice.code, 40);
            self.0.lock().unwrap().push(notice.fields[0].1.clone());
            true
        }
    }

    fn group(name: &str) -> GroupName {
        GroupName::new(name).unwrap()
    }

    fn consumer(name: &str) -> Announcement {
        let membership = Membership {
            group: group(name),
            subscriptions: vec![],
            from: ConsumeFrom::First,
            broadcasting: false,
        };
        Announcement {
            consumer_groups: vec![membership],
            ..Announcement::default()
        }
    }

    fn producer(name: &str) -> Announcement {
        Announcement {
            producer_groups: vec![group(name)],
            answers_for: vec![5],
            ..Announcement::default()
        }
    }

    #[test]
    fn any_open_connection_keeps_a_process_life_connected() {
        let clock = Arc::new(ManualClock::new(0));
        let clients = Clients::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let link = Arc::new(Recorded::default());
        let one = clients.connect("same-id", 7, "a", link.clone());
        let two = clients.connect("same-id", 7, "b", link.clone());
        let other = clients.connect("same-id", 8, "c", link.clone());
        drop(one);
        assert!(clients.connected_for(7).is_some());
        assert_eq!(clients.last_seen(7), None);
        drop(two);
        assert_eq!(clients.connected_for(7), None);
        assert!(
            clients.connected_for(8).is_some(),
            "another life with the same client id is not touched"
        );
        clock.advance(Duration::from_millis(400));
        assert_eq!(clients.last_seen(7), Some(Duration::from_millis(400)));
        let _again = clients.connect("same-id", 7, "d", link.clone());
        assert_eq!(clients.last_seen(7), None);
        clock.advance(Duration::from_millis(300));
        let newer = clients.connect("same-id", 7, "e", link);
        clock.advance(Duration::from_millis(100));
        let newest = Some(Duration::from_millis(100));
        assert_eq!(clients.connected_for(7), newest);
        drop(newer);
        assert_eq!(clients.connected_for(7), newest, "what was lost is lost");
        assert_eq!(clients.last_seen(99), None);
        drop(other);
    }

    #[test]
    fn producers_are_listed_while_they_say_so() {
        let clients = Clients::new(Arc::new(ManualClock::new(0)));
        let mut changes = clients.changes();
        let connection = clients.connect("p", 1, "p@test", Arc::new(Recorded::default()));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        connection.announce(producer("orders"));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        connection.announce(producer("orders"));
        assert!(
            !changes.has_changed().unwrap(),
            "the same again changes nothing"
        );
        let listed = clients.producers(&group("orders"));
        assert_eq!(listed.len(), 1);
        assert_eq!(
            (&*listed[0].source, &listed[0].answers_for[..]),
            ("p@test", &[5][..])
        );
        connection.announce(producer("other"));
        assert!(clients.producers(&group("orders")).is_empty());
        drop(connection);
        assert!(clients.producers(&group("other")).is_empty());
    }

    #[test]
    fn members_are_told_when_their_group_changes_and_only_then() {
        let clients = Clients::new(Arc::new(ManualClock::new(0)));
        let link = Arc::new(Recorded::default());
        let one = clients.connect("a", 1, "a", link.clone());
        one.announce(consumer("g"));
        let two = clients.connect("b", 2, "b", Arc::new(Recorded::default()));
        two.announce(consumer("g"));
        two.announce(consumer("g"));
        assert_eq!(clients.members(&group("g")), ["a".into(), "b".into()]);
        assert_eq!(*link.0.lock().unwrap(), ["g", "g"]);
        drop(two);
        assert_eq!(clients.members(&group("g")), ["a".into()]);
        assert_eq!(link.0.lock().unwrap().len(), 3);
    }

    #[test]
    fn the_memory_of_lives_that_are_gone_is_bounded() {
        let clients = Clients::new(Arc::new(ManualClock::new(0)));
        let link: Arc<dyn Link> = Arc::new(Recorded::default());
        for life in 0..=(REMEMBERED as u128) {
            drop(clients.connect("c", life, "c", Arc::clone(&link)));
        }
        assert_eq!(clients.last_seen(0), None);
        assert_eq!(clients.last_seen(1), Some(Duration::ZERO));
        assert!(clients.table().gone.oldest_first.len() <= REMEMBERED);
    }
}
