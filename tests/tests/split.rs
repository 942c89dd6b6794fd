//! The example `split_services` as a user runs it: processes that are killed and started again, and books that add up.

use std::time::Duration;

use tests::process::{Ended, Kill, Program};

/// Much longer than a run takes; what hangs is found by the example itself.
const LIMIT: Duration = Duration::from_secs(1_500);

fn run(arguments: &[&str], kill: &Kill) -> Ended {
    let mut program = Program::new(env!("CARGO_BIN_EXE_split_shop")).limit(LIMIT);
    for argument in arguments {
        program = program.argument(*argument);
    }
    program.run(kill).expect("it runs and ends in time")
}

#[test]
fn services_that_are_killed_at_random_moments_agree_in_the_end() {
    let (orders, kills) = if std::env::var_os("HALFMOON_FULL").is_some() {
        ("2000", "500")
    } else {
        ("200", "20")
    };
    let ended = run(
        &["--orders", orders, "--kills", kills, "--seed", "7"],
        &Kill::Never,
    );
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
    // Who decided, how many and how fast: for whoever runs the tests to read.
    let table = ended.output.iter().take_while(|line| !line.is_empty());
    println!("{}", table.cloned().collect::<Vec<_>>().join("\n"));
}

#[test]
fn all_that_is_killed_at_once_goes_on_where_it_was_and_nothing_is_left_running() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    let data = data.to_str().expect("it is UTF-8");
    let arguments = ["--orders", "120", "--kills", "3", "--data", data];
    let ended = run(&arguments, &Kill::WhenItSays("killed ".into()));
    assert!(ended.killed, "{}", ended.told());
    let ended = run(&arguments, &Kill::Never);
    assert!(ended.status.success(), "{}", ended.told());
    assert!(
        ended.last_line().starts_with("reconciled 120 orders"),
        "{}",
        ended.told()
    );
}
