//! Bytes from outside: every reader gets its corpus and then ten seconds of changed inputs, ten times that in the long run.

use std::path::Path;
use std::time::Duration;

use mq_core::random::{Random as _, SystemRandom};
use tests::fuzz::{TARGETS, Target, drive, hex, unhex};

/// Feeds one target, with a new seed in each run; `HALFMOON_SEED` repeats one.
fn fuzz(name: &str) {
    let target: &Target = (TARGETS.iter())
        .find(|target| target.name == name)
        .expect("the tests below name targets of the list");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let wanted = std::env::var("HALFMOON_SEED").ok();
    let seed = wanted.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemRandom.next_u64());
    let long = std::env::var_os("HALFMOON_FULL").is_some();
    let time = Duration::from_secs(if long { 100 } else { 10 });
    match drive(target, &corpus, seed, time) {
        Ok(fed) => println!("{name}: {fed:?}, seed {seed}"),
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
fn a_frame_is_read_or_refused() {
    fuzz("frame");
}

#[test]
fn a_json_header_is_read_or_refused() {
    fuzz("json_header");
}

#[test]
fn a_binary_header_is_read_or_refused() {
    fuzz("binary_header");
}

#[test]
fn a_stored_record_is_read_or_refused() {
    fuzz("stored_record");
}

#[test]
fn properties_are_read_or_passed_over() {
    fuzz("properties");
}

#[test]
fn a_batch_is_read_or_refused() {
    fuzz("batch");
}

#[test]
fn a_heartbeat_is_read_or_refused() {
    fuzz("heartbeat");
}

#[test]
fn a_configuration_file_is_read_or_refused_in_one_line() {
    fuzz("settings");
}

#[test]
fn what_is_found_is_printed_so_that_it_can_be_replayed() {
    let target = Target {
        name: "seven",
        run: |bytes| assert!(!bytes.contains(&7)),
    };
    let corpus = tempfile::tempdir().unwrap();
    std::fs::create_dir(corpus.path().join("seven")).unwrap();
    std::fs::write(corpus.path().join("seven/six.hex"), hex(&[6; 40])).unwrap();
    let found = || drive(&target, corpus.path(), 1, Duration::from_secs(60)).unwrap_err();
    let told = format!("{:#}", found());
    assert_eq!(told, format!("{:#}", found()), "a seed repeats");
    let input = unhex(told.split_once("tests/run fuzz:\n").unwrap().1).unwrap();
    assert!(input.contains(&7), "{told}");
}
