//! How far each group has consumed each queue, and what of it is not written yet: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::names::{GroupName, QueueId, TopicName};

/// The offset of one group in one queue.
pub(crate) type GroupOffset = (GroupName, TopicName, u32, u64);

/// Offsets of all groups. A group *knows* a topic once it has subscribed, even before it has an offset in any queue.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    groups: HashMap<GroupName, BTreeMap<TopicName, BTreeMap<u32, u64>>>,
    unwritten: BTreeSet<(GroupName, QueueId)>,
}

impl Offsets {
    pub(crate) fn get(&self, group: &GroupName, queue: &QueueId) -> Option<u64> {
        self.groups
            .get(group)?
            .get(&queue.topic)?
            .get(&queue.queue)
            .copied()
    }

    /// Whether the group has subscribed to the topic, or committed anything in it.
    pub(crate) fn knows(&self, group: &GroupName, topic: &TopicName) -> bool {
        self.groups
            .get(group)
            .is_some_and(|topics| topics.contains_key(topic))
    }

    pub(crate) fn has_group(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    pub(crate) fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// What a consumer says; to be written soon.
    pub(crate) fn commit(&mut self, group: &GroupName, queue: &QueueId, offset: u64) {
        if self.get(group, queue) != Some(offset) {
            self.set(group, &queue.topic, queue.queue, offset);
            self.unwritten.insert((group.clone(), queue.clone()));
        }
    }

    /// What the log says.
    pub(crate) fn set(&mut self, group: &GroupName, topic: &TopicName, queue: u32, offset: u64) {
        self.topic(group, topic).insert(queue, offset);
    }

    /// Where a group starts; an offset that is there already stays.
    pub(crate) fn subscribe(
        &mut self,
        group: &GroupName,
        topic: &TopicName,
        starts: &[(u32, u64)],
    ) {
        let queues = self.topic(group, topic);
        for (queue, start) in starts {
            queues.entry(*queue).or_insert(*start);
        }
    }

    pub(crate) fn forget_topic(&mut self, topic: &TopicName) {
        for topics in self.groups.values_mut() {
            topics.remove(topic);
        }
        self.unwritten.retain(|(_, queue)| queue.topic != *topic);
    }

    pub(crate) fn forget_group(&mut self, group: &GroupName) {
        self.groups.remove(group);
        self.unwritten.retain(|(g, _)| g != group);
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Takes at most `most` of what is to be written.
    pub(crate) fn take_unwritten(&mut self, most: usize) -> Vec<GroupOffset> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((group, queue)) = self.unwritten.pop_first()
        {
            if let Some(offset) = self.get(&group, &queue) {
                taken.push((group, queue.topic, queue.queue, offset));
            }
        }
        taken
    }

    /// Gives back what could not be written.
    pub(crate) fn put_back(&mut self, offsets: Vec<GroupOffset>) {
        let queues = offsets
            .into_iter()
            .map(|(group, topic, queue, _)| (group, QueueId::new(topic, queue)));
        self.unwritten.extend(queues);
    }

    /// Takes back offsets behind the end of their queue: the log has lost what they counted.
    pub(crate) fn clamp(&mut self, end: impl Fn(&QueueId) -> u64) {
        for topics in self.groups.values_mut() {
            for (topic, queues) in topics {
                for (queue, offset) in queues {
                    *offset = (*offset).min(end(&QueueId::new(topic.clone(), *queue)));
                }
            }
        }
    }

    /// Everything: each group with each topic it knows.
    pub(crate) fn all(
        &self,
    ) -> impl Iterator<Item = (&GroupName, &TopicName, &BTreeMap<u32, u64>)> {
        self.groups.iter().flat_map(|(group, topics)| {
            topics
                .iter()
                .map(move |(topic, queues)| (group, topic, queues))
        })
    }

    fn topic(&mut self, group: &GroupName, topic: &TopicName) -> &mut BTreeMap<u32, u64> {
        self.groups
            .entry(group.clone())
            .or_default()
            .entry(topic.clone())
            .or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_written_and_the_newest_value_of_it() {
        let group = GroupName::new("g").unwrap();
        let queue = QueueId::new(TopicName::new("t").unwrap(), 1);
        let mut offsets = Offsets::default();
        assert!(!offsets.knows(&group, &queue.topic));
        offsets.subscribe(&group, &queue.topic, &[(1, 5)]);
        offsets.commit(&group, &queue, 5);
        assert!(!offsets.has_unwritten());
        offsets.commit(&group, &queue, 9);
        offsets.commit(&group, &queue, 7);
        let taken = offsets.take_unwritten(10);
        assert_eq!(taken, [(group.clone(), queue.topic.clone(), 1, 7)]);
        assert!(!offsets.has_unwritten());
        offsets.put_back(taken);
        assert!(offsets.has_unwritten());
        offsets.subscribe(&group, &queue.topic, &[(1, 0), (2, 3)]);
        assert_eq!(
            offsets.get(&group, &queue),
            Some(7),
            "a start never replaces an offset"
        );
        offsets.forget_topic(&queue.topic);
        assert!(!offsets.knows(&group, &queue.topic) && !offsets.has_unwritten());
    }
}
