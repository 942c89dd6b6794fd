//! Raw frames of RocketMQ's protocol over TCP, written and read by hand: shares no code with the product, so that the same
//! test judges any server.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long an answer may take on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A request or an answer.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Request code or response code.
    pub code: i64,
    /// Bit 0: an answer; bit 1: nobody waits.
    pub flag: i64,
    /// What an answer finds its request by.
    pub opaque: i64,
    /// Text for people.
    pub remark: String,
    /// The named values.
    pub fields: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Frame {
    /// A request.
    #[must_use]
    pub fn request(code: i64, fields: &[(&str, &str)], body: &[u8]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            code,
            fields: fields.iter().map(owned).collect(),
            body: body.to_vec(),
            ..Self::default()
        }
    }

    /// A named value; empty if it is missing.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// A named value that is a number.
    ///
    /// # Errors
    /// It is missing or no number.
    pub fn number(&self, name: &str) -> Result<u64> {
        let value = self.field(name);
        value
            .parse()
            .with_context(|| format!("field {name} is {value:?} in {self:?}"))
    }

    /// The bytes on the wire, header as JSON.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let header = json!({
            "code": self.code, "language": "JAVA", "version": 277, "opaque": self.opaque, "flag": self.flag,
            "remark": self.remark, "extFields": self.fields, "serializeTypeCurrentRPC": "JSON",
        });
        let header = header.to_string().into_bytes();
        let length = 4 + header.len() + self.body.len();
        let mut bytes = (length as u32).to_be_bytes().to_vec();
        bytes.extend((header.len() as u32).to_be_bytes());
        bytes.extend(header);
        bytes.extend(&self.body);
        bytes
    }

    fn read(stream: &mut impl Read) -> Result<Self> {
        let mut four = [0; 4];
        stream.read_exact(&mut four)?;
        let mut rest = vec![0; u32::from_be_bytes(four) as usize];
        stream.read_exact(&mut rest)?;
        let (length, rest) = rest.split_first_chunk::<4>().context("no header length")?;
        let length = u32::from_be_bytes(*length) as usize & 0xFF_FFFF;
        let (header, body) = rest.split_at_checked(length).context("a short header")?;
        let header: Value = serde_json::from_slice(header)?;
        let number = |name: &str| header.get(name).and_then(Value::as_i64).unwrap_or(0);
        let fields = header.get("extFields").and_then(Value::as_object);
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        Ok(Self {
            code: number("code"),
            flag: number("flag"),
            opaque: number("opaque"),
            remark: header.get("remark").map(text).unwrap_or_default(),
            fields: fields
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            body: body.to_vec(),
        })
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    heard: Arc<Heard>,
    next: i64,
}

#[derive(Debug, Default)]
struct Heard {
    frames: Mutex<(Vec<Frame>, bool)>,
    more: Condvar,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, (Vec<Frame>, bool)> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, mut stream: TcpStream) {
        while let Ok(frame) = Frame::read(&mut stream) {
            self.lock().0.push(frame);
            self.more.notify_all();
        }
        self.lock().1 = true;
        self.more.notify_all();
    }
}

impl Connection {
    /// Connects to `address`, `host:port`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(address: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("no server at {address}"))?;
        stream.set_nodelay(true)?;
        let heard = Arc::new(Heard::default());
        let (hears, reading) = (Arc::clone(&heard), stream.try_clone()?);
        // Ends when the connection is closed: by the server, or by dropping this.
        thread::spawn(move || hears.listen(reading));
        Ok(Self {
            stream,
            heard,
            next: 0,
        })
    }

    /// Sends a request that nobody answers.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn one_way(&mut self, request: &Frame) -> Result<()> {
        self.send(request, 2)
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The connection is gone, or no answer comes.
    pub fn call(&mut self, request: &Frame) -> Result<Frame> {
        self.send(request, 0)?;
        let opaque = self.next;
        let mine = |frame: &Frame| frame.flag & 1 == 1 && frame.opaque == opaque;
        let answer = self.wait(ANSWER_WITHIN, mine);
        answer.with_context(|| format!("no answer to {request:?}"))
    }

    /// Sends a request and does not wait; returns what its answer is found by.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn post(&mut self, request: &Frame) -> Result<i64> {
        self.send(request, 0)?;
        Ok(self.next)
    }

    /// The answer to a request that was posted; waits for it.
    #[must_use]
    pub fn answer(&self, opaque: i64) -> Option<Frame> {
        self.wait(ANSWER_WITHIN, |frame| {
            frame.flag & 1 == 1 && frame.opaque == opaque
        })
    }

    /// All answers that nobody has looked at, once the server has closed the connection; waits for that.
    ///
    /// # Errors
    /// It stays open.
    pub fn last_answers(&self) -> Result<Vec<Frame>> {
        // No frame is this one: it waits until the end.
        self.wait(ANSWER_WITHIN, |_| false);
        let mut heard = self.heard.lock();
        if !heard.1 {
            bail!("the connection stays open");
        }
        let mut frames = std::mem::take(&mut heard.0);
        frames.retain(|frame| frame.flag & 1 == 1);
        Ok(frames)
    }

    /// The next request of the server with this code that has not been looked at yet; waits `at_most` so long.
    #[must_use]
    pub fn asked(&mut self, code: i64, at_most: Duration) -> Option<Frame> {
        self.wait(at_most, |frame| frame.flag & 1 == 0 && frame.code == code)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    fn send(&mut self, request: &Frame, flag: i64) -> Result<()> {
        self.next += 1;
        let frame = Frame {
            flag,
            opaque: self.next,
            ..request.clone()
        };
        Ok(self.stream.write_all(&frame.encoded())?)
    }

    fn wait(&self, at_most: Duration, which: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let missing = |heard: &mut (Vec<Frame>, bool)| !heard.1 && !heard.0.iter().any(&which);
        let waited = self
            .heard
            .more
            .wait_timeout_while(self.heard.lock(), at_most, missing);
        let (mut heard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let at = heard.0.iter().position(&which)?;
        Some(heard.0.remove(at))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Fails only if the server has closed it.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// The bodies of a chain of stored records, as a pull answers them.
///
/// # Errors
/// The chain is cut or in another layout.
pub fn bodies(mut records: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut bodies = Vec::new();
    while !records.is_empty() {
        let size = records.first_chunk::<4>().context("a cut record")?;
        let size = u32::from_be_bytes(*size) as usize;
        let Some((record, rest)) = records.split_at_checked(size) else {
            bail!("a record of {size} bytes is cut");
        };
        let length = record.get(84..88).context("a short record")?;
        let length = u32::from_be_bytes(length.try_into()?) as usize;
        let body = record.get(88..88 + length).context("a body is cut")?;
        bodies.push(body.to_vec());
        records = rest;
    }
    Ok(bodies)
}
