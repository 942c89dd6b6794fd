//! Who of a group reads which queue: pure functions that every member computes alike, as RocketMQ's clients do.

/// How queues are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Neighbouring queues go to the same member (RocketMQ `AllocateMessageQueueAveragely`).
    #[default]
    Averagely,
    /// One queue each in turn (`AllocateMessageQueueAveragelyByCircle`).
    ByCircle,
}

/// The share of `me` of `queues`, both they and `members` sorted. Nothing for someone who is no member.
///
/// The shares of all members together are all queues, each once, and differ by at most one.
#[must_use]
pub fn share<'a, Q, M: PartialEq>(
    sharing: Sharing,
    queues: &'a [Q],
    members: &[M],
    me: &M,
) -> Vec<&'a Q> {
    let Some(index) = members.iter().position(|member| member == me) else {
        return Vec::new();
    };
    match sharing {
        Sharing::Averagely => {
            let (each, more) = (queues.len() / members.len(), queues.len() % members.len());
            // The first `more` members have one queue more than the others.
            let start = index * each + index.min(more);
            let count = each + usize::from(index < more);
            queues.iter().skip(start).take(count).collect()
        }
        Sharing::ByCircle => queues.iter().skip(index).step_by(members.len()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_are_those_of_rocketmq() {
        let queues = [0, 1, 2, 3, 4, 5, 6, 7];
        let members = ["a", "b", "c"];
        let averagely = |me| share(Sharing::Averagely, &queues, &members, me);
        assert_eq!(
            (averagely(&"a"), averagely(&"b"), averagely(&"c")),
            (vec![&0, &1, &2], vec![&3, &4, &5], vec![&6, &7])
        );
        let by_circle = |me| share(Sharing::ByCircle, &queues, &members, me);
        assert_eq!(
            (by_circle(&"a"), by_circle(&"c")),
            (vec![&0, &3, &6], vec![&2, &5])
        );
        assert!(averagely(&"stranger").is_empty());
    }

    proptest! {
        #[test]
        fn every_queue_has_one_reader(queues in 0..40_usize, members in 1..12_usize) {
            let queues: Vec<usize> = (0..queues).collect();
            let members: Vec<usize> = (0..members).collect();
            for sharing in [Sharing::Averagely, Sharing::ByCircle] {
                let shares: Vec<Vec<&usize>> =
                    members.iter().map(|me| share(sharing, &queues, &members, me)).collect();
                let mut all: Vec<usize> = shares.iter().flatten().map(|queue| **queue).collect();
                all.sort_unstable();
                prop_assert_eq!(&all, &queues);
                let sizes = shares.iter().map(Vec::len);
                prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            }
        }
    }
}
