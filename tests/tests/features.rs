//! What a program compiles that takes only a part of the coordinator.

use std::process::Command;

/// The packages that `coordinator` with these features needs to run.
fn packages(features: &str) -> Vec<String> {
    let name = |line: &str| line.split(' ').next().map(str::to_owned);
    tree(features, "{p}").lines().filter_map(name).collect()
}

/// What `coordinator` with these features needs to run, one package a line, written like `format`.
fn tree(features: &str, format: &str) -> String {
    let cargo = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--package",
            "coordinator",
            "--edges",
            "normal",
            "--format",
            format,
            "--prefix",
            "none",
        ])
        .args(["--no-default-features", "--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be run");
    let said = String::from_utf8_lossy(&cargo.stderr).into_owned();
    assert!(cargo.status.success(), "{said}");
    String::from_utf8_lossy(&cargo.stdout).into_owned()
}

#[test]
fn a_service_on_postgres_compiles_no_sqlite_no_scheduler_no_console_and_no_command_line() {
    let packages = packages("client,postgres");
    for wanted in ["coordinator", "mq-core", "sqlx-postgres"] {
        assert!(packages.iter().any(|name| name == wanted), "{wanted}");
    }
    for refused in [
        "sqlx-sqlite",
        "libsqlite3-sys",
        "sqlx-mysql",
        "tokio-cron-scheduler",
        "axum",
        "clap",
        "rustls",
    ] {
        assert!(!packages.iter().any(|name| name == refused), "{refused}");
    }
}

#[test]
fn a_service_compiles_no_broker() {
    let of_mq_core = |features| {
        let tree = tree(features, "{p}: {f}");
        let line = tree.lines().find(|line| line.starts_with("mq-core "));
        line.and_then(|line| line.split(": ").nth(1).map(str::to_owned))
    };
    assert_eq!(of_mq_core("client,postgres").as_deref(), Some("client"));
    assert_eq!(
        of_mq_core("engine,postgres").as_deref(),
        Some("client,engine")
    );
}

#[test]
fn a_coordinator_on_sqlite_compiles_no_postgres() {
    let packages = packages("engine,sqlite");
    assert!(packages.iter().any(|name| name == "tokio-cron-scheduler"));
    assert!(!packages.iter().any(|name| name == "sqlx-postgres"));
}
