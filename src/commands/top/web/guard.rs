//! Whose requests are answered: those of pages that this machine served.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{HOST, ORIGIN};

/// The path of streams, which other pages are not to hold.
const EVENTS: &str = "/events";

/// By which names it may be asked for. Its port may be another one, where the way to it is a tunnel.
#[derive(Debug)]
pub struct Hosts {
    named: String,
    bound: IpAddr,
}

impl Hosts {
    /// Of what listens at an address that was written so.
    pub fn of(address: &str, at: SocketAddr) -> Self {
        Self { named: name(address).unwrap_or_default(), bound: at.ip() }
    }

    /// Why a request is not answered, if it is not.
    pub fn refusal(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        let headers = request.headers();
        let hosts: Vec<_> = headers.get_all(HOST).iter().collect();
        let host = match hosts[..] {
            [host] => host.to_str().ok().and_then(name),
            _ => None,
        };
        let written = request.uri().host();
        if !host.is_some_and(|host| self.is_ours(&host))
            || written.is_some_and(|host| !self.is_ours(host))
        {
            let why = "this is not the name of the machine that shows the page: use the address that it printed\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, why));
        }
        let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        let is_of_other = origin.is_some_and(|origin| {
            let host = origin.strip_prefix("http://").and_then(name);
            !host.is_some_and(|host| self.is_ours(&host))
        });
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        let is_from_elsewhere = site.is_some_and(|site| site != b"same-origin" && site != b"none");
        if is_of_other || is_from_elsewhere && request.uri().path() == EVENTS {
            return Some((
                StatusCode::FORBIDDEN,
                "this is for the page itself, and for no other page\n",
            ));
        }
        None
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        match host.parse::<IpAddr>() {
            // No name stands behind a number. One that is not the own reaches nothing here, but for a tunnel's end.
            Ok(number) => {
                number.is_loopback() || number == self.bound || self.bound.is_unspecified()
            }
            Err(_) => host == "localhost" || host == self.named,
        }
    }
}

/// The host of `host:port`, in small letters, without brackets.
fn name(address: &str) -> Option<String> {
    let host = match address.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => address.split_once(':').map_or(address, |(host, _)| host),
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}
