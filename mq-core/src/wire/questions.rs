//! Requests that a broker makes of its clients: whom among those behind one connection each is for.

use std::borrow::Cow;

use super::command::Command;
use super::record::RecordView;
use super::reserved;

/// Whom a broker's request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum For<'a> {
    /// The members of this consumer group: look at the group again.
    Consumers(Cow<'a, str>),
    /// The members of this producer group.
    Producers(Cow<'a, str>),
    /// Nobody that is known here.
    Nobody,
}

/// Whom `command` is for.
#[must_use]
pub fn addressee(command: &Command) -> For<'_> {
    match command.code {
        reserved::NOTIFY_CONSUMER_IDS_CHANGED => match command.fields.get("consumerGroup") {
            Some(group) => For::Consumers(group.into()),
            None => For::Nobody,
        },
        reserved::CHECK_TRANSACTION_STATE => {
            let record = RecordView::parse(&command.body).ok();
            let group = record.and_then(|view| view.properties.get(reserved::PRODUCER_GROUP));
            group.map_or(For::Nobody, |group| For::Producers(group.into()))
        }
        _ => For::Nobody,
    }
}

/// The fields of such a request that clients read.
#[must_use]
pub fn fields(command: &Command) -> Vec<(&'static str, String)> {
    const READ: [&str; 6] = [
        "consumerGroup",
        "tranStateTableOffset",
        "commitLogOffset",
        "msgId",
        "transactionId",
        "offsetMsgId",
    ];
    let field = |name: &'static str| Some((name, command.fields.get(name)?.to_owned()));
    READ.into_iter().filter_map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::NewRecord;
    use super::*;

    #[test]
    fn a_question_finds_the_group_it_is_for() {
        let mut record = Vec::new();
        let properties = b"TAGS\x01a\x02PGROUP\x01order-service\x02";
        let half = NewRecord {
            properties,
            ..NewRecord::new("orders", 0)
        };
        half.encode(&mut record);
        let mut question = Command {
            body: record.into(),
            ..Command::request(reserved::CHECK_TRANSACTION_STATE, 1)
        };
        question.fields.push("commitLogOffset", "7");
        question.fields.push("bname", "broker-a");
        assert_eq!(addressee(&question), For::Producers("order-service".into()));
        assert_eq!(fields(&question), [("commitLogOffset", "7".to_owned())]);
        question.body = bytes::Bytes::from_static(b"no record");
        assert_eq!(addressee(&question), For::Nobody);

        let mut changed = Command::request(reserved::NOTIFY_CONSUMER_IDS_CHANGED, 1);
        assert_eq!(addressee(&changed), For::Nobody);
        changed.fields.push("consumerGroup", "g");
        assert_eq!(addressee(&changed), For::Consumers("g".into()));
    }
}
