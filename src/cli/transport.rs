//! How connections are protected, as it is said on the command line.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use elea_protocol::message::Transport;

/// Reads `encrypted` or `plain`.
pub fn transport() -> impl TypedValueParser<Value = Transport> {
    let encrypted =
        PossibleValue::new(Transport::Encrypted.name()).help("By TLS 1.3 (the default)");
    let plain = PossibleValue::new(Transport::Plain.name())
        .help("Not at all: whoever is on the way reads everything");
    PossibleValuesParser::new([encrypted, plain]).map(|name| {
        match name == Transport::Plain.name() {
            true => Transport::Plain,
            false => Transport::Encrypted,
        }
    })
}
