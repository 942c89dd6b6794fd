//! A nameserver and brokers as processes of their own, each broker with no more settings than it needs.

use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::process::{Kill, Program, Running};
use crate::raw::Frame;
use crate::server::{body, free_broker_port, free_port, wait_until};

/// How long creating a topic may take on a busy machine.
const CREATED_WITHIN: Duration = Duration::from_secs(30);

/// Processes that know each other; they end with this value, and their folders are removed.
#[derive(Debug)]
pub struct Cluster {
    program: String,
    nameserver: String,
    processes: Vec<Running>,
    folder: TempDir,
}

impl Cluster {
    /// Starts `program`, the path of `halfmoon`, as a nameserver and as one broker of each name.
    ///
    /// # Errors
    /// One of them ends or is not ready in time; the error tells what it said.
    pub fn start(program: &str, brokers: &[&str]) -> Result<Self> {
        let nameserver = format!("127.0.0.1:{}", free_port()?);
        let running = Program::new(program)
            .argument("nameserver")
            .argument("--nameserver-listen")
            .argument(&nameserver)
            .spawn()?;
        let mut cluster = Self {
            program: program.to_owned(),
            nameserver,
            processes: vec![running],
            folder: tempfile::tempdir()?,
        };
        for name in brokers {
            let broker = cluster.broker(name)?;
            cluster.processes.push(broker);
            cluster.wait_until_known(cluster.processes.len() - 1)?;
        }
        Ok(cluster)
    }

    /// Starts a broker whose file holds nothing but who it is and where its nameserver is.
    fn broker(&self, name: &str) -> Result<Running> {
        let file = self.folder.path().join(name).with_extension("conf");
        let lines = [
            "brokerIP1=127.0.0.1",
            &format!("namesrvAddr={}", self.nameserver),
            &format!("brokerName={name}"),
            "enablePropertyFilter=true",
        ];
        std::fs::write(&file, lines.join("\n"))?;
        let listen = format!("127.0.0.1:{}", free_broker_port()?);
        Program::new(&self.program)
            .variable("HALFMOON_BROKER_LISTEN", listen)
            .argument("broker")
            .argument("-c")
            .argument(file)
            .argument("--data")
            .argument(self.folder.path().join(name))
            .spawn()
    }

    fn wait_until_known(&self, brokers: usize) -> Result<()> {
        let known = || {
            let answer = body(&self.nameserver, &Frame::request(106, &[], &[]));
            answer.is_ok_and(|text| text.matches("\"brokerAddrs\"").count() == brokers)
        };
        for running in &self.processes {
            wait_until(running, known)?;
        }
        Ok(())
    }

    /// Creates a topic with two queues on every broker.
    ///
    /// # Errors
    /// The command fails; the error tells what it said.
    pub fn create(&self, topic: &str) -> Result<()> {
        let create = Program::new(&self.program)
            .variable("NAMESRV_ADDR", &self.nameserver)
            .argument("topic")
            .argument("create")
            .argument(topic)
            .argument("--queues")
            .argument("2")
            .limit(CREATED_WITHIN);
        let ended = create.run(&Kill::Never)?;
        ensure!(ended.status.success(), "{}", ended.told());
        Ok(())
    }

    /// Where clients start: `host:port` of the nameserver.
    #[must_use]
    pub fn nameserver(&self) -> &str {
        &self.nameserver
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for running in &self.processes {
                eprintln!("one of the processes said:\n{}", running.told());
            }
        }
    }
}
