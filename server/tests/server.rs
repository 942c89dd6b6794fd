//! The server as people run it: ports, signals, kills, and the commands that talk to it.

#![expect(clippy::unwrap_used, reason = "what a test stands on may end it")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A port that is free, and for which the one two below it is free too.
fn free_port() -> u16 {
    loop {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port - 2)).is_ok() {
            return port;
        }
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halfmoon"));
    command.args(arguments);
    for (name, _) in std::env::vars() {
        if name.starts_with("HALFMOON_") || name == "NAMESRV_ADDR" {
            command.env_remove(name);
        }
    }
    command
}

/// A process that stays. Killed when dropped.
struct Running {
    child: Child,
    /// What it printed when it was ready.
    ready: Value,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = program(arguments)
            .arg("--json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        if line.is_empty() {
            let mut why = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut why)
                .unwrap();
            panic!("it did not start: {why}");
        }
        let ready = serde_json::from_str(&line).unwrap();
        Self { child, ready }
    }

    /// Sends a signal and returns the exit status, if it had one.
    fn end(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where one server is.
struct Place {
    nameserver: String,
    broker: String,
}

impl Place {
    fn free() -> Self {
        Self {
            nameserver: format!("127.0.0.1:{}", free_port()),
            broker: format!("127.0.0.1:{}", free_port()),
        }
    }

    fn arguments<'a>(&'a self, data: &'a Path) -> [&'a str; 7] {
        let data = data.to_str().unwrap();
        let (nameserver, broker) = (&self.nameserver, &self.broker);
        [
            "server",
            "--data",
            data,
            "--nameserver-listen",
            nameserver,
            "--broker-listen",
            broker,
        ]
    }

    fn start(&self, data: &Path) -> Running {
        Running::start(&self.arguments(data))
    }

    /// Runs a command that must succeed; every line it prints is JSON.
    fn ask(&self, arguments: &[&str]) -> Vec<Value> {
        let output = program(arguments)
            .args(["-n", &self.nameserver, "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    fn bodies(&self, topic: &str) -> Vec<String> {
        let messages = self.ask(&["message", "consume", "--topic", topic]);
        let body = |message: &Value| message["body"].as_str().unwrap().to_owned();
        messages.iter().map(body).collect()
    }
}

/// The exit status and the one line on stderr.
fn refused(output: &Output) -> (i32, String) {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.lines().count(), 1, "{line:?}");
    (output.status.code().unwrap(), line)
}

#[test]
fn messages_go_through_the_server_and_survive_a_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let place = Place::free();
    let server = place.start(&data);
    assert_eq!(server.ready["nameserver"], place.nameserver.as_str());
    assert_eq!(
        server.ready["broker"]["nameservers"][0]["problem"],
        Value::Null
    );

    place.ask(&["topic", "create", "orders", "--queues", "2"]);
    let send = [
        "message", "send", "--topic", "orders", "--tag", "placed", "--key", "k1",
    ];
    let sent = place.ask(&[&send[..], &["--body", "hello", "--count", "3"]].concat());
    assert_eq!(sent.len(), 3);
    assert_eq!(place.bodies("orders"), ["hello"; 3]);
    let found = place.ask(&["message", "query", "--topic", "orders", "--key", "k1"]);
    assert_eq!(found.len(), 3);
    let shown = place.ask(&["topic", "show", "orders"]);
    let queues = shown[0]["queues"].as_array().unwrap();
    let next: Vec<_> = queues
        .iter()
        .map(|queue| queue["next"].as_i64().unwrap())
        .collect();
    assert_eq!(next, [2, 1]);
    let listed = place.ask(&["topic", "list"]);
    assert_eq!(listed[0]["topics"][0]["topic"], "orders");
    assert_eq!(
        listed[0]["topics"].as_array().unwrap().len(),
        1,
        "{listed:?}"
    );

    assert_eq!(server.end(Signal::TERM), Some(0));
    let server = place.start(&data);
    assert_eq!(place.bodies("orders"), ["hello"; 3]);
    place.ask(&["topic", "delete", "orders"]);
    let listed = place.ask(&["topic", "list"]);
    assert_eq!(
        listed[0]["topics"].as_array().unwrap().len(),
        0,
        "{listed:?}"
    );
    assert_eq!(server.end(Signal::INT), Some(0));
}

#[test]
fn a_killed_server_starts_again_with_what_it_had_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::free();
    let server = place.start(folder.path());
    place.ask(&["message", "send", "--topic", "t", "--body", "kept"]);
    assert_eq!(server.end(Signal::KILL), None);
    let server = place.start(folder.path());
    assert_eq!(place.bodies("t"), ["kept"]);
    assert_eq!(server.end(Signal::TERM), Some(0));
}

#[test]
fn an_occupied_port_or_folder_ends_the_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let (place, free) = (Place::free(), Place::free());
    let _server = place.start(&one);
    let mixed = Place {
        nameserver: place.nameserver.clone(),
        broker: free.broker.clone(),
    };
    let (status, line) = refused(&program(&mixed.arguments(&other)).output().unwrap());
    assert_eq!(status, 2);
    assert!(line.contains(&place.nameserver), "{line}");
    let mixed = Place {
        nameserver: free.nameserver.clone(),
        broker: place.broker.clone(),
    };
    let (status, line) = refused(&program(&mixed.arguments(&other)).output().unwrap());
    assert_eq!(status, 2);
    assert!(line.contains(&place.broker), "{line}");
    assert!(!other.exists(), "nothing was opened");
    let (status, line) = refused(&program(&free.arguments(&one)).output().unwrap());
    assert_eq!(status, 2);
    assert!(line.contains("in use by a running process"), "{line}");
}

#[test]
fn a_wrong_setting_ends_the_start_and_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("broker.conf");
    std::fs::write(&conf, "brokerName=a\nbrokerNmae=b\n").unwrap();
    let arguments = ["server", "-c", conf.to_str().unwrap()];
    let (status, line) = refused(&program(&arguments).output().unwrap());
    assert_eq!(status, 2);
    assert!(
        line.contains("brokerNmae") && line.contains("line 2"),
        "{line}"
    );
    let (status, line) = refused(
        &program(&["server", "--crash-at", "log.synced"])
            .output()
            .unwrap(),
    );
    assert_eq!(status, 2);
    assert!(line.contains("--allow-crash"), "{line}");
    let (status, line) = refused(&program(&["broker"]).output().unwrap());
    assert_eq!(status, 2);
    assert!(line.contains("NAMESRV_ADDR"), "{line}");
}

#[test]
fn two_brokers_stand_under_one_nameserver() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::free();
    let nameserver = Running::start(&["nameserver", "--nameserver-listen", &place.nameserver]);
    let mut brokers = Vec::new();
    for name in ["broker-a", "broker-b"] {
        let conf = folder.path().join(name).with_extension("conf");
        let (data, port) = (folder.path().join(name), free_port());
        let text = format!(
            "brokerName={name}\nbrokerIP1=127.0.0.1\nlistenPort={port}\nstorePathRootDir={}\nnamesrvAddr={}\nenablePropertyFilter=true\n",
            data.display(),
            place.nameserver
        );
        std::fs::write(&conf, text).unwrap();
        brokers.push(Running::start(&["broker", "-c", conf.to_str().unwrap()]));
    }
    place.ask(&["topic", "create", "orders", "--queues", "1"]);
    let two = [
        "message", "send", "--topic", "orders", "--body", "x", "--count", "2",
    ];
    let on: Vec<_> = place
        .ask(&two)
        .iter()
        .map(|sent| sent["broker"].clone())
        .collect();
    assert_eq!(on, ["broker-a", "broker-b"]);
    assert_eq!(brokers.remove(0).end(Signal::TERM), Some(0));
    let listed = place.ask(&["topic", "list"]);
    let left = listed[0]["topics"].as_array().unwrap();
    assert_eq!(left.len(), 1, "its good-bye was heard: {left:?}");
    assert_eq!(left[0]["broker"], "broker-b");
    assert_eq!(nameserver.end(Signal::TERM), Some(0));
    assert_eq!(
        brokers.remove(0).end(Signal::TERM),
        Some(0),
        "without a nameserver"
    );
}
