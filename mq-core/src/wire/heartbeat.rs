//! What a client says about itself (RocketMQ `HeartbeatData`), read as leniently as clients differ in writing it.

use serde_json::{Map, Value};

use super::ids::{hex128, parse_hex128};

/// Longest heartbeat in bytes: thousands of subscriptions.
pub const HEARTBEAT_MAX_BYTES: usize = 1 << 20;

/// The expression type of a subscription by tags.
pub const TYPE_TAG: &str = "TAG";
/// The expression type of a subscription by properties.
pub const TYPE_SQL92: &str = "SQL92";

/// Everything one client says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// The client's id; not unique for ever, and in containers not even at one time.
    pub client_id: String,
    /// Groups it produces for.
    pub producer_groups: Vec<String>,
    /// Groups it consumes for.
    pub consumers: Vec<Consumer>,
    /// What only our own clients say (member `halfmoon`).
    pub native: Option<Native>,
}

/// What only our own clients say about themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Native {
    /// Member `incarnation`: this process life, random, never the same twice.
    pub incarnation: u128,
    /// Member `answersFor`: identities that the client can answer questions about.
    pub answers_for: Vec<u128>,
}

/// A client's part in a consumer group (RocketMQ `ConsumerData`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// The group.
    pub group: String,
    /// Who asks for messages: the application (actively) or the client library.
    pub consume_type: ConsumeType,
    /// Who gets a message: one member of the group or all.
    pub model: MessageModel,
    /// Where the group starts in a queue it has never read.
    pub from: FromWhere,
    /// What it reads.
    pub subscriptions: Vec<SubscriptionData>,
}

/// What a consumer wants of one topic (RocketMQ `SubscriptionData`). Tags are taken from the expression alone: some clients
/// send wrong hashes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionData {
    /// The topic.
    pub topic: String,
    /// The expression (`subString`).
    pub expression: String,
    /// How the expression is to be read: [`TYPE_TAG`], [`TYPE_SQL92`] or something nobody knows.
    pub kind: String,
    /// Grows with every change (`subVersion`).
    pub version: i64,
}

/// Defines an enum that is written as its name or as its number.
macro_rules! named {
    ($(#[$doc:meta])* $type:ident: $($(#[$variant_doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $type {
            $($(#[$variant_doc])* $variant),+
        }

        impl $type {
            const ALL: &[(Self, &'static str)] = &[$((Self::$variant, $name)),+];

            /// The name that RocketMQ writes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// Reads a name or a number; the default for anything else.
            fn read(value: Option<&Value>) -> Self {
                let found = match value {
                    Some(Value::String(name)) => Self::ALL.iter().find(|(_, known)| known == name),
                    Some(number) => number
                        .as_u64()
                        .and_then(|number| Self::ALL.get(usize::try_from(number).ok()?)),
                    None => None,
                };
                found.map_or_else(Self::default, |(found, _)| *found)
            }
        }
    };
}

named!(
    /// Who asks for messages.
    ConsumeType:
    /// The application.
    Actively = "CONSUME_ACTIVELY",
    /// The client library.
    #[default]
    Passively = "CONSUME_PASSIVELY",
    /// The client library, with the broker giving out single messages.
    Pop = "CONSUME_POP",
);

named!(
    /// Who gets a message.
    MessageModel:
    /// Every member of the group.
    Broadcasting = "BROADCASTING",
    /// One member of the group.
    #[default]
    Clustering = "CLUSTERING",
);

named!(
    /// Where a group starts in a queue it has never read.
    FromWhere:
    /// At the end.
    #[default]
    Last = "CONSUME_FROM_LAST_OFFSET",
    /// At the end; an old name.
    LastOrMin = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
    /// At the beginning; an old name.
    Min = "CONSUME_FROM_MIN_OFFSET",
    /// At the end; an old name.
    Max = "CONSUME_FROM_MAX_OFFSET",
    /// At the beginning.
    First = "CONSUME_FROM_FIRST_OFFSET",
    /// At a time that only the client knows.
    Timestamp = "CONSUME_FROM_TIMESTAMP",
);

/// Why bytes are no heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the heartbeat cannot be read: {0}")]
pub struct HeartbeatError(String);

impl Heartbeat {
    /// Reads a heartbeat. Missing members count as empty; entries without their name are left out.
    ///
    /// # Errors
    /// [`HeartbeatError`] when it is too long, no JSON object, or names no client.
    pub fn parse(body: &[u8]) -> Result<Self, HeartbeatError> {
        let wrong = |why: String| HeartbeatError(why);
        if body.len() > HEARTBEAT_MAX_BYTES {
            let bytes = body.len();
            return Err(wrong(format!(
                "it has {bytes} bytes; at most {HEARTBEAT_MAX_BYTES} are allowed"
            )));
        }
        let value: Value =
            serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
        let object = value
            .as_object()
            .ok_or_else(|| wrong("it is no JSON object".into()))?;
        let client_id = text(object, "clientID").unwrap_or_default();
        if client_id.is_empty() {
            return Err(wrong("it has no clientID".into()));
        }
        Ok(Self {
            client_id: client_id.to_owned(),
            producer_groups: objects(object, "producerDataSet")
                .filter_map(|producer| text(producer, "groupName").map(str::to_owned))
                .collect(),
            consumers: objects(object, "consumerDataSet")
                .filter_map(consumer)
                .collect(),
            native: object
                .get("halfmoon")
                .and_then(Value::as_object)
                .and_then(native),
        })
    }
}

impl Heartbeat {
    /// As RocketMQ's clients write it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let producers = self.producer_groups.iter();
        let producers: Vec<Value> = producers
            .map(|group| serde_json::json!({ "groupName": group }))
            .collect();
        let consumers: Vec<Value> = self.consumers.iter().map(Consumer::to_json).collect();
        let mut said = serde_json::json!({
            "clientID": self.client_id,
            "producerDataSet": producers,
            "consumerDataSet": consumers,
        });
        if let (Some(native), Some(said)) = (&self.native, said.as_object_mut()) {
            let ids: Vec<String> = native.answers_for.iter().map(|id| hex128(*id)).collect();
            let own = serde_json::json!({
                "incarnation": hex128(native.incarnation),
                "answersFor": ids,
            });
            said.insert("halfmoon".into(), own);
        }
        said
    }
}

impl Consumer {
    fn to_json(&self) -> Value {
        let subscriptions = self.subscriptions.iter();
        let subscriptions: Vec<Value> = subscriptions.map(SubscriptionData::to_json).collect();
        serde_json::json!({
            "groupName": self.group,
            "consumeType": self.consume_type.name(),
            "messageModel": self.model.name(),
            "consumeFromWhere": self.from.name(),
            "subscriptionDataSet": subscriptions,
            "unitMode": false,
        })
    }
}

impl SubscriptionData {
    /// Reads one; `None` without a topic.
    #[must_use]
    pub fn read(object: &Map<String, Value>) -> Option<Self> {
        let version = match object.get("subVersion") {
            Some(Value::String(text)) => text.trim().parse().unwrap_or(0),
            other => other.and_then(Value::as_i64).unwrap_or(0),
        };
        Some(Self {
            topic: text(object, "topic")?.to_owned(),
            expression: text(object, "subString").unwrap_or("*").to_owned(),
            kind: match text(object, "expressionType") {
                None | Some("") => TYPE_TAG.to_owned(),
                Some(kind) => kind.to_owned(),
            },
            version,
        })
    }

    /// As RocketMQ writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let tags: Vec<&str> = match self.kind.as_str() {
            TYPE_TAG if self.expression != "*" => self
                .expression
                .split("||")
                .map(str::trim)
                .filter(|tag| !tag.is_empty())
                .collect(),
            _ => Vec::new(),
        };
        serde_json::json!({
            "classFilterMode": false,
            "codeSet": [],
            "expressionType": self.kind,
            "subString": self.expression,
            "subVersion": self.version,
            "tagsSet": tags,
            "topic": self.topic,
        })
    }
}

fn consumer(object: &Map<String, Value>) -> Option<Consumer> {
    Some(Consumer {
        group: text(object, "groupName")?.to_owned(),
        consume_type: ConsumeType::read(object.get("consumeType")),
        model: MessageModel::read(object.get("messageModel")),
        from: FromWhere::read(object.get("consumeFromWhere")),
        subscriptions: objects(object, "subscriptionDataSet")
            .filter_map(SubscriptionData::read)
            .collect(),
    })
}

fn native(object: &Map<String, Value>) -> Option<Native> {
    let ids = object.get("answersFor").and_then(Value::as_array);
    Some(Native {
        incarnation: parse_hex128(text(object, "incarnation")?)?,
        answers_for: ids
            .into_iter()
            .flatten()
            .filter_map(|id| parse_hex128(id.as_str()?))
            .collect(),
    })
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

fn objects<'a>(
    object: &'a Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    let list = object.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_clients_heartbeat_is_read() {
        let body = br#"{"clientID":"10.0.0.1@4711","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
            "consumeType":"CONSUME_PASSIVELY","groupName":"g","messageModel":"CLUSTERING","subscriptionDataSet":[
            {"classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA || TagB","subVersion":17,
            "tagsSet":["TagA","TagB"],"topic":"t"}],"unitMode":false}],"producerDataSet":[{"groupName":"CLIENT_INNER_PRODUCER"}]}"#;
        let said = Heartbeat::parse(body).unwrap();
        assert_eq!(said.client_id, "10.0.0.1@4711");
        assert_eq!(said.producer_groups, ["CLIENT_INNER_PRODUCER"]);
        let consumer = &said.consumers[0];
        assert_eq!(consumer.from, FromWhere::First);
        assert_eq!(consumer.model, MessageModel::Clustering);
        let expected = SubscriptionData {
            topic: "t".into(),
            expression: "TagA || TagB".into(),
            kind: TYPE_TAG.into(),
            version: 17,
        };
        assert_eq!(consumer.subscriptions, [expected]);
        assert_eq!(said.native, None);
    }

    #[test]
    fn numbers_texts_gaps_and_a_last_newline_are_read() {
        let body = b"{\"clientID\":\"c\",\"consumerDataSet\":[{\"groupName\":\"g\",\"consumeType\":0,\"messageModel\":0,
            \"consumeFromWhere\":5,\"subscriptionDataSet\":[{\"topic\":\"t\",\"subString\":\"*\",\"subVersion\":\"12\",
            \"codeSet\":[0,0]}]},{\"consumeType\":1}]}\n";
        let said = Heartbeat::parse(body).unwrap();
        assert_eq!(
            said.consumers.len(),
            1,
            "an entry without a name is left out"
        );
        let consumer = &said.consumers[0];
        assert_eq!(consumer.consume_type, ConsumeType::Actively);
        assert_eq!(consumer.model, MessageModel::Broadcasting);
        assert_eq!(consumer.from, FromWhere::Timestamp);
        assert_eq!(consumer.subscriptions[0].version, 12);
        assert_eq!(consumer.subscriptions[0].kind, TYPE_TAG);
        assert!(said.producer_groups.is_empty());
    }

    #[test]
    fn our_own_clients_name_their_life_and_whom_they_answer_for() {
        let id = "0123456789ABCDEF0123456789ABCDEF";
        let body = format!(
            r#"{{"clientID":"c","halfmoon":{{"incarnation":"{id}","answersFor":["{id}","?"]}}}}"#
        );
        let native = Heartbeat::parse(body.as_bytes()).unwrap().native.unwrap();
        assert_eq!(Some(native.incarnation), parse_hex128(id));
        assert_eq!(native.answers_for, [native.incarnation]);
    }

    #[test]
    fn what_was_written_is_read_back() {
        let said = Heartbeat {
            client_id: "4711@ab".into(),
            producer_groups: vec!["p".into()],
            consumers: vec![Consumer {
                group: "g".into(),
                consume_type: ConsumeType::Actively,
                model: MessageModel::Clustering,
                from: FromWhere::First,
                subscriptions: vec![SubscriptionData {
                    topic: "t".into(),
                    expression: "a || b".into(),
                    kind: TYPE_TAG.into(),
                    version: 3,
                }],
            }],
            native: Some(Native {
                incarnation: 7,
                answers_for: vec![1, u128::MAX],
            }),
        };
        let json = said.to_json().to_string();
        assert_eq!(Heartbeat::parse(json.as_bytes()), Ok(said));
    }

    #[test]
    fn what_names_no_client_is_refused() {
        for body in [&b""[..], b"[]", b"{}", b"{\"clientID\":7}", b"nonsense"] {
            assert!(Heartbeat::parse(body).is_err(), "{body:?}");
        }
        assert!(Heartbeat::parse(&vec![b' '; HEARTBEAT_MAX_BYTES + 1]).is_err());
    }
}
