//! 36: messages that a consumer wants to see again later.

use super::fields;
use super::refusals::Answered;
use crate::broker::{Broker, SendBack};
use crate::log::Position;
use crate::remoting::service::Answer;
use crate::wire::command::Command;

/// The first protocol version whose clients say how often a message may be consumed again (`MQVersion.V3_4_9`).
const SAYS_RETRIES: i32 = 121;

/// Stores a copy for later, or for the dead letters; durable when it returns.
pub(super) async fn send_back(broker: Broker, command: Command) -> Answered {
    let fields = &command.fields;
    let retries: Option<i32> = match command.version {
        SAYS_RETRIES.. => fields::optional(fields, "maxReconsumeTimes")?,
        _ => None,
    };
    let request = SendBack {
        group: fields::parsed(fields, "group")?,
        position: Position(fields::parsed(fields, "offset")?),
        delay_level: fields::parsed(fields, "delayLevel")?,
        retries: retries.and_then(|retries| u32::try_from(retries).ok()),
    };
    broker.send_back(request).await?;
    Ok(Answer::done())
}
