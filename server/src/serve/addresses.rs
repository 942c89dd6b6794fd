//! Which address clients are told, and whether they can reach it.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use crate::failure::Failure;
use crate::settings::Settings;

/// An address of the range for documentation: no packet is ever sent there.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// Where this very process reaches what listens at `listen`.
pub(super) fn reachable(listen: SocketAddrV4) -> SocketAddrV4 {
    if listen.ip().is_unspecified() {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, listen.port())
    } else {
        listen
    }
}

/// The address to tell clients, and a warning if they will not reach the broker there.
///
/// # Errors
/// [`Failure::Environment`]: none was given and the machine's own cannot be found out.
pub(super) fn advertised(settings: &Settings) -> Result<(SocketAddrV4, Option<String>), Failure> {
    let listen = settings.broker_listen;
    let ip = match settings.advertise {
        Some(ip) => ip,
        None if listen.ip().is_unspecified() => own().ok_or_else(|| {
            Failure::Environment(
                "the address to tell clients cannot be found out; give brokerIP1 in the file or HALFMOON_BROKER_ADVERTISE=IP".into(),
            )
        })?,
        None => *listen.ip(),
    };
    let told = SocketAddrV4::new(ip, listen.port());
    Ok((told, warning(listen, told)))
}

/// What is bound to one address is reached through that address only.
fn warning(listen: SocketAddrV4, told: SocketAddrV4) -> Option<String> {
    if listen.ip().is_unspecified() || listen.ip() == told.ip() {
        return None;
    }
    Some(format!(
        "clients are told {told}, but the broker listens on {listen} only and they will not reach it; add the line bindAddress=0.0.0.0 to broker.conf, or set HALFMOON_BROKER_LISTEN=0.0.0.0:{}",
        listen.port()
    ))
}

/// The address under which the machine speaks to others.
fn own() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: the operating system only chooses a way.
    socket.connect(ELSEWHERE).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
        std::net::IpAddr::V4(_) | std::net::IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn who_is_told_an_address_that_nobody_listens_on_is_warned() {
        let warned = warning(at("127.0.0.1:10911"), at("10.0.0.1:10911")).unwrap();
        assert!(warned.contains("bindAddress=0.0.0.0"), "{warned}");
        assert_eq!(warning(at("0.0.0.0:10911"), at("10.0.0.1:10911")), None);
        assert_eq!(warning(at("10.0.0.1:10911"), at("10.0.0.1:10911")), None);
        assert_eq!(reachable(at("0.0.0.0:9876")), at("127.0.0.1:9876"));
    }
}
