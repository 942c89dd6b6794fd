//! Values as people write them, pure: addresses, sizes, times, switches. Errors complete a sentence about the value.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use coordinator::store::database::Database;
use mq_core::broker;
use mq_core::log::open::Settings as LogSettings;

/// `IP:PORT`.
///
/// # Errors
/// What to write instead.
pub fn address(text: &str) -> Result<SocketAddrV4, String> {
    text.parse()
        .map_err(|_| "is no address; write IP:PORT, such as 127.0.0.1:9876 or 0.0.0.0:9876".into())
}

/// The broker's `IP:PORT`; two below it another port is needed.
///
/// # Errors
/// What to write instead.
pub fn broker_address(text: &str) -> Result<SocketAddrV4, String> {
    let address = address(text)?;
    if address.port() < 3 {
        return Err(
            "has a port that leaves no room for the one two below it; write another".into(),
        );
    }
    Ok(address)
}

/// An IPv4 address that can be told to clients.
///
/// # Errors
/// What to write instead.
pub fn ip(text: &str) -> Result<Ipv4Addr, String> {
    let ip: Ipv4Addr = text
        .parse()
        .map_err(|_| "is no IPv4 address; RocketMQ clients need one, such as 192.168.1.10")?;
    if ip.is_unspecified() {
        return Err("is no address that clients can connect to; write the machine's own".into());
    }
    Ok(ip)
}

/// `HOST:PORT`, several separated by `;`.
///
/// # Errors
/// What to write instead.
pub fn nameservers(text: &str) -> Result<Vec<String>, String> {
    let all: Vec<String> = text
        .split([';', ','])
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect();
    let whole = |address: &String| {
        let parts = address.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if all.is_empty() || !all.iter().all(whole) {
        return Err("names no nameservers; write HOST:PORT, several separated by ;".into());
    }
    Ok(all)
}

/// The name of a broker or cluster.
///
/// # Errors
/// What is allowed.
pub fn name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-%".contains(c);
    if text.is_empty() || text.len() > 127 || !text.chars().all(allowed) {
        return Err(
            "is no name; 1 to 127 letters, digits, '.', '_', '-' and '%' are allowed".into(),
        );
    }
    Ok(text.to_owned())
}

/// On or off.
///
/// # Errors
/// What to write instead.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

/// Whether to acknowledge before the flush.
///
/// # Errors
/// What to write instead.
pub fn flush(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "sync" => Ok(false),
        "async" => Ok(true),
        _ => Err("is neither sync nor async".into()),
    }
}

/// A number from 1.
///
/// # Errors
/// What to write instead.
pub fn count(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| "is no number from 1 on".into())
}

/// How many queues a topic has.
///
/// # Errors
/// What is allowed.
pub fn queues(text: &str) -> Result<u32, String> {
    let most = broker::Settings::default().max_queues;
    count(text)
        .ok()
        .filter(|queues| *queues <= most)
        .ok_or_else(|| format!("is no count of queues; write 1 to {most}"))
}

/// A number of bytes: `1048576`, `96MiB`, `1g`.
///
/// # Errors
/// What to write instead.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        _ => None,
    };
    let bytes = number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "is no size; write such as 96MiB or 1GiB".into())
}

/// The length of a file of the log.
///
/// # Errors
/// What is allowed.
pub fn segment(text: &str) -> Result<u64, String> {
    let segment_bytes = size(text)?;
    let settings = LogSettings {
        segment_bytes,
        ..LogSettings::default()
    };
    match settings.check() {
        Ok(()) => Ok(segment_bytes),
        Err(_) => {
            Err("is no length of a log file; write a multiple of 4KiB from 16KiB to 1GiB".into())
        }
    }
}

/// A time: `6s`, `500ms`, `2m`, `1h`.
///
/// # Errors
/// What to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let each = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let ms = number
        .zip(each)
        .and_then(|(number, each)| number.checked_mul(each));
    ms.filter(|ms| *ms <= 7 * 24 * 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "is no time; write such as 500ms, 6s or 2m, at most 168h".into())
}

/// An age: `72h`, `30d`, or `forever`, which is `None`.
///
/// # Errors
/// What to write instead.
pub fn age(text: &str) -> Result<Option<Duration>, String> {
    if text.eq_ignore_ascii_case("forever") {
        return Ok(None);
    }
    let (number, unit) = number_and_unit(text);
    let each = match unit {
        "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3_600),
        "d" => Some(24 * 3_600),
        _ => None,
    };
    let seconds = number
        .zip(each)
        .and_then(|(number, each)| number.checked_mul(each));
    seconds
        .filter(|seconds| (1..=100 * 365 * 24 * 3_600).contains(seconds))
        .map(|seconds| Some(Duration::from_secs(seconds)))
        .ok_or_else(|| "is no age; write such as 72h or 30d, or forever".into())
}

/// The database, by its URL.
///
/// # Errors
/// What to write instead.
pub fn database(text: &str) -> Result<Database, String> {
    text.parse()
        .map_err(|_| "is not understood; write sqlite:PATH or postgres://USER@HOST/DATABASE".into())
}

fn number_and_unit(text: &str) -> (Option<u64>, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.parse().ok(), unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read() {
        assert_eq!(size("96MiB"), Ok(96 << 20));
        assert_eq!(size("96 m"), Ok(96 << 20));
        assert_eq!(size("7"), Ok(7));
        for wrong in [
            "",
            "MiB",
            "1.5g",
            "-1",
            "99999999999999999999",
            "17179869184g",
            "1t",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(age("72h"), Ok(Some(Duration::from_secs(72 * 3600))));
        assert_eq!(age("Forever"), Ok(None));
        for wrong in ["", "0h", "72", "1w", "36501d", "-1h"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "169h", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_read() {
        assert!(address("0.0.0.0:9876").is_ok());
        for wrong in ["localhost:9876", "9876", "127.0.0.1", "127.0.0.1:70000"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert!(broker_address("127.0.0.1:2").is_err());
        assert!(ip("0.0.0.0").is_err());
        assert_eq!(
            nameservers("a:1; b:2;"),
            Ok(vec!["a:1".into(), "b:2".into()])
        );
        for wrong in ["", ";", "a", "a:1;b", ":1", "a:x"] {
            assert!(nameservers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn other_values_are_read() {
        assert_eq!(switch("True"), Ok(true));
        assert!(switch("maybe").is_err());
        assert_eq!(flush("ASYNC"), Ok(true));
        assert!(queues("0").is_err() && queues("99999").is_err() && queues("8").is_ok());
        assert!(segment("100").is_err() && segment("64MiB").is_ok());
        assert!(name("a b").is_err() && name("broker-a").is_ok());
        assert_eq!(
            database("sqlite:a.db").unwrap().file(),
            Some("a.db".as_ref())
        );
        assert_eq!(database("postgres://x/y").unwrap().file(), None);
        assert!(database("mysql://x").is_err());
    }
}
