//! Time that jumps, and people who ask.

use super::*;

pub(super) async fn story_26_a_wall_clock_that_jumps_changes_nothing(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let receipt = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    let before = rig.store.reader().transaction(receipt.id).await.unwrap();
    rig.clock.set_wall_ms(rig.clock.wall_ms() + 4 * 86_400_000);
    let mut rig = rig.killed().await;
    // Another one, whose time has come, is asked about, and this one is not.
    let other = HalfRequest {
        immunity: Some(Duration::ZERO),
        ..rig.request()
    };
    let other = rig.coordinator.half(other).await.unwrap();
    rig.coordinator.write_held().await.unwrap();
    rig.clock.advance(Duration::from_secs(1));
    let (_producer, asked) = rig.connect(8, &[]);
    rig.until("the sweep has looked", async |_| asked.count() > 0)
        .await;
    assert_eq!(asked.take(), [other.position]);
    let row = rig.store.reader().transaction(receipt.id).await.unwrap();
    assert_eq!(row, before);
}

/// An operator rolls back a transaction whose local one is still open.
pub(super) async fn story_31_an_operators_rollback_goes_through_the_marker(stage: Stage) {
    const MARKER: u128 = 5;
    let mut rig = Rig::on(stage).await;
    rig.marker = Some(MARKER);
    let receipt = rig.half().await;
    let rolls_back = rig
        .coordinator
        .decide_for(receipt.id, Decision::RollBack, "ann", false);
    let refused = rolls_back.await;
    assert!(
        matches!(refused, Err(OperateError::NobodyCanAnswer(..))),
        "{refused:?}"
    );
    let (_sender, asked) = rig.connect(7, &[MARKER]);
    let operator = {
        let (coordinator, id) = (rig.coordinator.clone(), receipt.id);
        let rolls_back = async move {
            coordinator
                .decide_for(id, Decision::RollBack, "ann", false)
                .await
        };
        tokio::spawn(rolls_back)
    };
    rig.until("the sender is asked", async |_| asked.count() > 0)
        .await;
    assert_eq!(asked.take(), [receipt.position]);
    assert!(!operator.is_finished());
    // The local transaction committed meanwhile: its marker says so.
    let marker = Resolve {
        actor: Actor::Marker,
        ..says(&receipt, Resolution::Commit)
    };
    let outcome = rig.coordinator.resolve(marker).await;
    assert_eq!(outcome, Ok(Outcome::DecidedNow));
    let outcome = operator.await.unwrap();
    assert!(
        matches!(outcome, Ok(Outcome::AlreadyOtherwise(_))),
        "{outcome:?}"
    );
    assert_eq!(rig.published(), [receipt.id]);
}
