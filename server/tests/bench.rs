//! `halfmoon bench server` on Postgres: where it decides, what it says of that, and what it leaves.

use std::process::{Command, Stdio};
use std::time::Duration;

use coordinator::store::postgres::{Options, open_reader};
use serde_json::Value;

/// How many transactions were decided in the database of `url`; none where it is not there, or not ready.
async fn decided(url: &str) -> u64 {
    let Ok(reader) = open_reader(url, Options::default()).await else {
        return 0;
    };
    match reader.owner().await {
        Ok(Some(owner)) => owner.last_decision,
        Ok(None) | Err(_) => 0,
    }
}

#[tokio::test]
async fn a_server_that_is_measured_on_postgres_decides_there_and_its_database_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let url = private_postgres::url();
    let arguments = [
        "bench",
        "server",
        "--json",
        "--seconds",
        "1",
        "--only",
        "half-commit",
        "--connections",
        "2",
        "--in-flight",
        "4",
        "--postgres",
        url,
    ];
    let mut bench = Command::new(env!("CARGO_BIN_EXE_halfmoon"))
        .args(arguments)
        .arg("--data")
        .arg(&work)
        .env_remove("HALFMOON_DATABASE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let name = format!("/halfmoon_bench_{}?", bench.id());
    let of_the_bench = url.replacen("/postgres?", &name, 1);
    assert_ne!(url, of_the_bench);
    let mut most = 0;
    while bench.try_wait().unwrap().is_none() {
        most = decided(&of_the_bench).await.max(most);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let output = bench.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(most > 0, "nothing was decided in Postgres");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = &report["runs"][0];
    assert_eq!(run["store"], "postgres");
    assert!(run["per_second"].as_f64().unwrap() > 0.0, "{run}");
    let gone = open_reader(&of_the_bench, Options::default()).await;
    let why = gone.unwrap_err().to_string();
    assert!(why.contains("does not exist"), "{why}");
    assert!(!work.exists());
}
