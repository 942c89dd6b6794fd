//! A server that is asked to end: what it had accepted is answered and durable, and nobody is left waiting.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::raw::{Connection, Frame};

use super::member::{Half, Producer, Says, everything, waits_for_more};
use super::{CLIENT, Story};

/// More messages of each kind than a server works off while they are sent.
const MANY: usize = 1_000;
/// So many are sent before it is asked to end.
const BEFORE: usize = 200;

/// How long what is decided may take until it is delivered, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A producer that does not wait for answers.
struct Hasty {
    producer: Producer,
    half: bool,
    names: BTreeMap<i64, String>,
}

impl Hasty {
    fn new(story: &Story, topic: &str, half: bool) -> Result<Self> {
        Ok(Self {
            producer: Producer::connect(story.server.broker(), CLIENT, &story.group, topic)?,
            half,
            names: BTreeMap::new(),
        })
    }

    fn posts(&mut self, name: String) -> Result<()> {
        let opaque = self.producer.posts(&name, self.half)?;
        self.names.insert(opaque, name);
        Ok(())
    }

    /// The answers, each with the message's name, once the server has closed the connection. None is a refusal.
    fn answers(&mut self) -> Result<Vec<(Frame, String)>> {
        let mut answers = Vec::new();
        for answer in self.producer.connection().last_answers()? {
            ensure!(answer.code == 0, "{answer:?}");
            let name = self.names.remove(&answer.opaque);
            answers.push((answer, name.context("an answer to nothing")?));
        }
        Ok(answers)
    }
}

fn answer(connection: &Connection, opaque: i64) -> Result<Frame> {
    connection.answer(opaque).context("no answer")
}

#[test]
fn what_was_accepted_is_answered_and_durable_and_long_polls_end_at_once() -> Result<()> {
    let mut story = Story::begin("stop")?;
    if !story.server.is_ours() {
        return Ok(());
    }
    let broker = story.server.broker().to_owned();
    let half_topic = format!("{}-halves", story.topic);
    let mut whole = Hasty::new(&story, &story.topic, false)?;
    let mut halves = Hasty::new(&story, &half_topic, true)?;
    // The first message is there: the next one is waited for.
    let early = halves.producer.half("early")?;
    assert_eq!(halves.producer.says(&early, Says::Commit)?.0, 0);
    assert_eq!(everything(&broker, &half_topic, 1, SOON)?, ["early"]);
    let mut reader = Connection::open(&broker)?;
    let held = waits_for_more(&mut reader, &half_topic, 1)?;
    for number in 0..MANY {
        if number == BEFORE {
            story.server.terminate()?;
        }
        let posted = whole.posts(format!("whole {number}"));
        // It may have closed the connections by now.
        if posted.and(halves.posts(format!("half {number}"))).is_err() {
            break;
        }
    }
    let held = answer(&reader, held)?;
    assert_eq!(held.code, 19, "there is nothing new: {held:?}");
    assert!(TcpStream::connect(&broker).is_err(), "it still accepts");
    let (whole, halves) = (whole.answers()?, halves.answers()?);
    let status = story.server.ended()?;
    assert_eq!(status.code(), Some(0), "{}", story.server.told());
    println!("answered: {} whole, {} half", whole.len(), halves.len());

    let server = story.server.again()?;
    let answered: Vec<String> = whole.into_iter().map(|(_, name)| name).collect();
    let kept = everything(server.broker(), &story.topic, answered.len(), SOON)?;
    assert_eq!(kept, answered);
    let mut producer = Producer::connect(server.broker(), CLIENT, &story.group, &half_topic)?;
    let mut ends = Vec::new();
    let mut committed = vec!["early".to_owned()];
    for (answer, name) in halves {
        let half = Half::stored(&answer, &name)?;
        ends.push(producer.posts_end(&half, Says::Commit)?);
        committed.push(name);
    }
    for end in ends {
        let said = answer(producer.connection(), end)?;
        assert_eq!(said.code, 0, "{said:?}");
    }
    let kept = everything(server.broker(), &half_topic, committed.len(), SOON)?;
    assert_eq!(kept, committed);
    Ok(())
}
