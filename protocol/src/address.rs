//! Addresses, `host:port`: which of them others can dial.
//!
//! A host is a name, an IPv4 address, or an IPv6 address in brackets. All replicas and clients read the
//! same cluster file, so what means something else on each machine, or nothing, is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name that the name service knows.
const NAME_MAX: usize = 253;

/// Why nobody could be reached at an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// There is no colon with a port behind it.
    #[error("an address is `host:port`, for example \"127.0.0.1:7100\"")]
    NoPort,
    /// The port is no number, or none that can be dialled.
    #[error("a port is a number from 1 to 65535, and `{0}` is none")]
    Port(String),
    /// There is nothing before the port.
    #[error("the host is empty: name the machine, or give its IP address")]
    NoHost,
    /// A host with colons that is no IPv6 address.
    #[error(
        "`{0}` is no host: give a name, an IPv4 address, or an IPv6 address, without a port and without `//`"
    )]
    Colons(String),
    /// An IPv6 address stands without brackets where a port follows.
    #[error("an IPv6 address stands in brackets before the port, for example \"[{0}]:7100\"")]
    Brackets(Ipv6Addr),
    /// Neither a name nor an IP address.
    #[error(
        "`{0}` is no host: a name has letters, digits, `-`, `_` and dots, and an IPv4 address four numbers up to 255"
    )]
    Name(String),
    /// An IPv6 address with a zone.
    #[error("`{0}` has a zone, which is another one on each machine: give an address without")]
    Zone(String),
    /// The address stands for all of a machine's.
    #[error(
        "{0} is no address that others could dial: name the machine, or give its address; `elea replica --listen` says where to listen"
    )]
    Unspecified(IpAddr),
    /// The address is that of many machines.
    #[error("{0} is an address of many machines: give that of one")]
    Many(IpAddr),
}

/// The host as it stands before a port: an IPv6 address in brackets.
///
/// # Errors
/// Why nobody could be reached there.
pub fn host(text: &str) -> Result<String, BadAddress> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if inner.is_some() || text.contains(':') {
        return six(inner.unwrap_or(text)).map(|ip| format!("[{ip}]"));
    }
    if text.is_empty() {
        return Err(BadAddress::NoHost);
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return reachable(ip.into()).map(|()| text.to_owned());
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // Whatever ends like an IPv4 address is taken for one by whoever resolves it.
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let has_gap = text.starts_with('.') || text.contains("..");
    if text.len() > NAME_MAX || has_gap || is_number || !text.chars().all(fits) {
        return Err(BadAddress::Name(shown(text)));
    }
    Ok(text.to_owned())
}

/// Whether others can dial this `host:port`; gives it back as one and the same text for one and the
/// same place, as far as that can be told without asking anybody.
///
/// # Errors
/// Why they cannot.
pub fn check(text: &str) -> Result<String, BadAddress> {
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Err(BadAddress::Brackets(ip));
    }
    let (before, port) = text.rsplit_once(':').ok_or(BadAddress::NoPort)?;
    let number = port.parse::<u16>().ok();
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.filter(|number| *number > 0 && is_port);
    let number = number.ok_or_else(|| BadAddress::Port(shown(port)))?;
    if let Ok(ip) = before.parse::<Ipv6Addr>() {
        return Err(BadAddress::Brackets(ip));
    }
    let host = host(before)?.to_ascii_lowercase();
    Ok(format!("{}:{number}", host.trim_end_matches('.')))
}

/// As it can stand in a sentence, on one line.
fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}

fn six(text: &str) -> Result<Ipv6Addr, BadAddress> {
    if text.contains('%') {
        return Err(BadAddress::Zone(shown(text)));
    }
    let ip = text.parse::<Ipv6Addr>().map_err(|_| BadAddress::Colons(shown(text)))?;
    reachable(ip.to_canonical()).map(|()| ip)
}

fn reachable(ip: IpAddr) -> Result<(), BadAddress> {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() {
        return Err(BadAddress::Unspecified(ip));
    }
    if ip.is_multicast() || is_broadcast {
        return Err(BadAddress::Many(ip));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_that_can_be_dialled_are_told_from_those_that_cannot() {
        for (text, is) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[::1]", "[::1]"),
            ("0:0::1", "[::1]"),
            ("::ffff:10.0.0.1", "[::ffff:10.0.0.1]"),
            ("localhost", "localhost"),
            ("Node-a.example_1.org.", "Node-a.example_1.org."),
            ("3com", "3com"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(is), "{text}");
        }
        for (text, says) in [
            ("", "the host is empty"),
            (" ", "no host"),
            ("two words", "no host"),
            ("tab\there", "`tab\\there` is no host"),
            ("two\nlines", "`two\\nlines` is no host"),
            ("node:7100", "without a port"),
            ("127.0.0.1:7100", "without a port"),
            ("[::1]:7100", "without a port"),
            ("http://node", "without `//`"),
            ("[node]", "no host"),
            ("[]", "no host"),
            ("[::1", "no host"),
            ("::1]", "no host"),
            ("127.0.0.256", "up to 255"),
            ("10.1", "up to 255"),
            ("1", "up to 255"),
            ("a..b", "no host"),
            (".a", "no host"),
            ("bücher.example", "no host"),
            ("user@node", "no host"),
            ("0.0.0.0", "--listen"),
            ("::", "--listen"),
            ("[::]", "--listen"),
            ("::ffff:0.0.0.0", "--listen"),
            ("224.0.0.1", "many machines"),
            ("255.255.255.255", "many machines"),
            ("ff02::1", "many machines"),
            ("fe80::1%eth0", "zone"),
        ] {
            let error = host(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(host(&"a".repeat(254)).is_err());
    }

    #[test]
    fn addresses_need_a_port_and_one_place_is_one_text() {
        for (text, is) in
            [("node:1", "node:1"), ("NODE.:007", "node:7"), ("[0::1]:65535", "[::1]:65535")]
        {
            assert_eq!(check(text).as_deref(), Ok(is), "{text}");
        }
        for (text, says) in [
            ("node", "host:port"),
            ("node:", "a port is"),
            ("node:0", "a port is"),
            ("node:65536", "a port is"),
            ("node:+1", "a port is"),
            ("node: 1", "a port is"),
            (":1", "the host is empty"),
            ("::1", "in brackets"),
            ("::1:7100", "in brackets"),
            ("fe80::2:3:4:5:6:7:7100", "in brackets"),
            ("node:1:2", "no host"),
        ] {
            let error = check(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_what_passes_has_one_form(text in any::<String>()) {
            if let Ok(form) = check(&text) {
                prop_assert_eq!(check(&form), Ok(form));
            }
            let _ = host(&text);
        }
    }
}
