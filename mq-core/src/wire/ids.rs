//! Message ids as clients write them: the offset id (RocketMQ `MessageDecoder.createMessageId`) and 128 bit ids in hex.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The offset id of the record at `position` on `host`: 32 upper-case hex digits.
#[must_use]
pub fn offset_id(host: SocketAddrV4, position: u64) -> String {
    let (ip, port) = (u32::from(*host.ip()), u32::from(host.port()));
    hex128(u128::from(ip) << 96 | u128::from(port) << 64 | u128::from(position))
}

/// Host and position of an offset id; `None` when it is not 32 hex digits or its port is no port.
#[must_use]
pub fn parse_offset_id(id: &str) -> Option<(SocketAddrV4, u64)> {
    let bits = parse_hex128(id)?;
    let port = u16::try_from((bits >> 64) & 0xFFFF_FFFF).ok()?;
    let ip = Ipv4Addr::from((bits >> 96) as u32);
    Some((SocketAddrV4::new(ip, port), bits as u64))
}

/// 128 bits as 32 upper-case hex digits.
#[must_use]
pub fn hex128(bits: u128) -> String {
    // By hand: this is asked several times for every message, and formatting 128 bits is slow.
    let digit = |nibble: u8| char::from(nibble + if nibble < 10 { b'0' } else { b'A' - 10 });
    let mut text = String::with_capacity(32);
    for byte in bits.to_be_bytes() {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// The 128 bits that 32 hex digits of either case stand for.
#[must_use]
pub fn parse_hex128(text: &str) -> Option<u128> {
    let (high, low) = text.as_bytes().split_at_checked(16)?;
    let half = |digits: &[u8]| {
        let digits: &[u8; 16] = digits.try_into().ok()?;
        digits.iter().try_fold(0_u64, |bits, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some(bits << 4 | u64::from(digit))
        })
    };
    Some(u128::from(half(high)?) << 64 | u128::from(half(low)?))
}

/// 128 bit ids as the body of a request: 16 bytes each, the highest first.
#[must_use]
pub fn to_bytes(ids: impl IntoIterator<Item = u128>) -> Vec<u8> {
    ids.into_iter().flat_map(u128::to_be_bytes).collect()
}

/// The ids of such a body; `None` when it ends within one.
#[must_use]
pub fn from_bytes(body: &[u8]) -> Option<Vec<u128>> {
    let (ids, rest) = body.as_chunks();
    let ids = ids.iter().map(|id| u128::from_be_bytes(*id)).collect();
    rest.is_empty().then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_are_upper_case_and_read_back() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89AB_CDEF_FEDC_BA98_7654_3210] {
            assert_eq!(hex128(bits), format!("{bits:032X}"));
            assert_eq!(parse_hex128(&hex128(bits)), Some(bits));
        }
    }

    #[test]
    fn a_body_of_ids_reads_back_and_must_be_whole() {
        let ids = vec![1, u128::MAX, 7 << 100];
        let body = to_bytes(ids.clone());
        assert_eq!(body.len(), 48);
        assert_eq!(from_bytes(&body), Some(ids));
        assert_eq!(from_bytes(&[]), Some(Vec::new()));
        assert_eq!(from_bytes(&body[1..]), None);
    }

    #[test]
    fn an_offset_id_is_address_port_and_position() {
        let host = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 10911);
        let id = offset_id(host, 0x1234);
        assert_eq!(id, "C0A8010200002A9F0000000000001234");
        assert_eq!(parse_offset_id(&id), Some((host, 0x1234)));
        assert_eq!(parse_offset_id("zz"), None);
        assert_eq!(parse_offset_id("C0A80102FFFFFFFF0000000000001234"), None);
    }
}
