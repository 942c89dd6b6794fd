//! Several messages in one body (RocketMQ `MessageDecoder.encodeMessages`).

use bytes::{Buf, BufMut, Bytes};

/// Most messages of one batch: far more than fit into the longest body with anything in them.
pub const BATCH_MAX_MESSAGES: usize = 65_536;

/// One message of a batch; topic, queue and the rest are the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMessage {
    /// The application's own flag.
    pub flag: i32,
    /// The body, a part of the batch's memory.
    pub body: Bytes,
    /// Encoded properties.
    pub properties: Bytes,
}

/// Why bytes are no batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// There is no message in it.
    #[error("the batch is empty")]
    Empty,
    /// A length is wrong.
    #[error("message {0} of the batch claims a length that does not fit")]
    Length(usize),
    /// Too many messages.
    #[error("the batch has more than {BATCH_MAX_MESSAGES} messages")]
    TooMany,
}

/// Writes one message behind others. Lengths were checked: body up to 4 MiB, properties up to 32,767 bytes.
pub fn push(batch: &mut Vec<u8>, flag: i32, body: &[u8], properties: &[u8]) {
    batch.put_i32((22 + body.len() + properties.len()) as i32);
    // Magic and checksum, which nobody fills in.
    batch.put_i64(0);
    batch.put_i32(flag);
    batch.put_i32(body.len() as i32);
    batch.put_slice(body);
    batch.put_u16(properties.len() as u16);
    batch.put_slice(properties);
}

/// Reads all messages of a batch.
///
/// # Errors
/// [`BatchError`].
pub fn decode(mut batch: Bytes) -> Result<Vec<BatchMessage>, BatchError> {
    let mut messages = Vec::new();
    while !batch.is_empty() {
        if messages.len() == BATCH_MAX_MESSAGES {
            return Err(BatchError::TooMany);
        }
        let number = messages.len();
        messages.push(next(&mut batch).ok_or(BatchError::Length(number))?);
    }
    if messages.is_empty() {
        return Err(BatchError::Empty);
    }
    Ok(messages)
}

fn next(batch: &mut Bytes) -> Option<BatchMessage> {
    let total = usize::try_from(batch.try_get_i32().ok()?)
        .ok()?
        .checked_sub(4)?;
    if total > batch.len() {
        return None;
    }
    let mut message = batch.split_to(total);
    let (_magic, _checksum) = (message.try_get_i32().ok()?, message.try_get_i32().ok()?);
    let flag = message.try_get_i32().ok()?;
    let body = usize::try_from(message.try_get_i32().ok()?).ok()?;
    if body > message.len() {
        return None;
    }
    let body = message.split_to(body);
    let properties = usize::from(message.try_get_u16().ok()?);
    (properties == message.len()).then_some(BatchMessage {
        flag,
        body,
        properties: message,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(messages: &[(i32, Vec<u8>, Vec<u8>)]) -> Bytes {
        let mut out = Vec::new();
        for (flag, body, properties) in messages {
            push(&mut out, *flag, body, properties);
        }
        out.into()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(
            messages in proptest::collection::vec(
                (any::<i32>(), proptest::collection::vec(any::<u8>(), 0..40), proptest::collection::vec(any::<u8>(), 0..40)),
                1..9,
            )
        ) {
            let read = decode(encode(&messages)).unwrap();
            let read: Vec<_> = read.into_iter().map(|m| (m.flag, m.body.to_vec(), m.properties.to_vec())).collect();
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..60_usize) {
            let _ = decode(bytes.into());
            let good = encode(&[(1, vec![2; 20], vec![3; 10])]);
            prop_assert!(at >= good.len() || at == 0 || decode(good.slice(..at)).is_err());
        }
    }

    #[test]
    fn an_empty_batch_is_refused() {
        assert_eq!(decode(Bytes::new()), Err(BatchError::Empty));
        assert_eq!(
            decode(Bytes::from_static(&[0, 0, 0, 3])),
            Err(BatchError::Length(0))
        );
    }
}
