//! A remoting command, request or response, free of how its header is written (RocketMQ `RemotingCommand`).

use bytes::Bytes;

/// Flag bit of a command: it answers the request with the same number.
pub const FLAG_RESPONSE: i32 = 1;
/// Flag bit of a command: nobody waits for an answer.
pub const FLAG_ONE_WAY: i32 = 2;

/// How a header is written. An answer is written as its request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// A JSON object (`SerializeType.JSON`, 0).
    #[default]
    Json,
    /// Lengths and bytes (`SerializeType.ROCKETMQ`, 1).
    Binary,
}

/// The language a peer is written in (`LanguageCode`), as its number in the binary header; unknown ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Language(pub u8);

impl Language {
    /// Java, the original.
    pub const JAVA: Self = Self(0);
    /// C++ clients, which want some bodies in another form.
    pub const CPP: Self = Self(1);
    /// Any language without a number.
    pub const OTHER: Self = Self(7);
    /// Rust.
    pub const RUST: Self = Self(12);
}

/// One request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Request code, or response code (0 is success).
    pub code: i32,
    /// [`FLAG_RESPONSE`] and [`FLAG_ONE_WAY`].
    pub flag: i32,
    /// The number by which an answer finds its request.
    pub opaque: i32,
    /// The sender's language.
    pub language: Language,
    /// The sender's protocol version (`MQVersion`).
    pub version: i32,
    /// Text for people, often empty.
    pub remark: String,
    /// The named values (`extFields`).
    pub fields: Fields,
    /// The body.
    pub body: Bytes,
    /// How the header was, or is to be, written.
    pub dialect: Dialect,
}

impl Command {
    /// A request of ours without fields and body.
    #[must_use]
    pub fn request(code: i32, opaque: i32) -> Self {
        Self {
            code,
            flag: 0,
            opaque,
            language: Language::RUST,
            version: VERSION,
            remark: String::new(),
            fields: Fields::default(),
            body: Bytes::new(),
            dialect: Dialect::Json,
        }
    }

    /// Whether it answers a request.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether nobody waits for an answer.
    #[must_use]
    pub const fn is_one_way(&self) -> bool {
        self.flag & FLAG_ONE_WAY != 0
    }
}

/// The protocol version we claim (`MQVersion.V5_3_3`): clients and tools show it.
pub const VERSION: i32 = 493;

/// The named values of a command, in one piece of memory. The last value wins where a name stands twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    text: String,
    /// Where in `text` each name ends and each value ends; a name starts where the value before ended.
    ends: Vec<(u32, u32)>,
}

impl Fields {
    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        let mut found = None;
        for (start, &(name_end, value_end)) in starts.zip(&self.ends) {
            let (start, name_end) = (start as usize, name_end as usize);
            if name_end - start == name.len() && self.text.get(start..name_end) == Some(name) {
                found = Some(name_end..value_end as usize);
            }
        }
        self.text.get(found?)
    }

    /// All pairs, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&(name_end, value_end)| {
            let (name_end, value_end) = (name_end as usize, value_end as usize);
            let name = self.text.get(start..name_end)?;
            let value = self.text.get(name_end..value_end)?;
            start = value_end;
            Some((name, value))
        })
    }

    /// Adds a pair. Pairs beyond 4 GiB of text are left out.
    pub fn push(&mut self, name: &str, value: &str) {
        let name_end = self.text.len() + name.len();
        let (Ok(name_end), Ok(value_end)) = (
            u32::try_from(name_end),
            u32::try_from(name_end + value.len()),
        ) else {
            return;
        };
        self.text.push_str(name);
        self.text.push_str(value);
        self.ends.push((name_end, value_end));
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            fields.push(name, value);
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_wins() {
        let fields: Fields = [("topic", "a"), ("queueId", "3"), ("topic", "b")]
            .into_iter()
            .collect();
        assert_eq!(fields.get("topic"), Some("b"));
        assert_eq!(fields.get("queueId"), Some("3"));
        assert_eq!(fields.get("none"), None);
        assert_eq!(fields.iter().count(), 3);
    }
}
