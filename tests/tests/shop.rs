//! The example `one_process`, killed at random moments: its own books add up in the end, and the checker agrees.

use std::path::Path;
use std::time::Duration;

use tests::checker::{Phase, check, folder, tables};
use tests::process::{Ended, Kill, Program, moments};

fn shop(data: &Path, kill: &Kill) -> Ended {
    let program = Program::new(env!("CARGO_BIN_EXE_shop"))
        .argument("--data")
        .argument(data)
        .argument("--orders")
        .argument("300")
        .limit(Duration::from_secs(180));
    program.run(kill).expect("the shop runs and ends in time")
}

async fn judge(data: &Path, phase: Phase, after: &str) {
    let mut world = folder::read(data)
        .await
        .expect("log and database are whole");
    let shops = std::fs::read_dir(data.join("shops"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in shops.filter(|entry| entry.file_name().to_string_lossy().ends_with(".db")) {
        // A database without the marker table was killed too early to matter.
        if let Ok(database) = tables::markers(&entry.path(), None).await {
            world.databases.push(database);
        }
    }
    let report = check(&world, phase);
    assert!(report.is_clean(), "after {after}, {phase:?}: {report}");
}

#[tokio::test]
async fn a_shop_that_is_killed_at_random_moments_adds_up() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    let (seed, count) = if std::env::var_os("HALFMOON_FULL").is_some() {
        (2, 50)
    } else {
        (1, 5)
    };
    let mut killed = 0;
    for kill in moments(
        seed,
        count,
        Duration::from_millis(100),
        Duration::from_millis(1_500),
    ) {
        let ended = shop(&data, &kill);
        assert!(ended.killed || ended.status.success(), "{}", ended.told());
        killed += usize::from(ended.killed);
        judge(&data, Phase::Anytime, &format!("{kill:?}")).await;
    }
    assert!(killed > count / 3, "it was over before it could be killed");
    let ended = shop(&data, &Kill::Never);
    assert!(ended.status.success(), "{}", ended.told());
    judge(&data, Phase::Healed, "the last run").await;
}
