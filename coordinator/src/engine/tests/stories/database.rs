//! A database that is locked, refuses or stands still.

use super::*;

/// Another process is frozen and holds what every batch needs.
pub(super) async fn story_27_a_lock_that_somebody_holds_delays_decisions_and_loses_nothing(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    let (first, second) = (rig.half().await, rig.half().await);
    let held = rig.store.is_held().await;
    let commits = say(&rig, says(&first, Resolution::Commit)).await;
    rig.until("the database cannot be written", async |rig| {
        matches!(rig.coordinator.status().health(), Health::Waiting(_))
    })
    .await;
    let rolls_back = say(&rig, says(&second, Resolution::RollBack)).await;
    assert!(!commits.is_finished() && !rolls_back.is_finished());
    assert_eq!(rig.published(), []);
    held.let_go().await;
    assert_eq!(commits.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(rolls_back.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(rig.coordinator.status().health(), Health::Running);
    for receipt in [&first, &second] {
        let events = rig.store.reader().events(receipt.id).await.unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
    }
    assert_eq!(rig.published(), [first.id]);
    is_untouched(&rig.store).await;
}

/// Something in a batch is refused by the database itself.
pub(super) async fn story_28_a_batch_with_poison_in_it_costs_only_its_culprit(stage: Stage) {
    const MANY: usize = 20;
    const CULPRIT: usize = 13;
    let mut rig = Rig::on(stage).await;
    rig.store.refuse_poison().await;
    let mut receipts = Vec::new();
    for _ in 0..MANY {
        receipts.push(rig.half().await);
    }
    let first = busy(&mut rig).await;
    let mut saying = Vec::new();
    for (number, receipt) in receipts.iter().enumerate() {
        let mut said = says(receipt, Resolution::Commit);
        if number == CULPRIT {
            said.evidence = POISON.into();
        }
        saying.push(say(&rig, said).await);
    }
    rig.store.goes_on();
    assert_eq!(first.await.unwrap(), Ok(Outcome::DecidedNow));
    for (number, saying) in saying.into_iter().enumerate() {
        let outcome = saying.await.unwrap();
        if number == CULPRIT {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("refused"), "{error}");
        } else {
            assert_eq!(outcome, Ok(Outcome::DecidedNow), "{number}");
        }
    }
    let refused = rig.store.refused();
    assert_eq!(refused.first(), Some(&MANY), "all were in one batch");
    assert_eq!(refused.last(), Some(&1), "the culprit is alone at last");

    let culprit = receipts.remove(CULPRIT);
    assert_eq!(rig.state(&culprit).await, State::Prepared);
    assert_eq!(rig.published().len(), MANY - 1);
    rig.until("the watermark passes it", async |rig| {
        let owner = rig.owner().await;
        owner.watermark > culprit.position && owner.published == owner.last_decision
    })
    .await;
    is_untouched(&rig.store).await;
    let rig = rig.killed().await;
    assert_eq!(rig.coordinator.found().stored, 0);
    assert_eq!(
        rig.resolve(&culprit, Resolution::Commit).await,
        Outcome::DecidedNow,
        "it can still be decided"
    );
    assert_eq!(rig.published().len(), MANY);
}

/// A client that gives one id twice harms itself alone.
pub(super) async fn story_28_a_half_message_with_the_id_of_another_is_given_up_and_everybody_else_goes_on(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    let first = rig.half().await;
    rig.next_id -= 1;
    let twin = rig.half().await;
    let third = rig.half().await;
    assert_eq!(first.id, twin.id);
    assert_eq!(
        rig.resolve(&first, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(rig.state(&third).await, State::Prepared);
    let outcome = rig.resolve(&twin, Resolution::Commit).await;
    assert!(
        matches!(outcome, Outcome::NoSuchHalfMessage { .. }),
        "{outcome:?}"
    );
    assert_eq!(rig.published(), [first.id]);
    // Never written before the process dies: a start finds it in the log.
    rig.next_id -= 1;
    rig.half().await;
    let mut rig = rig.killed().await;
    rig.next_id += 1;
    let last = rig.half().await;
    for receipt in [&last, &third] {
        let outcome = rig.resolve(receipt, Resolution::Commit).await;
        assert_eq!(outcome, Outcome::DecidedNow);
    }
}

pub(super) async fn story_32_new_half_messages_are_busy_when_sql_stands_still_and_nothing_else_is(
    stage: Stage,
) {
    const LIMIT: usize = 64;
    let mut rig = rig_with(stage, |settings| settings.waiting_halves = LIMIT).await;
    let receipt = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    rig.store.passes(0);
    let mut stored = Vec::new();
    for _ in 0..LIMIT + 10 {
        let request = rig.request();
        match rig.coordinator.half(request).await {
            Ok(receipt) => stored.push(receipt),
            Err(HalfError::Busy(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(stored.len(), LIMIT);
    // A minute under load.
    rig.clock.advance(Duration::from_secs(60));
    rig.store.is_waited_for().await;
    let decision = say(&rig, says(&receipt, Resolution::Commit)).await;
    let plain = Producer::attach(&rig.broker);
    let message = Message::builder("news").body("plain").build().unwrap();
    plain.send(message).await.unwrap();
    let request = rig.request();
    let refused = rig.coordinator.half(request).await;
    assert!(matches!(refused, Err(HalfError::Busy(_))), "{refused:?}");
    // One batch was on its way already, the decision is in the next.
    rig.store.passes(2);
    assert_eq!(decision.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(rig.published(), [receipt.id]);
    rig.store.goes_on();
    for receipt in &stored {
        assert_eq!(rig.state(receipt).await, State::Prepared);
    }
    rig.half().await;
    let all = Filter {
        limit: 1000,
        ..Filter::default()
    };
    rig.coordinator.write_held().await.unwrap();
    let rows = rig.store.reader().list(&all).await.unwrap();
    assert_eq!(rows.len(), LIMIT + 2, "whoever was busy has left nothing");
}
