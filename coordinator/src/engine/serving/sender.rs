//! Which process sent a half message whose connection has not told. Pure.
//!
//! Java clients of 4.3.2 send over a connection of its own, which carries no heartbeat. But the id they give to a message
//! begins with their address and process number, and so does their client id (RocketMQ `MessageClientIDSetter`,
//! `ClientConfig.buildMQClientId`).

use std::net::Ipv4Addr;

use mq_core::wire::ids;

/// Whether the client called `client_id` made the message id `unique`.
pub(super) fn made(client_id: &str, unique: &str) -> bool {
    let Some((address, process)) = origin(unique) else {
        return false;
    };
    let Some((ip, instance)) = client_id.split_once('@') else {
        return false;
    };
    // An instance may be followed by a time (`#`) and a unit (`@`).
    let number = instance.split(['#', '@']).next().unwrap_or_default();
    ip.parse() == Ok(address)
        && number
            .parse::<u32>()
            .is_ok_and(|number| number & 0xFFFF == u32::from(process))
}

/// Address and lower half of the process number that a message id begins with.
fn origin(unique: &str) -> Option<(Ipv4Addr, u16)> {
    let bits = ids::parse_hex128(unique)?;
    let address = Ipv4Addr::from((bits >> 96) as u32);
    let process = (bits >> 80) as u16;
    Some((address, process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_java_clients_id_is_recognised_in_its_message_ids() {
        // 192.168.1.2, process 70000 (lower half 0x1170), the rest is counters.
        let unique = "C0A80102117073D16E937A5C5E2A0007";
        for client in [
            "192.168.1.2@70000",
            "192.168.1.2@4464",
            "192.168.1.2@70000#8123456789",
            "192.168.1.2@70000@unit",
        ] {
            assert!(made(client, unique), "{client}");
        }
        for other in [
            "192.168.1.3@70000",
            "192.168.1.2@70001",
            "192.168.1.2@DEFAULT",
            "192.168.1.2",
            "",
        ] {
            assert!(!made(other, unique), "{other}");
        }
        for unreadable in ["", "zz", "C0A80102"] {
            assert!(!made("192.168.1.2@70000", unreadable));
        }
    }
}
