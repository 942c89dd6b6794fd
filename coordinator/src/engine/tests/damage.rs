//! Rows that contradict themselves: whoever meets one says so and stops, rather than leave others waiting without a word.

use super::stage::Stage;
use super::*;

type Rig = rig::Rig<Stage>;

async fn a_row_that_cannot_be_understood_ends_the_process(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let (spoilt, other) = (rig.half().await, rig.half().await);
    rig.coordinator.write_held().await.unwrap();
    rig.store.spoils(spoilt.position).await;
    let _producer = rig.connect(8, &[]);
    rig.clock.advance(Duration::from_secs(10));
    rig.until("it is noticed", async |rig| {
        matches!(rig.coordinator.status().health(), Health::Failed(_))
    })
    .await;
    let Health::Failed(why) = rig.coordinator.status().health() else {
        unreachable!("it stays so");
    };
    let named = why.contains(&spoilt.id.to_string()) && why.contains("a topic is missing");
    assert!(named, "{why}");
    let said = rig
        .coordinator
        .resolve(rig::Rig::says(&other, Resolution::Commit));
    assert!(said.await.is_err(), "nothing is decided any more");
    rig.store.loses_its_writer();
    let again = rig.crash().await.map(|_| ()).unwrap_err();
    assert!(again.contains("damaged"), "{again}");
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_ends_the_process_on_sqlite() {
    a_row_that_cannot_be_understood_ends_the_process(Stage::on_sqlite().await).await;
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_ends_the_process_on_postgres() {
    a_row_that_cannot_be_understood_ends_the_process(Stage::on_postgres().await).await;
}
