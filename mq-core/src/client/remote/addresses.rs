//! Addresses of nameservers as users write them: pure.

use crate::client::ClientError;

/// The addresses in `list`: `HOST:PORT`, several separated by `;`, as every RocketMQ tool takes them.
///
/// # Errors
/// [`ClientError::Refused`] quotes what is no address.
pub(super) fn parse(list: &str) -> Result<Vec<String>, ClientError> {
    let addresses: Vec<String> = list
        .split(';')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect();
    if addresses.is_empty() {
        return Err(ClientError::Refused(
            "no nameserver is named; give its HOST:PORT, or set NAMESRV_ADDR".into(),
        ));
    }
    for address in &addresses {
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && !host.contains([',', ' ']))
            .and_then(|(_, port)| port.parse::<u16>().ok());
        if !matches!(port, Some(1..)) {
            return Err(ClientError::Refused(format!(
                "{address:?} is no address of a nameserver; write HOST:PORT, several separated by ';'"
            )));
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_are_separated_by_semicolons() {
        let addresses = parse(" a:9876 ;10.0.0.1:1;[::1]:65535;").unwrap();
        assert_eq!(addresses, ["a:9876", "10.0.0.1:1", "[::1]:65535"]);
        for wrong in ["a", "a:", ":9876", "a:0", "a:65536", "a:1,b:2", "a:1;b"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{wrong}: {error}");
        }
        let error = parse(" ; ").unwrap_err().to_string();
        assert!(error.contains("NAMESRV_ADDR"), "{error}");
    }
}
