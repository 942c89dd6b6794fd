//! Stories of check-back, told over a log and a store in memory and producers that note what they are asked.

use std::time::Duration;

use mq_core::clock::ServerTime;
use mq_core::log::{Log, Position};

use super::unanswered::MOST;
use crate::client::endpoint::{Endpoint, HalfReceipt, HalfRequest, Outcome, Resolve};
use crate::engine::tests::rig::Rig;
use crate::store::TxStore;
use crate::store::conformance::draft::Draft;
use crate::transaction::{Actor, Decision, Resolution, State, TransactionId};

const MARKER: u128 = 5;

fn answer(receipt: &HalfReceipt, resolution: Resolution) -> Resolve {
    Resolve {
        actor: Actor::Marker,
        evidence: "marker".into(),
        ..Rig::says(receipt, resolution)
    }
}

async fn rig() -> Rig {
    let mut rig = Rig::new().await;
    rig.marker = Some(MARKER);
    rig
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_is_gone_is_asked_about_at_another_instance_within_a_second() {
    let mut rig = rig().await;
    let (sender, _) = rig.connect(7, &[MARKER]);
    let (_other, asked) = rig.connect(8, &[MARKER]);
    let receipt = rig.half().await;
    rig.pass(ms(100)).await;
    drop(sender);
    rig.pass(ms(400)).await;
    assert_eq!(asked.take(), [], "asked within the grace time");
    rig.pass(ms(300)).await;
    assert_eq!(asked.take(), [receipt.position]);
    let outcome = rig
        .coordinator
        .resolve(answer(&receipt, Resolution::Commit))
        .await;
    assert_eq!(outcome, Ok(Outcome::DecidedNow));
    assert_eq!(rig.published(), [receipt.id]);
    let events = rig.store.reader().events(receipt.id).await.unwrap();
    assert!(
        events.last().unwrap().evidence.contains("producer gone"),
        "{events:?}"
    );
    rig.pass(ms(5000)).await;
    assert_eq!(asked.take(), [], "asked about a decided transaction");
}

/// Interleaving 23: the producer is gone before the row is stored; nobody can miss its leaving.
#[tokio::test(start_paused = true)]
async fn a_producer_that_is_gone_before_the_row_is_stored_is_noticed_as_well() {
    let mut rig = rig().await;
    let (sender, _) = rig.connect(7, &[MARKER]);
    let (_other, asked) = rig.connect(8, &[MARKER]);
    rig.pass(ms(2000)).await;
    drop(sender);
    rig.pass(ms(5000)).await;
    let receipt = rig.half().await;
    rig.pass(ms(700)).await;
    assert_eq!(asked.take(), [receipt.position]);
}

/// The same for one that wanted to be left alone for long: its row is due as soon as it is there.
#[tokio::test(start_paused = true)]
async fn a_producer_that_is_gone_before_the_row_is_stored_is_noticed_however_late_its_turn_was() {
    let mut rig = rig().await;
    let (sender, _) = rig.connect(7, &[MARKER]);
    let (_other, asked) = rig.connect(8, &[MARKER]);
    rig.pass(ms(2000)).await;
    drop(sender);
    rig.pass(ms(5000)).await;
    let late = HalfRequest {
        immunity: Some(ms(60_000)),
        ..rig.request()
    };
    let receipt = rig.coordinator.half(late).await.unwrap();
    rig.pass(ms(700)).await;
    assert_eq!(asked.take(), [receipt.position]);
}

/// Interleaving 22: every connection is cut while local transactions are open; the processes live and come back.
#[tokio::test(start_paused = true)]
async fn a_sender_that_comes_back_within_the_grace_time_is_asked_itself() {
    let mut rig = rig().await;
    let (sender, _) = rig.connect(7, &[MARKER]);
    let (_other, others) = rig.connect(8, &[MARKER]);
    let mut receipts = Vec::new();
    for _ in 0..100 {
        receipts.push(rig.half().await);
    }
    rig.pass(ms(200)).await;
    drop(sender);
    rig.pass(ms(400)).await;
    let (_sender, asked) = rig.connect(7, &[MARKER]);
    rig.pass(ms(900)).await;
    assert_eq!(
        others.count(),
        0,
        "somebody else was asked about a healthy producer"
    );
    assert_eq!(asked.take().len(), 100);
    for receipt in &receipts {
        rig.coordinator
            .resolve(answer(receipt, Resolution::InFlight))
            .await
            .unwrap();
    }
    rig.pass(ms(40)).await;
    assert_eq!(asked.count(), 0);
    rig.pass(ms(60)).await;
    assert_eq!(
        asked.take().len(),
        100,
        "in flight is asked again after 50 ms"
    );
    let row = rig
        .store
        .reader()
        .transaction(receipts[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.checks, row.state), (0, State::Prepared));
}

/// Its resolution may have been lost with its connection.
#[tokio::test(start_paused = true)]
async fn a_sender_that_connects_again_is_asked_at_once() {
    let mut rig = rig().await;
    let (sender, _) = rig.connect(7, &[MARKER]);
    let late = HalfRequest {
        immunity: Some(ms(60_000)),
        ..rig.request()
    };
    let receipt = rig.coordinator.half(late).await.unwrap();
    rig.pass(ms(100)).await;
    let (_again, asked) = rig.connect(7, &[MARKER]);
    drop(sender);
    rig.pass(ms(50)).await;
    assert_eq!(asked.take(), [receipt.position]);
    rig.coordinator
        .resolve(answer(&receipt, Resolution::Unknown))
        .await
        .unwrap();
    rig.pass(ms(500)).await;
    assert_eq!(
        asked.take(),
        [],
        "UNKNOWN counts: the next time is due as ever"
    );
    let young = rig.half().await;
    rig.pass(ms(900)).await;
    let asked = asked.take();
    assert!(
        !asked.contains(&young.position),
        "it is sent over this connection"
    );
}

/// Its row is held back in memory while the connection is lost and opened again.
#[tokio::test(start_paused = true)]
async fn a_sender_that_connects_again_before_the_row_is_stored_is_asked_at_once() {
    let mut rig = rig().await;
    let (sender, _) = rig.connect(7, &[MARKER]);
    let late = HalfRequest {
        immunity: Some(ms(60_000)),
        ..rig.request()
    };
    let receipt = rig.coordinator.half(late).await.unwrap();
    rig.pass(ms(10)).await;
    drop(sender);
    let (_again, asked) = rig.connect(7, &[MARKER]);
    rig.pass(ms(20)).await;
    assert_eq!(asked.take(), [], "there is no row yet");
    rig.pass(ms(100)).await;
    assert_eq!(asked.take(), [receipt.position]);
}

/// Whoever was asked is killed before it answers.
#[tokio::test(start_paused = true)]
async fn a_check_back_that_is_lost_with_its_connection_is_made_again_elsewhere() {
    let mut rig = rig().await;
    let receipt = rig.half().await;
    rig.pass(ms(1000)).await;
    let (first, asked) = rig.connect(8, &[MARKER]);
    let (_other, others) = rig.connect(9, &[MARKER]);
    rig.pass(ms(50)).await;
    assert_eq!(
        (asked.take(), others.take()),
        (vec![receipt.position], vec![])
    );
    drop(first);
    rig.pass(ms(50)).await;
    assert_eq!(others.take(), [receipt.position]);
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_comes_back_is_asked_at_once_about_its_former_life() {
    let mut rig = rig().await;
    let (sender, _) = rig.connect(7, &[MARKER]);
    let receipt = rig.half().await;
    drop(sender);
    rig.pass(ms(60_000)).await;
    let (_again, asked) = rig.connect(70, &[MARKER]);
    rig.pass(ms(100)).await;
    assert_eq!(asked.take(), [receipt.position]);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_coordinator_open_transactions_are_asked_about() {
    let mut rig = rig().await;
    let receipt = rig.half().await;
    let rig = rig.crash().await.unwrap();
    let (_other, asked) = rig.connect(8, &[MARKER]);
    rig.pass(ms(300)).await;
    assert_eq!(asked.count(), 0, "the sender had no time to come back");
    rig.pass(ms(500)).await;
    assert_eq!(asked.take(), [receipt.position]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_read_the_marker_is_never_asked() {
    let mut rig = rig().await;
    let (_stranger, asked) = rig.connect(8, &[6]);
    rig.half().await;
    rig.pass(ms(30_000)).await;
    assert_eq!(asked.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn checks_that_nobody_answers_cost_nothing() {
    let mut rig = rig().await;
    let (_silent, asked) = rig.connect(8, &[MARKER]);
    let receipt = rig.half().await;
    rig.pass(ms(1000)).await;
    let end = rig.broker.log().range().end;
    let seq = rig.store.reader().owner().await.unwrap().unwrap().seq;
    rig.pass(ms(1_200_000)).await;
    assert!(asked.count() > 16, "asked only {} times", asked.count());
    assert!(
        asked.count() < 60,
        "asked {} times in 20 minutes",
        asked.count()
    );
    let row = rig
        .store
        .reader()
        .transaction(receipt.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.state, row.checks), (State::Prepared, 0));
    assert_eq!(
        rig.broker.log().range().end,
        end,
        "a check-back wrote into the log"
    );
    assert_eq!(
        rig.store.reader().owner().await.unwrap().unwrap().seq,
        seq,
        "a check-back wrote into SQL"
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_answers_use_up_the_budget_and_a_parked_transaction_can_still_be_committed_once() {
    let mut rig = rig().await;
    let (_other, asked) = rig.connect(8, &[MARKER]);
    let receipt = rig.half().await;
    for check in 0..15 {
        while asked.count() == 0 {
            rig.pass(ms(500)).await;
        }
        asked.take();
        assert_eq!(
            rig.state(&receipt).await,
            State::Prepared,
            "parked after {check} answers"
        );
        rig.coordinator
            .resolve(answer(&receipt, Resolution::Unknown))
            .await
            .unwrap();
    }
    assert_eq!(rig.state(&receipt).await, State::Parked);
    rig.pass(ms(120_000)).await;
    assert_eq!(asked.count(), 0, "a parked transaction was asked about");
    assert_eq!(
        rig.resolve(&receipt, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(
        rig.resolve(&receipt, Resolution::Commit).await,
        Outcome::AlreadyTheSame
    );
    assert_eq!(rig.published(), [receipt.id]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_that_nobody_asked_for_does_not_count() {
    let mut rig = rig().await;
    let receipt = rig.half().await;
    for _ in 0..20 {
        rig.coordinator
            .resolve(answer(&receipt, Resolution::Unknown))
            .await
            .unwrap();
    }
    assert_eq!(rig.state(&receipt).await, State::Prepared);
}

/// Two listeners of one process answer one question, or the answer comes twice.
#[tokio::test(start_paused = true)]
async fn an_unknown_behind_an_answer_that_it_is_in_flight_does_not_count() {
    let mut rig = rig().await;
    let receipt = rig.half().await;
    rig.pass(ms(1000)).await;
    let (_other, asked) = rig.connect(8, &[MARKER]);
    rig.pass(ms(50)).await;
    assert_eq!(asked.take(), [receipt.position]);
    for resolution in [Resolution::InFlight, Resolution::Unknown] {
        rig.coordinator
            .resolve(answer(&receipt, resolution))
            .await
            .unwrap();
    }
    let row = rig.store.reader().transaction(receipt.id).await.unwrap();
    assert_eq!(row.unwrap().checks, 0);
}

/// Interleaving 8 of a plain listener, and interleaving 26: only server time makes anything due.
#[tokio::test(start_paused = true)]
async fn without_a_marker_nobody_is_asked_before_the_immunity_is_over_whatever_the_wall_clock_says()
{
    let mut rig = Rig::new().await;
    let (_other, asked) = rig.connect(8, &[]);
    rig.half().await;
    rig.clock.set_wall_ms(2_000_000_000_000);
    rig.pass(ms(5500)).await;
    assert_eq!(asked.count(), 0);
    rig.pass(ms(1000)).await;
    assert_eq!(asked.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_open_transactions_of_a_dead_group_delay_nobody_else() {
    let mut rig = rig().await;
    for _ in 0..5000 {
        rig.half().await;
    }
    rig.pass(ms(200)).await;
    rig.marker = Some(6);
    let receipt = rig.half().await;
    let (_other, asked) = rig.connect(8, &[6]);
    rig.pass(ms(1200)).await;
    assert_eq!(asked.take(), [receipt.position]);
}

/// Interleaving 24: it swallows whatever it is asked.
#[tokio::test(start_paused = true)]
async fn a_connection_that_owes_many_answers_is_asked_no_more_until_it_answers() {
    const MORE: usize = 300;
    let mut rig = rig().await;
    let (silent, swallowed) = rig.connect(8, &[MARKER]);
    let mut receipts = Vec::new();
    for _ in 0..MOST + MORE {
        receipts.push(rig.half().await);
    }
    rig.pass(ms(900)).await;
    let asked = swallowed.take();
    assert_eq!(asked.len(), MOST, "nobody else can be asked");
    // Those who answer are asked the rest, and only that.
    let (_other, others) = rig.connect(9, &[MARKER]);
    rig.pass(ms(50)).await;
    let mut rest = others.take();
    rest.sort_unstable();
    let left: Vec<_> = receipts.iter().map(|receipt| receipt.position).collect();
    assert_eq!(rest.len(), MORE);
    assert!(rest.iter().all(|position| !asked.contains(position)));
    assert!(rest.iter().all(|position| left.contains(position)));
    for receipt in &receipts {
        let row = rig.store.reader().transaction(receipt.id).await.unwrap();
        assert_eq!(row.unwrap().checks, 0);
    }
    drop(silent);
}

/// The sender itself is asked again as soon as it has answered some, and nobody else meanwhile.
#[tokio::test(start_paused = true)]
async fn a_connection_that_answers_is_asked_about_the_rest_at_once() {
    let mut rig = rig().await;
    let mut receipts = Vec::new();
    for _ in 0..2 * MOST {
        receipts.push(rig.half().await);
    }
    rig.pass(ms(1000)).await;
    let (_back, asked) = rig.connect(8, &[MARKER]);
    rig.pass(ms(50)).await;
    let first = asked.take();
    assert_eq!(first.len(), MOST);
    for receipt in receipts.iter().filter(|r| first.contains(&r.position)) {
        let outcome = rig.resolve(receipt, Resolution::Commit).await;
        assert_eq!(outcome, Outcome::DecidedNow);
    }
    rig.pass(ms(50)).await;
    let second = asked.take();
    assert_eq!(second.len(), MOST, "it has answered");
    assert!(second.iter().all(|position| !first.contains(position)));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_once_a_decision_is_answered_however_long_the_database_took() {
    let mut rig = Rig::new().await;
    let (_producer, asked) = rig.connect(8, &[]);
    let receipt = rig.half().await;
    rig.pass(ms(6500)).await;
    assert_eq!(asked.take(), [receipt.position]);
    rig.store.stall(true);
    let decided = {
        let (coordinator, commit) = (
            rig.coordinator.clone(),
            Rig::says(&receipt, Resolution::Commit),
        );
        tokio::spawn(async move { coordinator.resolve(commit).await })
    };
    // The row is undecided and due for whoever reads it now.
    rig.pass(ms(2500)).await;
    assert_eq!(asked.take(), [], "asked while it is being decided");
    rig.pass(ms(60_000)).await;
    rig.store.stall(false);
    assert_eq!(decided.await.unwrap(), Ok(Outcome::DecidedNow));
    asked.take();
    rig.pass(ms(200_000)).await;
    assert_eq!(asked.take(), [], "asked about a decided transaction");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_counts_once_and_is_not_asked_for_again_while_it_is_written() {
    let mut rig = rig().await;
    let (_other, asked) = rig.connect(8, &[MARKER]);
    let receipt = rig.half().await;
    rig.pass(ms(1000)).await;
    assert_eq!(asked.take(), [receipt.position]);
    rig.store.stall(true);
    let answers: Vec<_> = (0..2)
        .map(|_| {
            let coordinator = rig.coordinator.clone();
            let unknown = answer(&receipt, Resolution::Unknown);
            tokio::spawn(async move { coordinator.resolve(unknown).await })
        })
        .collect();
    rig.pass(ms(2500)).await;
    assert_eq!(
        asked.take(),
        [],
        "asked again before the answer was written"
    );
    rig.store.stall(false);
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Ok(Outcome::Noted));
    }
    let row = rig.store.reader().transaction(receipt.id).await;
    assert_eq!(row.unwrap().unwrap().checks, 1);
    rig.pass(ms(3000)).await;
    assert!(asked.count() > 0, "its next turn has come");
}

#[tokio::test(start_paused = true)]
async fn a_forced_decision_is_recorded_as_such() {
    let mut rig = rig().await;
    let receipt = rig.half().await;
    let outcome = rig
        .coordinator
        .decide_for(receipt.id, Decision::RollBack, "ann", true)
        .await;
    assert_eq!(outcome, Ok(Outcome::DecidedNow));
    let events = rig.store.reader().events(receipt.id).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.actor, &*last.source), (Actor::OperatorForced, "ann"));
    assert_eq!(rig.published(), []);
}

/// A half-open connection swallows check-backs while the process is connected again.
#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_answer_gives_way_to_another_of_the_same_process() {
    let mut rig = rig().await;
    let (_old, old) = rig.connect(7, &[MARKER]);
    let (_new, new) = rig.connect(7, &[MARKER]);
    rig.half().await;
    rig.pass(ms(12_000)).await;
    assert!(
        new.count() >= 2 && old.count() >= 1,
        "asked {} and {} times",
        new.count(),
        old.count()
    );
}

/// As after damage: its row names a place at which the log has no record.
#[tokio::test(start_paused = true)]
async fn a_row_whose_half_message_cannot_be_read_holds_nobody_up() {
    let mut rig = rig().await;
    let receipt = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    let good = rig.store.reader().transaction(receipt.id).await;
    let good = good.unwrap().unwrap();
    let (clock, log, store) = (rig.clock.clone(), rig.log.clone(), rig.store.clone());
    drop(rig);
    let (writer, owner) = store.take_over(log.id()).await.unwrap();
    let mut draft = Draft::continued(writer, owner);
    let mut poisoned = good.clone();
    poisoned.half.id = TransactionId(99);
    poisoned.half.position = Position(receipt.position.0 + 1);
    poisoned.check_at = Some(ServerTime(0));
    draft.new.push(poisoned);
    draft.commit().await.unwrap();
    let rig = Rig::over(clock, log, store).await.unwrap();
    let (_other, asked) = rig.connect(8, &[MARKER]);
    rig.pass(ms(1500)).await;
    let asked = asked.take();
    assert!(!asked.is_empty(), "nobody is asked");
    assert!(asked.iter().all(|position| *position == receipt.position));
}
