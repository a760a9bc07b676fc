//! Where a connection comes from: the peer, or, behind proxies that are trusted, whoever they say.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;

/// The client's address: the peer's, unless that is a trusted proxy; then the last in `X-Forwarded-For` that is none. What
/// stands before it is the client's own to write, and is not looked at.
pub fn client(peer: SocketAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let trusted = |address: &IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut address = peer.ip().to_canonical();
    if !trusted(&address) {
        return address;
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().rev();
    // Each part by itself: what a client has written may be no text, and says nothing about what stands behind it.
    let hops = forwarded.flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b','));
    for hop in hops {
        // What cannot be read was written by nobody who is trusted.
        let Some(hop) = std::str::from_utf8(hop).ok().and_then(|hop| read(hop.trim())) else {
            break;
        };
        address = hop;
        if !trusted(&address) {
            break;
        }
    }
    address
}

/// An address with or without a port.
fn read(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

/// The name under which connections are counted: of IPv6 the first 64 bits, which one household has to itself.
pub fn name(address: IpAddr) -> Box<str> {
    match address {
        IpAddr::V4(address) => address.to_string().into(),
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            std::net::Ipv6Addr::from(segments).to_string().into()
        }
    }
}

/// An address or a range of them.
///
/// # Errors
/// What is accepted.
pub fn range(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>()
        .ok()
        .or_else(one)
        .ok_or_else(|| "addresses or ranges, separated by commas, such as 10.0.0.0/8,192.168.7.1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, forwarded: &[&str]) -> String {
        let proxies = ["10.0.0.0/8", "192.168.7.1", "fd00::/8"].map(|text| range(text).unwrap());
        let mut headers = HeaderMap::new();
        for value in forwarded {
            let value = hyper::header::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append("x-forwarded-for", value);
        }
        client(SocketAddr::new(peer.parse().unwrap(), 7), &headers, &proxies).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(from("1.2.3.4", &["9.9.9.9"]), "1.2.3.4");
        assert_eq!(from("10.1.1.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(from("::ffff:10.1.1.1", &["9.9.9.9"]), "9.9.9.9");
        // Whatever the client has written before it.
        assert_eq!(from("10.1.1.1", &["1.1.1.1, 9.9.9.9"]), "9.9.9.9");
        assert_eq!(from("10.1.1.1", &["1.1.1.1", "9.9.9.9, 192.168.7.1"]), "9.9.9.9");
        assert_eq!(from("10.1.1.1", &["1.1.1.1, nonsense"]), "10.1.1.1");
        assert_eq!(from("10.1.1.1", &["1.1.1.1, nonsense, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(from("10.1.1.1", &["\u{e9}, 9.9.9.9"]), "9.9.9.9");
        assert_eq!(from("10.1.1.1", &["9.9.9.9, \u{e9}"]), "10.1.1.1");
        assert_eq!(from("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(from("fd00::1", &["[2001:db8::7]:443"]), "2001:db8::7");
    }

    #[test]
    fn a_household_counts_as_one() {
        let name = |text: &str| name(text.parse().unwrap()).into_string();
        assert_eq!(name("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(name("9.9.9.9"), "9.9.9.9");
        assert!(range("10.0.0.0/33").is_err() && range("x").is_err());
    }
}
