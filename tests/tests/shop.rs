//! The example `one_process`, killed at random moments: its own books add up in the end, and the checker agrees.

use std::path::Path;
use std::time::Duration;

use examples::one_process::LAYOUT;
use tests::checker::source::Source;
use tests::checker::{Phase, check, folder, tables};
use tests::process::{Ended, Kill, Program, moments};

fn shop(data: &Path, postgres: Option<&str>, kill: &Kill) -> Ended {
    let mut program = Program::new(env!("CARGO_BIN_EXE_shop"))
        .argument("--data")
        .argument(data)
        .argument("--orders")
        .argument("300")
        .limit(Duration::from_secs(600));
    if let Some(url) = postgres {
        program = program.argument("--postgres").argument(url);
    }
    program.run(kill).expect("the shop runs and ends in time")
}

/// Every database of a service that there is.
fn sources(data: &Path, postgres: Option<&str>) -> Vec<Source> {
    if let Some(url) = postgres {
        let names = LAYOUT.names().map(|(name, _)| Source::schema(url, &name));
        return names.collect();
    }
    let shops = std::fs::read_dir(data.join("shops"));
    let files = shops.into_iter().flatten().flatten();
    let files = files.filter(|entry| entry.file_name().to_string_lossy().ends_with(".db"));
    files.map(|entry| Source::File(entry.path())).collect()
}

async fn judge(data: &Path, postgres: Option<&str>, phase: Phase, after: &str) {
    let world = match postgres {
        None => folder::read(data).await,
        Some(url) => folder::read_with_postgres(data, url).await,
    };
    let mut world = world.expect("log and database are whole");
    for source in sources(data, postgres) {
        // A database without the marker table was killed too early to matter.
        if let Ok(database) = tables::markers(&source, None).await {
            world.databases.push(database);
        }
    }
    if phase == Phase::Healed {
        assert_eq!(world.databases.len(), LAYOUT.names().count());
    }
    let report = check(&world, phase);
    assert!(report.is_clean(), "after {after}, {phase:?}: {report}");
}

async fn killed_at_random_moments(postgres: Option<&str>, count: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    let seed = if full() { 2 } else { 1 };
    let mut killed = 0;
    for kill in moments(
        seed,
        count,
        Duration::from_millis(100),
        Duration::from_millis(1_500),
    ) {
        let ended = shop(&data, postgres, &kill);
        assert!(ended.killed || ended.status.success(), "{}", ended.told());
        killed += usize::from(ended.killed);
        judge(&data, postgres, Phase::Anytime, &format!("{kill:?}")).await;
    }
    assert!(killed > count / 3, "it was over before it could be killed");
    let ended = shop(&data, postgres, &Kill::Never);
    assert!(ended.status.success(), "{}", ended.told());
    judge(&data, postgres, Phase::Healed, "the last run").await;
}

fn full() -> bool {
    std::env::var_os("HALFMOON_FULL").is_some()
}

#[tokio::test]
async fn a_shop_that_is_killed_at_random_moments_adds_up() {
    killed_at_random_moments(None, if full() { 25 } else { 3 }).await;
}

#[tokio::test]
async fn on_postgres_a_shop_that_is_killed_at_random_moments_adds_up() {
    let database = private_postgres::database().await;
    let url = private_postgres::url_of(&database);
    killed_at_random_moments(Some(&url), if full() { 25 } else { 3 }).await;
}
