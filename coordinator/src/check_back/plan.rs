//! Whom to ask about an open transaction, and when. Pure: rows, times and who is connected go in, actions come out.

use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::ServerTime;

use crate::engine::ledger::doubled;
use crate::engine::settings::CheckBackSettings;
use crate::store::Row;
use crate::transaction::State;

/// How a sender is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The connection of its process is open since it sent the half message.
    Connected,
    /// Its process has opened a connection after it had sent the half message: another may have been lost, and what it said
    /// over that one with it.
    Back,
    /// It has had no connection for so long. For a process never seen: since the coordinator started.
    GoneFor(Duration),
}

/// A connected producer of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Number of its connection.
    pub connection: u64,
    /// Its process life.
    pub incarnation: u128,
    /// The marker databases it can read.
    pub answers_for: Arc<[u128]>,
    /// Whether it owes so many answers that it is asked nothing more for now.
    pub is_full: bool,
}

/// What was tried for one transaction since the coordinator started. Not durable: a restart begins anew and costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempt {
    /// When it was asked, if no answer has come.
    pub asked_at: Option<ServerTime>,
    /// Number of the connection over which it was asked.
    pub asked_over: u64,
    /// Check-backs that were not answered in time.
    pub unanswered: u32,
    /// Answers *in flight* in a row.
    pub in_flight: u32,
    /// Not to be asked before.
    pub not_before: ServerTime,
    /// An operator wants to know, whether or not it is due.
    pub demanded: bool,
}

impl Attempt {
    /// Takes note of *in flight*: asked again soon, which does not count.
    pub fn answered_in_flight(&mut self, now: ServerTime, settings: &CheckBackSettings) {
        self.asked_at = None;
        self.unanswered = 0;
        self.in_flight = self.in_flight.saturating_add(1);
        let wait = doubled(
            settings.in_flight_first,
            settings.in_flight_longest,
            self.in_flight,
        );
        self.not_before = now.after(wait);
    }

    /// Takes note of UNKNOWN; when to ask next stands in the row.
    pub fn answered_unknown(&mut self) {
        self.asked_at = None;
        self.unanswered = 0;
        self.in_flight = 0;
    }

    /// Gives up waiting for an answer that is overdue; the next one waits longer.
    pub fn expire(&mut self, now: ServerTime, settings: &CheckBackSettings) {
        if let Some(asked_at) = self.asked_at
            && now.since(asked_at) >= settings.answer_within
        {
            self.asked_at = None;
            self.unanswered = self.unanswered.saturating_add(1);
            self.not_before = asked_at.after(doubled(
                settings.first_wait,
                settings.longest_wait,
                self.unanswered,
            ));
        }
    }
}

/// Why a transaction is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its time has come.
    Timer,
    /// The process that sent it has no connection any more.
    SenderGone,
    /// The process that sent it has connected again.
    SenderBack,
    /// An operator wants to know.
    Operator,
}

impl Reason {
    /// The words used in the history.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::SenderGone => "producer gone",
            Self::SenderBack => "producer back",
            Self::Operator => "operator",
        }
    }
}

/// What to do about one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask the member with this incarnation.
    Ask {
        /// Whom.
        incarnation: u128,
        /// Why now.
        reason: Reason,
    },
    /// Nothing now. `until` is when to look again at the latest, if that is known.
    Wait {
        /// When.
        until: Option<ServerTime>,
    },
}

/// Decides about one open transaction whose group has `members` connected.
///
/// The sender itself is asked as long as any connection of its process is open; another member only once the sender has been
/// gone for the grace time, and only one that can read the marker's database. A sender that has connected again is asked at
/// once, since its resolution may have been lost with the connection; if it answers UNKNOWN, the next time is due as ever. A
/// check-back whose connection is gone is not waited for. Without a marker anyone of the group is asked in the sender's place,
/// after the message's immunity, which its `check_at` says. A connection that owes too many answers is passed over.
#[must_use]
pub fn plan(
    now: ServerTime,
    settings: &CheckBackSettings,
    row: &Row,
    attempt: &Attempt,
    sender: Sender,
    members: &[Member],
) -> Action {
    let wait = |until| Action::Wait { until };
    let askable = row.state == State::Prepared || (row.state == State::Parked && attempt.demanded);
    if !askable {
        return wait(None);
    }
    let is_open = || {
        let mut connections = members.iter().map(|member| member.connection);
        connections.any(|connection| connection == attempt.asked_over)
    };
    if let Some(asked_at) = attempt.asked_at.filter(|_| is_open()) {
        return wait(Some(asked_at.after(settings.answer_within)));
    }
    if now < attempt.not_before {
        return wait(Some(attempt.not_before));
    }
    let due = attempt.demanded || row.check_at.is_none_or(|check_at| check_at <= now);
    let with_marker = row.half.marker.is_some();
    let reason = match sender {
        Sender::Connected | Sender::Back if attempt.demanded => Reason::Operator,
        Sender::GoneFor(gone) if attempt.demanded && gone >= settings.grace => Reason::Operator,
        Sender::Back if with_marker && row.checks == 0 => Reason::SenderBack,
        Sender::Connected | Sender::Back if due => Reason::Timer,
        Sender::GoneFor(gone) if gone >= settings.grace && (due || with_marker) => {
            Reason::SenderGone
        }
        Sender::GoneFor(gone) if gone < settings.grace && (due || with_marker) => {
            return wait(Some(now.after(settings.grace - gone)));
        }
        Sender::Connected | Sender::Back | Sender::GoneFor(_) => return wait(row.check_at),
    };
    let answers = |member: &&Member| {
        let marker = row.half.marker;
        !member.is_full && marker.is_none_or(|marker| member.answers_for.contains(&marker.0))
    };
    let own = |member: &&Member| {
        row.half
            .sender
            .is_some_and(|sender| sender.0 == member.incarnation)
    };
    // A process may stay connected without producing for the group any more; a marker it still can read, a listener is gone.
    let left = !with_marker && !members.iter().any(|member| own(&member));
    let chosen = match sender {
        Sender::Connected | Sender::Back if !left => {
            members.iter().find(|member| own(member) && !member.is_full)
        }
        Sender::Connected | Sender::Back | Sender::GoneFor(_) => {
            // After two unanswered check-backs the next one is asked.
            let eligible = members.iter().filter(answers).count();
            let turn = usize::try_from(attempt.unanswered / 2).unwrap_or(usize::MAX);
            turn.checked_rem(eligible)
                .and_then(|index| members.iter().filter(answers).nth(index))
        }
    };
    match chosen {
        Some(member) => Action::Ask {
            incarnation: member.incarnation,
            reason,
        },
        None => wait(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Half;
    use crate::transaction::{Incarnation, MarkerIdentity, TransactionId};
    use mq_core::log::{Position, QueueOffset};
    use mq_core::names::{GroupName, TopicName};

    const SECOND: u64 = 1_000_000;

    fn row(marker: Option<u128>) -> Row {
        Row {
            half: Half {
                id: TransactionId(1),
                position: Position(4096),
                queue_offset: QueueOffset(0),
                group: GroupName::new("g").unwrap(),
                topic: TopicName::new("t").unwrap(),
                body_len: 0,
                prepared_at: ServerTime(SECOND),
                sender: Some(Incarnation(7)),
                marker: marker.map(MarkerIdentity),
            },
            state: State::Prepared,
            decided: None,
            check_at: Some(ServerTime(7 * SECOND)),
            checks: 0,
            repeats: 0,
            contradictions: 0,
            unpublished: None,
            moved_to: None,
        }
    }

    fn member(incarnation: u128, answers_for: &[u128]) -> Member {
        Member {
            connection: incarnation as u64 * 10,
            incarnation,
            answers_for: answers_for.into(),
            is_full: false,
        }
    }

    fn decide(
        now: u64,
        row: &Row,
        attempt: &Attempt,
        sender: Sender,
        members: &[Member],
    ) -> Action {
        plan(
            ServerTime(now),
            &CheckBackSettings::default(),
            row,
            attempt,
            sender,
            members,
        )
    }

    const LONG_GONE: Sender = Sender::GoneFor(Duration::from_secs(60));

    #[test]
    fn the_sender_is_asked_while_it_is_connected_and_nobody_else() {
        let members = [member(8, &[5]), member(7, &[5])];
        let asked = decide(
            8 * SECOND,
            &row(Some(5)),
            &Attempt::default(),
            Sender::Connected,
            &members,
        );
        assert!(
            matches!(
                asked,
                Action::Ask {
                    incarnation: 7,
                    reason: Reason::Timer
                }
            ),
            "{asked:?}"
        );
        let attempt = Attempt {
            unanswered: 9,
            ..Attempt::default()
        };
        let asked = decide(
            8 * SECOND,
            &row(Some(5)),
            &attempt,
            Sender::Connected,
            &members[..1],
        );
        assert_eq!(asked, Action::Wait { until: None });
    }

    #[test]
    fn a_sender_that_has_left_the_group_but_not_the_server_does_not_silence_it() {
        let members = [member(8, &[])];
        let asked = decide(
            8 * SECOND,
            &row(None),
            &Attempt::default(),
            Sender::Connected,
            &members,
        );
        assert!(
            matches!(asked, Action::Ask { incarnation: 8, .. }),
            "{asked:?}"
        );
    }

    #[test]
    fn a_sender_that_is_back_is_asked_at_once_until_it_does_not_know() {
        let members = [member(8, &[5]), member(7, &[5])];
        let plan = |row: &Row| decide(2 * SECOND, row, &Attempt::default(), Sender::Back, &members);
        let asked = Action::Ask {
            incarnation: 7,
            reason: Reason::SenderBack,
        };
        assert_eq!(plan(&row(Some(5))), asked);
        let due = Action::Wait {
            until: Some(ServerTime(7 * SECOND)),
        };
        let mut unknown = row(Some(5));
        unknown.checks = 1;
        assert_eq!(plan(&unknown), due, "its budget is not used up at once");
        assert_eq!(plan(&row(None)), due, "immunity is kept");
    }

    #[test]
    fn a_check_back_whose_connection_is_gone_is_not_waited_for() {
        let members = [member(8, &[5]), member(9, &[5])];
        let plan = |asked_over| {
            let attempt = Attempt {
                asked_at: Some(ServerTime(8 * SECOND)),
                asked_over,
                ..Attempt::default()
            };
            decide(8 * SECOND, &row(Some(5)), &attempt, LONG_GONE, &members)
        };
        let until = Some(ServerTime(9 * SECOND));
        assert_eq!(plan(90), Action::Wait { until });
        let asked = plan(60);
        assert!(
            matches!(asked, Action::Ask { incarnation: 8, .. }),
            "{asked:?}"
        );
    }

    #[test]
    fn another_instance_is_asked_once_the_sender_is_gone_for_the_grace_time() {
        let members = [member(8, &[5])];
        let young = decide(
            2 * SECOND,
            &row(Some(5)),
            &Attempt::default(),
            Sender::GoneFor(Duration::from_millis(100)),
            &members,
        );
        assert_eq!(
            young,
            Action::Wait {
                until: Some(ServerTime(2 * SECOND + 400_000))
            }
        );
        let old = decide(
            2 * SECOND,
            &row(Some(5)),
            &Attempt::default(),
            Sender::GoneFor(Duration::from_millis(500)),
            &members,
        );
        assert!(
            matches!(
                old,
                Action::Ask {
                    incarnation: 8,
                    reason: Reason::SenderGone,
                    ..
                }
            ),
            "{old:?}"
        );
    }

    #[test]
    fn only_who_can_read_the_marker_is_asked() {
        let members = [member(8, &[6]), member(9, &[])];
        assert_eq!(
            decide(
                8 * SECOND,
                &row(Some(5)),
                &Attempt::default(),
                LONG_GONE,
                &members
            ),
            Action::Wait { until: None }
        );
    }

    #[test]
    fn without_a_marker_immunity_is_kept() {
        let members = [member(8, &[])];
        let early = decide(
            2 * SECOND,
            &row(None),
            &Attempt::default(),
            LONG_GONE,
            &members,
        );
        assert_eq!(
            early,
            Action::Wait {
                until: Some(ServerTime(7 * SECOND))
            }
        );
        let late = decide(
            7 * SECOND,
            &row(None),
            &Attempt::default(),
            LONG_GONE,
            &members,
        );
        assert!(
            matches!(late, Action::Ask { incarnation: 8, .. }),
            "{late:?}"
        );
    }

    #[test]
    fn after_two_unanswered_check_backs_the_next_member_is_asked() {
        let members = [member(8, &[5]), member(9, &[5])];
        let whom = |unanswered| {
            let attempt = Attempt {
                unanswered,
                ..Attempt::default()
            };
            match decide(8 * SECOND, &row(Some(5)), &attempt, LONG_GONE, &members) {
                Action::Ask { incarnation, .. } => incarnation,
                Action::Wait { .. } => 0,
            }
        };
        assert_eq!(
            [whom(0), whom(1), whom(2), whom(3), whom(4)],
            [8, 8, 9, 9, 8]
        );
    }

    #[test]
    fn a_connection_that_owes_too_many_answers_is_passed_over_and_still_waited_for() {
        let full = |incarnation| Member {
            is_full: true,
            ..member(incarnation, &[5])
        };
        let ask = |sender, attempt: &Attempt, members: &[Member]| match decide(
            8 * SECOND,
            &row(Some(5)),
            attempt,
            sender,
            members,
        ) {
            Action::Ask { incarnation, .. } => Some(incarnation),
            Action::Wait { .. } => None,
        };
        let nothing = Attempt::default();
        let others = [full(8), member(9, &[5])];
        assert_eq!(ask(LONG_GONE, &nothing, &others), Some(9));
        assert_eq!(ask(LONG_GONE, &nothing, &[full(8), full(9)]), None);
        // Nobody else is asked about what may still run.
        let with_sender = [full(7), member(9, &[5])];
        assert_eq!(ask(Sender::Connected, &nothing, &with_sender), None);
        let second = Member {
            connection: 71,
            ..member(7, &[5])
        };
        let twice = [full(7), second];
        assert_eq!(ask(Sender::Connected, &nothing, &twice), Some(7));
        let asked = Attempt {
            asked_at: Some(ServerTime(8 * SECOND)),
            asked_over: 80,
            ..Attempt::default()
        };
        assert_eq!(ask(LONG_GONE, &asked, &others), None, "asked twice");
    }

    #[test]
    fn in_flight_is_asked_again_soon_and_then_less_often() {
        let settings = CheckBackSettings::default();
        let mut attempt = Attempt::default();
        let mut waits = Vec::new();
        for _ in 0..7 {
            attempt.answered_in_flight(ServerTime(0), &settings);
            waits.push(attempt.not_before.0 / 1000);
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn an_operator_may_ask_about_a_parked_transaction() {
        let members = [member(8, &[5])];
        let mut parked = row(Some(5));
        parked.state = State::Parked;
        assert_eq!(
            decide(
                8 * SECOND,
                &parked,
                &Attempt::default(),
                LONG_GONE,
                &members
            ),
            Action::Wait { until: None }
        );
        let attempt = Attempt {
            demanded: true,
            ..Attempt::default()
        };
        assert!(matches!(
            decide(8 * SECOND, &parked, &attempt, LONG_GONE, &members),
            Action::Ask {
                incarnation: 8,
                reason: Reason::Operator
            }
        ));
    }

    #[test]
    fn an_overdue_answer_counts_as_none_and_the_next_waits_longer() {
        let settings = CheckBackSettings::default();
        let mut attempt = Attempt {
            asked_at: Some(ServerTime(0)),
            ..Attempt::default()
        };
        attempt.expire(ServerTime(SECOND / 2), &settings);
        assert_eq!(attempt.unanswered, 0);
        attempt.expire(ServerTime(SECOND), &settings);
        assert_eq!(
            (attempt.unanswered, attempt.not_before),
            (1, ServerTime(SECOND))
        );
        attempt.asked_at = Some(ServerTime(2 * SECOND));
        attempt.expire(ServerTime(3 * SECOND), &settings);
        assert_eq!(
            (attempt.unanswered, attempt.not_before),
            (2, ServerTime(4 * SECOND))
        );
    }
}
