//! The examples `split_services` and `split_sharded` as users run them: processes that are killed and started again, and
//! books that add up.

use std::path::Path;
use std::time::Duration;

use mq_core::clock::{Clock, SystemClock};
use tests::process::{Ended, Kill, Program, pause};
use tests::server::Plan;

const SPLIT: &str = env!("CARGO_BIN_EXE_split_shop");
const SHARDED: &str = env!("CARGO_BIN_EXE_split_sharded_shop");

/// Much longer than a run takes; what hangs is found by the example itself.
const LIMIT: Duration = Duration::from_secs(1_500);

/// How long processes may take to see that whoever started them is gone.
const GONE_WITHIN: Duration = Duration::from_secs(60);

fn run(program: &str, arguments: &[&str], kill: &Kill) -> Ended {
    let mut program = Program::new(program).limit(LIMIT);
    for argument in arguments {
        program = program.argument(*argument);
    }
    program.run(kill).expect("it runs and ends in time")
}

/// Runs it with kills; prints who decided, how many and how fast, for whoever runs the tests to read.
fn killed_at_random_moments(program: &str, orders: &str, kills: &str, more: &[&str]) {
    let mut arguments = vec!["--orders", orders, "--kills", kills, "--seed", "7"];
    arguments.extend(more);
    let ended = run(program, &arguments, &Kill::Never);
    assert!(ended.status.success(), "{}", ended.told());
    let line = ended.last_line();
    let wanted = format!("reconciled {orders} orders");
    assert!(
        line.starts_with(&wanted) && line.ends_with("17 of 17 checks: all adds up"),
        "{}",
        ended.told()
    );
    let killed = ended
        .errors
        .iter()
        .filter(|line| line.starts_with("killed "));
    assert_eq!(killed.count().to_string(), kills, "{}", ended.told());
    let table = ended.output.iter().take_while(|line| !line.is_empty());
    println!("{}", table.cloned().collect::<Vec<_>>().join("\n"));
}

/// How many orders and kills: the long form is for whoever has an hour.
fn measure(orders: &'static str, kills: &'static str) -> (&'static str, &'static str) {
    match std::env::var_os("HALFMOON_FULL") {
        Some(_) => ("2000", "500"),
        None => (orders, kills),
    }
}

#[test]
fn services_that_are_killed_at_random_moments_agree_in_the_end() {
    let (orders, kills) = measure("200", "20");
    killed_at_random_moments(SPLIT, orders, kills, &[]);
}

#[test]
fn services_with_sharded_databases_agree_in_the_end() {
    let (orders, kills) = measure("150", "10");
    killed_at_random_moments(SHARDED, orders, kills, &[]);
}

#[tokio::test]
async fn on_postgres_services_that_are_killed_at_random_moments_agree_in_the_end() {
    let (orders, kills) = measure("150", "15");
    let url = private_postgres::url_of(&private_postgres::database().await);
    killed_at_random_moments(SPLIT, orders, kills, &["--postgres", &url]);
}

#[tokio::test]
async fn on_postgres_services_with_sharded_databases_agree_in_the_end() {
    let (orders, kills) = measure("100", "10");
    let url = private_postgres::url_of(&private_postgres::database().await);
    killed_at_random_moments(SHARDED, orders, kills, &["--postgres", &url]);
}

#[test]
fn all_that_is_killed_at_once_goes_on_where_it_was_and_nothing_is_left_running() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    let data = data.to_str().expect("it is UTF-8");
    let arguments = ["--orders", "120", "--kills", "3", "--data", data];
    let ended = run(SPLIT, &arguments, &Kill::WhenItSays("killed ".into()));
    assert!(ended.killed, "{}", ended.told());
    let clock = SystemClock::new();
    let start = clock.monotonic();
    loop {
        let left = running_over(data);
        if left.is_empty() {
            break;
        }
        let taken = clock.monotonic().saturating_sub(start);
        assert!(taken < GONE_WITHIN, "after {taken:?} there are {left:?}");
        pause(Duration::from_millis(20));
    }
    let ended = run(SPLIT, &arguments, &Kill::Never);
    assert!(ended.status.success(), "{}", ended.told());
    assert!(
        ended.last_line().starts_with("reconciled 120 orders"),
        "{}",
        ended.told()
    );
}

#[test]
fn services_that_are_started_by_hand_at_once_share_an_empty_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Plan::of(env!("CARGO_BIN_EXE_server")).start();
    let server = server.expect("the server starts");
    let service = |name: &str| {
        let service = Program::new(SHARDED).argument(name);
        let service = service.argument("--data").argument(folder.path());
        let service = service.argument("-n").argument(server.nameserver());
        let service = match name {
            "order" => service.argument("--listen").argument("127.0.0.1:0"),
            _ => service,
        };
        service.spawn().expect("it can be started")
    };
    let services = ["stock", "payment", "order", "order", "order"].map(service);
    for service in &services {
        let is_ready = |said: &[String]| said.iter().any(|line| line.starts_with("ready"));
        assert!(service.hears(LIMIT, is_ready), "{}", service.told());
    }
}

/// The command lines of all processes of this machine that name `folder`.
fn running_over(folder: &str) -> Vec<String> {
    let processes = Path::new("/proc")
        .read_dir()
        .expect("Linux tells of its processes");
    let lines = processes.flatten().filter_map(|process| {
        // Whoever has ended meanwhile has none.
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(folder)).collect()
}

#[test]
fn a_process_that_runs_is_seen() {
    let own = std::env::args().next().expect("it was started by a name");
    assert!(!running_over(&own).is_empty());
}
