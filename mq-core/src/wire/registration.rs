//! What a broker tells a nameserver about itself: the body of REGISTER_BROKER, as JSON and deflated, with its checksum.

use std::collections::BTreeMap;

use flate2::{Decompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};

/// Longest body once it is inflated: some 200,000 topics.
pub const INFLATED_MAX_BYTES: usize = 16 * 1024 * 1024;

/// How new a broker's topics are. Two that differ mean that something has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// A number that 5.x brokers raise when another of them takes over.
    pub state_version: i64,
    /// When it last changed, ms since 1970.
    pub timestamp: i64,
    /// How often it has changed.
    pub counter: i64,
}

/// How a broker has a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicConfig {
    /// The topic.
    pub topic_name: String,
    /// Queues that can be pulled from.
    #[serde(default)]
    pub read_queue_nums: u32,
    /// Queues that can be sent to.
    #[serde(default)]
    pub write_queue_nums: u32,
    /// 4 read, 2 write, 1 inherit.
    #[serde(default)]
    pub perm: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`; nobody uses it.
    #[serde(default = "single_tag")]
    pub topic_filter_type: String,
    /// The topic's flags.
    #[serde(default)]
    pub topic_sys_flag: i32,
    /// Whether its messages are meant to be ordered.
    #[serde(default)]
    pub order: bool,
}

fn single_tag() -> String {
    "SINGLE_TAG".into()
}

/// A broker's topics (`TopicConfigSerializeWrapper`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicTable {
    /// How new they are.
    pub data_version: DataVersion,
    /// The topics by name.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
}

/// What a broker tells (`RegisterBrokerBody`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Registration {
    /// Its topics.
    pub topic_config_serialize_wrapper: TopicTable,
    /// Of old brokers; always empty in ours.
    pub filter_server_list: Vec<String>,
}

/// Why a registration cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The checksum does not fit.
    #[error("the body's checksum is {found}, the request says {claimed}")]
    Checksum {
        /// What the request says.
        claimed: u32,
        /// What it is.
        found: u32,
    },
    /// It is no JSON of that shape.
    #[error("the body cannot be read: {0}")]
    Json(String),
    /// The deflated form is cut or damaged.
    #[error("the deflated body cannot be read: {0}")]
    Deflated(&'static str),
}

/// The checksum as `bodyCrc32` carries it: CRC-32 without its highest bit. 0 means that nobody has computed one.
#[must_use]
pub fn checksum(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// Reads a registration. A body that is missing means a broker without topics.
///
/// # Errors
/// [`RegistrationError`].
pub fn decode(
    body: &[u8],
    compressed: bool,
    claimed: u32,
) -> Result<Registration, RegistrationError> {
    let found = checksum(body);
    if claimed != 0 && claimed != found {
        return Err(RegistrationError::Checksum { claimed, found });
    }
    if body.is_empty() {
        return Ok(Registration::default());
    }
    if compressed {
        return inflate(body);
    }
    serde_json::from_slice(body).map_err(|error| RegistrationError::Json(error.to_string()))
}

/// Writes a registration as JSON.
#[must_use]
pub fn encode(registration: &Registration) -> Vec<u8> {
    // Maps with text as keys and plain numbers always become JSON.
    serde_json::to_vec(registration).unwrap_or_default()
}

fn inflate(body: &[u8]) -> Result<Registration, RegistrationError> {
    let cut = RegistrationError::Deflated("it ends too early");
    let inflated = inflated(body).ok_or(RegistrationError::Deflated(
        "it is damaged, or longer than 16 MiB",
    ))?;
    let mut rest = inflated.as_slice();
    let version = counted(&mut rest).ok_or(cut.clone())?;
    let data_version = serde_json::from_slice(version)
        .map_err(|error| RegistrationError::Json(error.to_string()))?;
    let topics = number(&mut rest).ok_or(cut.clone())?;
    let mut topic_config_table = BTreeMap::new();
    for _ in 0..topics {
        let line = counted(&mut rest).ok_or(cut.clone())?;
        let topic = topic(line).ok_or(RegistrationError::Deflated("a topic is not understood"))?;
        topic_config_table.insert(topic.topic_name.clone(), topic);
    }
    let servers = counted(&mut rest).ok_or(cut)?;
    // What 5.x brokers write behind this is of no use here.
    Ok(Registration {
        topic_config_serialize_wrapper: TopicTable {
            data_version,
            topic_config_table,
        },
        filter_server_list: serde_json::from_slice(servers).unwrap_or_default(),
    })
}

/// The bytes behind a deflated body, whole; memory grows with what is really there.
fn inflated(body: &[u8]) -> Option<Vec<u8>> {
    let mut inflate = Decompress::new(true);
    let mut out = Vec::with_capacity(body.len().min(64 * 1024));
    while out.len() <= INFLATED_MAX_BYTES {
        let before = (inflate.total_in(), out.len());
        let rest = body.get(usize::try_from(inflate.total_in()).ok()?..)?;
        out.reserve(4096);
        match inflate.decompress_vec(rest, &mut out, FlushDecompress::None) {
            Ok(Status::StreamEnd) => return Some(out),
            Ok(_) if before != (inflate.total_in(), out.len()) => {}
            Ok(_) | Err(_) => return None,
        }
    }
    None
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    usize::try_from(i32::from_be_bytes(*head)).ok()
}

fn counted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

/// Name, read queues, write queues, permission and filter type, separated by spaces; attributes may follow.
fn topic(line: &[u8]) -> Option<TopicConfig> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    Some(TopicConfig {
        topic_name: words.next().filter(|name| !name.is_empty())?.to_owned(),
        read_queue_nums: words.next()?.parse().ok()?,
        write_queue_nums: words.next()?.parse().ok()?,
        perm: words.next()?.parse().ok()?,
        topic_filter_type: words.next()?.to_owned(),
        topic_sys_flag: 0,
        order: false,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    fn counted(text: &str) -> Vec<u8> {
        let mut out = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(text.as_bytes());
        out
    }

    fn deflated(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&parts.concat()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_deflated_form_says_the_same_as_json() {
        let json = br#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":3,"timestamp":1700000000000,"stateVersion":0},"topicConfigTable":{"TBW102":{"attributes":{},"order":false,"perm":7,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"TBW102","topicSysFlag":0,"writeQueueNums":8}},"topicQueueMappingInfoMap":{}}}"#;
        let from_json = decode(json, false, checksum(json)).unwrap();
        assert_eq!(
            from_json.topic_config_serialize_wrapper.topic_config_table["TBW102"].perm,
            7
        );
        let bytes = deflated(&[
            counted(r#"{"counter":3,"timestamp":1700000000000}"#),
            1_u32.to_be_bytes().to_vec(),
            counted("TBW102 8 8 7 SINGLE_TAG {\"a\":\"b\"}"),
            counted("[]"),
            0_u32.to_be_bytes().to_vec(),
        ]);
        assert_eq!(decode(&bytes, true, checksum(&bytes)).unwrap(), from_json);
    }

    #[test]
    fn what_we_write_we_read() {
        let mut table = TopicTable::default();
        table.data_version.counter = 7;
        let registration = Registration {
            topic_config_serialize_wrapper: table,
            filter_server_list: vec![],
        };
        let bytes = encode(&registration);
        assert_eq!(
            decode(&bytes, false, checksum(&bytes)).unwrap(),
            registration
        );
        assert!(matches!(
            decode(&bytes, false, 1),
            Err(RegistrationError::Checksum { claimed: 1, .. })
        ));
        assert_eq!(decode(&[], false, 0).unwrap(), Registration::default());
    }

    #[test]
    fn a_small_body_cannot_claim_much_memory() {
        let bytes = deflated(&[
            counted("{}"),
            i32::MAX.to_be_bytes().to_vec(),
            counted("t 1 1 6 SINGLE_TAG"),
        ]);
        assert!(decode(&bytes, true, 0).is_err());
        let bomb = deflated(&[vec![0; 40 << 20]]);
        assert!(decode(&bomb, true, 0).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_end_it(body: Vec<u8>, compressed: bool) {
            let _ = decode(&body, compressed, 0);
            let _ = inflate(&deflated(&[body]));
        }
    }
}
