//! The cluster file: who belongs to a cluster, where they listen, and how they are tuned.
//!
//! Text in, values out: nothing here reads a disk. The file is public. Whoever writes one by hand
//! is told the line that is wrong and what to do about it.
//!
//! ```
//! use elea_protocol::cluster_file::ClusterFile;
//! let text = r#"
//!     name = "example"
//!     f = 0
//!     clients = "open"
//!     [[replica]]
//!     id = 0
//!     public_key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
//!     address = "127.0.0.1:7100"
//!     [tuning]
//!     commit_interval = 16
//! "#;
//! let file = ClusterFile::parse(text)?;
//! assert_eq!(file.addresses, ["127.0.0.1:7100"]);
//! assert_eq!(file.tuning.commit_interval, 16);
//!
//! let error = ClusterFile::parse(&text.replace("f = 0", "f = 1")).unwrap_err();
//! assert_eq!(error.line, 3);
//! # Ok::<(), elea_protocol::cluster_file::BadClusterFile>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::address;
use crate::id::{ClientId, Digest, ReplicaId, hex, unhex};
use crate::membership::{BadMembership, Membership};
use crate::signature::{Ed25519, PublicKey};
use crate::tuning::Tuning;

/// What a cluster file says, checked.
#[derive(Clone, Debug)]
pub struct ClusterFile {
    /// The members and who may use them. Signatures are Ed25519.
    pub membership: Membership,
    /// Where each replica listens, `host:port`, in the order of their ids.
    pub addresses: Vec<String>,
    /// The clients listed, in the order of the file; `None` where the cluster is open.
    pub clients: Option<Vec<ListedClient>>,
    /// The `[tuning]` table over the defaults.
    pub tuning: Tuning,
    /// When a record counts as written.
    pub durability: Durability,
    /// The `[application]` table: limits of what is replicated, for the application to read. Like
    /// [`Rules`](crate::tuning::Rules) they must be equal on all replicas.
    pub application: toml::Table,
}

/// A client that may use the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedClient {
    /// Its key.
    pub id: ClientId,
    /// For people only.
    pub name: Option<String>,
}

/// When a replica believes that what it wrote is still there after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When the disk says so (`fsync`): it survives a power failure. What the protocol's promises
    /// rest on.
    #[default]
    Sync,
    /// When the operating system has it: it survives `kill -9` but no power failure. For tests
    /// and for machines of which at most `f` lose power together.
    Os,
}

/// Why a text is no cluster file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct BadClusterFile {
    /// The line at fault, from 1.
    pub line: usize,
    /// What is wrong and what to do, in one sentence.
    pub message: String,
}

/// The file as TOML sees it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Spanned<String>,
    f: Spanned<i64>,
    #[serde(default)]
    initial_state: Option<Spanned<String>>,
    #[serde(default)]
    clients: Option<Spanned<Clients>>,
    #[serde(default)]
    durability: Durability,
    #[serde(default)]
    replica: Vec<Spanned<RawReplica>>,
    #[serde(default)]
    client: Vec<RawClient>,
    #[serde(default)]
    tuning: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    #[serde(default)]
    application: toml::Table,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Clients {
    Open,
    Listed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReplica {
    id: Spanned<i64>,
    public_key: Spanned<String>,
    address: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {
    name: Option<String>,
    public_key: Spanned<String>,
}

/// Knows the text, so that it can name lines.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn line(&self, offset: usize) -> usize {
        let bytes = self.0.as_bytes();
        let before = bytes.get(..offset).unwrap_or(bytes);
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn wrong(&self, span: Range<usize>, message: impl Into<String>) -> BadClusterFile {
        // What it quotes may hold anything.
        let visible = |c: char| match c.is_control() {
            true => c.escape_debug().to_string(),
            false => c.to_string(),
        };
        let message = message.into().chars().map(visible).collect();
        BadClusterFile { line: self.line(span.start), message }
    }

    fn not_toml(&self, error: &toml::de::Error) -> BadClusterFile {
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        let message = message.replace("expected i64", "expected a whole number");
        let advice = if message.starts_with("missing field") {
            ": add it"
        } else if message.starts_with("unknown field") {
            ": remove it or correct its name"
        } else {
            ""
        };
        self.wrong(error.span().unwrap_or(0..0), format!("{message}{advice}"))
    }

    fn key(&self, text: &Spanned<String>) -> Result<PublicKey, BadClusterFile> {
        unhex(text.get_ref()).map(PublicKey).ok_or_else(|| {
            self.wrong(
                text.span(),
                "a public key is 64 hexadecimal digits; copy it from the output of `elea init`",
            )
        })
    }
}

impl ClusterFile {
    /// Reads a cluster file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, BadClusterFile> {
        let source = Source(text);
        let raw: Raw = toml::from_str(text).map_err(|error| source.not_toml(&error))?;
        let faulty = u8::try_from(*raw.f.get_ref()).map_err(|_| {
            source
                .wrong(raw.f.span(), "`f` must be 0 to 10, the number of faulty replicas to stand")
        })?;
        let replicas = replicas(&source, &raw)?;
        let listed = clients(&source, &raw)?;
        let tuning = tuning(&source, &raw.tuning)?;
        let initial_state = initial_state(&source, &raw)?;
        let keys = replicas.iter().map(|replica| replica.key).collect();
        let admitted =
            listed.as_ref().map(|listed| listed.iter().map(|(client, _)| client.id).collect());
        let membership = Membership::new(
            raw.name.get_ref().clone(),
            faulty,
            keys,
            admitted,
            Arc::new(Ed25519::default()),
        )
        .map_err(|bad| {
            let replica = |id: ReplicaId| {
                replicas.get(usize::from(id.0)).map_or(0..0, |replica| replica.key_span.clone())
            };
            let (span, advice) = match &bad {
                BadMembership::Size(_) => {
                    (raw.f.span(), ": lower `f` or list as many replicas as it needs")
                }
                BadMembership::Name(_) => (raw.name.span(), ""),
                BadMembership::WeakReplicaKey(id) => {
                    (replica(*id), ": anybody could sign for it, make a new one")
                }
                BadMembership::SharedKey(_, second) => {
                    (replica(*second), ": one key must not vote twice, make another")
                }
                BadMembership::Clients(_) => {
                    let last = listed.iter().flatten().next_back();
                    let span = last.map_or(0..0, |(_, span)| span.clone());
                    (span, ": list those who need it, or set `clients = \"open\"`")
                }
                BadMembership::WeakClientKey(weak) => {
                    let span = listed.iter().flatten().find(|(client, _)| client.id == *weak);
                    let span = span.map_or(0..0, |(_, span)| span.clone());
                    (span, ": anybody could sign for it, make a new one")
                }
            };
            source.wrong(span, format!("{bad}{advice}"))
        })?;
        let membership = match initial_state {
            Some(state) => membership.beginning_with(state),
            None => membership,
        };
        Ok(Self {
            membership,
            addresses: replicas.into_iter().map(|replica| replica.address).collect(),
            clients: listed.map(|listed| listed.into_iter().map(|(client, _)| client).collect()),
            tuning,
            durability: raw.durability,
            application: raw.application,
        })
    }

    /// The file as text, with comments, as `elea init` writes it. [`ClusterFile::parse`] reads it
    /// back.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(HEADER);
        let mut put = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        let quoted = |value: &str| toml::Value::from(value).to_string();
        let size = self.membership.size();
        put(format!("name = {}", quoted(self.membership.name())));
        put(String::from(
            "# How many replicas may lie or break at one time; needs 3 f + 1 of them.",
        ));
        put(format!("f = {}", size.faulty()));
        if let Some(state) = self.membership.initial_state() {
            put(String::from(
                "# It begins with the state of a backup, which `elea restore` fills in.",
            ));
            put(format!("initial_state = \"{}\"", hex(&state.0)));
        }
        if self.clients.is_none() {
            put(String::from(
                "# Any key may use the cluster; `max_clients` of them are remembered.",
            ));
            put(String::from("clients = \"open\""));
        }
        if self.durability == Durability::Os {
            put(String::from("# Records survive `kill -9` of a replica, but no power failure."));
            put(String::from("durability = \"os\""));
        }
        for (id, address) in size.members().zip(&self.addresses) {
            let key = self.membership.replica_key(id).map_or_else(String::new, |key| hex(&key.0));
            put(format!(
                "\n[[replica]]\nid = {}\npublic_key = \"{key}\"\naddress = {}",
                id.0,
                quoted(address)
            ));
        }
        for client in self.clients.iter().flatten() {
            put(String::from("\n[[client]]"));
            if let Some(name) = &client.name {
                put(format!("name = {}", quoted(name)));
            }
            put(format!("public_key = \"{}\"", hex(&client.id.0)));
        }
        text.push_str(&tuning_text(&self.tuning));
        if !self.application.is_empty() {
            text.push_str("\n# Must be equal on all replicas.\n[application]\n");
            text.push_str(&self.application.to_string());
        }
        text
    }
}

const HEADER: &str = "\
# An Elea cluster. This file is public: it holds no secret. Give the same one to every replica
# and to every client. The name, `f`, the replicas' keys and `initial_state`, if it is there, make
# the cluster what it is and can never change; an address may, since a replica is known by its key.
";

fn initial_state(source: &Source<'_>, raw: &Raw) -> Result<Option<Digest>, BadClusterFile> {
    let Some(text) = &raw.initial_state else { return Ok(None) };
    let state = unhex(text.get_ref()).map(Digest).ok_or_else(|| {
        source.wrong(
            text.span(),
            "an initial state is 64 hexadecimal digits; `elea init --from BACKUP` writes them",
        )
    })?;
    Ok(Some(state))
}

struct Replica {
    key: PublicKey,
    key_span: Range<usize>,
    address: String,
}

fn replicas(source: &Source<'_>, raw: &Raw) -> Result<Vec<Replica>, BadClusterFile> {
    let count = raw.replica.len();
    let mut by_id = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for entry in &raw.replica {
        let RawReplica { id, public_key, address } = entry.get_ref();
        let Some(index) = usize::try_from(*id.get_ref()).ok().filter(|index| *index < count) else {
            let message = format!(
                "there are {count} replicas, so their ids are 0 to {}: number them so",
                count - 1
            );
            return Err(source.wrong(id.span(), message));
        };
        let place = address.get_ref();
        let form =
            address::check(place).map_err(|bad| source.wrong(address.span(), bad.to_string()))?;
        if !addresses.insert(form) {
            let message = format!("another replica has the address {place}: give each its own");
            return Err(source.wrong(address.span(), message));
        }
        let replica = Replica {
            key: source.key(public_key)?,
            key_span: public_key.span(),
            address: place.clone(),
        };
        if by_id.insert(index, replica).is_some() {
            let message = format!("another replica has the id {index}: give each its own");
            return Err(source.wrong(id.span(), message));
        }
    }
    Ok(by_id.into_values().collect())
}

type Placed = (ListedClient, Range<usize>);

fn clients(source: &Source<'_>, raw: &Raw) -> Result<Option<Vec<Placed>>, BadClusterFile> {
    let is_open = raw.clients.as_ref().is_some_and(|word| *word.get_ref() == Clients::Open);
    let span = raw.clients.as_ref().map_or(0..0, Spanned::span);
    match (is_open, raw.client.is_empty()) {
        (true, true) => return Ok(None),
        (true, false) => {
            let message = "the cluster is open and yet lists clients: remove \
                           `clients = \"open\"` or every [[client]]";
            return Err(source.wrong(span, message));
        }
        (false, true) => {
            let message = "nobody could use this cluster: add a [[client]] with its public_key, \
                           or `clients = \"open\"` above the first table";
            return Err(source.wrong(span, message));
        }
        (false, false) => {}
    }
    let mut known = BTreeSet::new();
    let listed = raw.client.iter().map(|client| {
        let key = source.key(&client.public_key)?;
        if !known.insert(key) {
            let message = "this client is listed twice: remove one of the two";
            return Err(source.wrong(client.public_key.span(), message));
        }
        let listed = ListedClient { id: key.into(), name: client.name.clone() };
        Ok((listed, client.public_key.span()))
    });
    listed.collect::<Result<Vec<_>, _>>().map(Some)
}

/// All settings with their defaults, flat, and whether each is one of the rules.
fn settings(tuning: &Tuning) -> Vec<(String, toml::Value, bool)> {
    let Ok(toml::Value::Table(table)) = toml::Value::try_from(tuning) else {
        unreachable!("every tuning is a table of integers");
    };
    let mut flat = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(rules) => {
                flat.extend(rules.into_iter().map(|(name, value)| (name, value, true)));
            }
            value => flat.push((name, value, false)),
        }
    }
    flat
}

/// The `[tuning]` table is flat for whoever writes it; that some of it must be equal on all
/// replicas is no reason for a second table, since all replicas get the same file.
fn tuning(
    source: &Source<'_>,
    table: &BTreeMap<Spanned<String>, Spanned<toml::Value>>,
) -> Result<Tuning, BadClusterFile> {
    let known = settings(&Tuning::default());
    let (mut own, mut rules) = (toml::Table::new(), toml::Table::new());
    for (name, value) in table {
        let Some((_, default, is_rule)) = known.iter().find(|(k, ..)| k == name.get_ref()) else {
            let names: Vec<_> = known.iter().map(|(name, ..)| name.as_str()).collect();
            let message =
                format!("`{}` is no setting; there are {}", name.get_ref(), names.join(", "));
            return Err(source.wrong(name.span(), message));
        };
        let fits = value.get_ref().same_type(default)
            && value.get_ref().as_integer().is_none_or(|number| number >= 0);
        if !fits {
            let message = format!(
                "`{}` must be a whole number without quotes, for example {default}",
                name.get_ref()
            );
            return Err(source.wrong(value.span(), message));
        }
        let to = if *is_rule { &mut rules } else { &mut own };
        to.insert(name.get_ref().clone(), value.get_ref().clone());
    }
    if !rules.is_empty() {
        own.insert(String::from("rules"), rules.into());
    }
    let start = table.keys().map(|name| name.span().start).min().unwrap_or(0);
    let tuning: Tuning = own.try_into().map_err(|error: toml::de::Error| {
        source.wrong(start..start, error.message().lines().collect::<Vec<_>>().join("; "))
    })?;
    tuning.check().map_err(|bad| {
        // A default can become wrong by what another line says: then the table is at fault.
        let span = table.keys().find(|name| name.get_ref() == bad.name);
        source.wrong(span.map_or(start..start, Spanned::span), bad.to_string())
    })?;
    Ok(tuning)
}

fn tuning_text(tuning: &Tuning) -> String {
    let default = settings(&Tuning::default());
    let changed: Vec<_> =
        settings(tuning).into_iter().filter(|setting| !default.contains(setting)).collect();
    if changed.is_empty() {
        return String::from(
            "\n# Settings other than the defaults stand under [tuning]; see docs/operations.md.\n",
        );
    }
    let mut text = String::from("\n# All replicas must have the same settings.\n[tuning]\n");
    for (name, value, _) in changed {
        writeln!(text, "{name} = {value}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signature::{SecretKey, Signer as _};

    fn key(secret: u8) -> PublicKey {
        SecretKey::from_bytes(&[secret; 32]).public_key()
    }

    fn file(replicas: u8, clients: Option<u8>, tuning: Tuning) -> ClusterFile {
        let keys = (0..replicas).map(key).collect();
        let listed: Option<Vec<_>> = clients.map(|count| {
            (0..count)
                .map(|n| ListedClient {
                    id: key(100 + n).into(),
                    name: (n % 2 == 0).then(|| format!("client \"{n}\"")),
                })
                .collect()
        });
        let admitted = listed.as_ref().map(|listed| listed.iter().map(|c| c.id).collect());
        ClusterFile {
            membership: Membership::new(
                "a \"quoted\" name",
                (replicas - 1) / 3,
                keys,
                admitted,
                Arc::new(Ed25519::default()),
            )
            .expect("sound"),
            addresses: (0..replicas).map(|n| format!("[::1]:{}", 7100 + u16::from(n))).collect(),
            clients: listed,
            tuning,
            durability: Durability::Os,
            application: toml::Table::from_iter([("key_bytes".to_owned(), 64.into())]),
        }
    }

    #[test]
    fn what_is_written_parses_back() {
        let mut tuned = Tuning { commit_interval: 7, ..Tuning::default() };
        tuned.rules.session_window = 9;
        for replicas in [1, 4, 31] {
            for clients in [None, Some(1), Some(3)] {
                for tuning in [Tuning::default(), tuned] {
                    let file = file(replicas, clients, tuning);
                    let text = file.to_text();
                    let again = ClusterFile::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                    assert_eq!(again.membership.genesis(), file.membership.genesis());
                    assert_eq!(again.addresses, file.addresses);
                    assert_eq!(again.clients, file.clients);
                    assert_eq!(again.membership.is_open(), clients.is_none());
                    assert_eq!(again.tuning, tuning);
                    assert_eq!(again.durability, file.durability);
                    assert_eq!(again.application, file.application);
                    assert_eq!(again.to_text(), text);
                }
            }
        }
    }

    #[test]
    fn an_initial_state_makes_another_cluster_and_parses_back() {
        let plain = file(4, Some(1), Tuning::default());
        let membership = plain.membership.clone().beginning_with(Digest([9; 32]));
        let file = ClusterFile { membership, ..plain.clone() };
        assert_ne!(file.membership.genesis(), plain.membership.genesis());
        let text = file.to_text();
        let again = ClusterFile::parse(&text).expect("sound");
        assert_eq!(again.membership.genesis(), file.membership.genesis());
        assert_eq!(again.membership.initial_state(), Some(&Digest([9; 32])));
        let other = file.membership.beginning_with(Digest([8; 32]));
        assert_ne!(other.genesis(), again.membership.genesis());
        let bad = ClusterFile::parse(&text.replace(&"09".repeat(32), "09")).expect_err("short");
        assert!(bad.message.contains("64 hexadecimal digits"), "{bad}");
    }

    /// Every mistake is answered with the line that holds it. `{line}` counts from what `change`
    /// finds, so that the table does not depend on the header.
    #[test]
    fn mistakes_are_named_with_their_line() {
        let text = file(4, Some(2), Tuning::default()).to_text();
        let key_of = |n: u8| hex(&key(n).0);
        let weak = "01".to_owned() + &"00".repeat(31);
        let cases: &[(&str, &str, &str)] = &[
            ("f = 1", "f = 2", "at least 7"),
            ("f = 1", "f = -1", "0 to 10"),
            ("f = 1", "f = \"one\"", "expected a whole number"),
            ("f = 1", "f = 1\ng = 2\n", "unknown field `g`"),
            ("f = 1", "f == 1", ""),
            ("id = 3", "id = 4", "0 to 3"),
            ("id = 3", "id = 2", "another replica has the id 2"),
            (&key_of(1), &key_of(0), "the same public key"),
            (&key_of(2), &weak, "weak"),
            (&key_of(2), "abc", "64 hexadecimal digits"),
            (&key_of(100), &weak, "weak"),
            (&key_of(101), &key_of(100), "listed twice"),
            ("[::1]:7103", "[::1]:7102", "another replica has the address"),
            ("[::1]:7103", "localhost", "host:port"),
            ("[::1]:7103", "[0::1]:7102", "another replica has the address"),
            ("[::1]:7103", "::1:7103", "in brackets"),
            ("[::1]:7103", "h:0", "a port is a number"),
            ("[::1]:7103", "0.0.0.0:7103", "--listen"),
        ];
        for (old, new, says) in cases {
            let changed = text.replacen(old, new, 1);
            assert_ne!(changed, text, "{old}");
            let error = ClusterFile::parse(&changed).expect_err(new);
            assert!(error.message.contains(says), "{new}: {error}");
            assert!(!error.message.contains('\n'), "{error}");
            let at = text.lines().position(|line| line.contains(old)).expect("there") + 1;
            let last = at + new.matches('\n').count();
            assert!((at..=last).contains(&error.line), "{new}: {error}, expected {at}");
        }
        let missing = ClusterFile::parse("name = \"x\"").expect_err("no f");
        assert_eq!(missing.message, "missing field `f`: add it");
        let nobody = text.split("\n[[client]]").next().expect("a head");
        assert!(ClusterFile::parse(nobody).is_err_and(|e| e.message.contains("nobody could use")));
        let open = format!("clients = \"open\"\n{nobody}");
        assert!(ClusterFile::parse(&open).is_ok_and(|file| file.membership.is_open()));
        let both = format!("clients = \"open\"\n{text}");
        assert_eq!(ClusterFile::parse(&both).map_err(|e| e.line).err(), Some(1));
    }

    #[test]
    fn settings_are_checked_with_their_line() {
        let text = file(1, None, Tuning::default()).to_text();
        let line = text.lines().count() + 3;
        for (setting, says) in [
            ("commit_interval = 0", "must be 1 to 4096, not 0"),
            ("commit_interval = -1", "whole number"),
            ("commit_interval = \"7\"", "whole number"),
            ("commit_interval = 1.5", "whole number"),
            ("session_window = 1000000", "must be 1 to 4096"),
            ("session_windows = 1", "is no setting"),
            ("rules = { session_window = 1 }", "is no setting"),
        ] {
            let error = ClusterFile::parse(&format!("{text}\n[tuning]\n{setting}\n"));
            let error = error.expect_err(setting);
            assert!(error.message.contains(says), "{setting}: {error}");
            assert_eq!(error.line, line, "{setting}: {error}");
        }
        // 2 * 65536 is more than the default of the other.
        let pair = format!("{text}\n[tuning]\ncheckpoint_interval = 65536\n");
        assert_eq!(ClusterFile::parse(&pair).map_err(|e| e.line).err(), Some(line));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = ClusterFile::parse(&text);
        }

        #[test]
        fn a_damaged_file_never_panics(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut text: Vec<char> = file(4, Some(1), Tuning::default()).to_text().chars().collect();
            for (at, with) in edits {
                let at = at.index(text.len());
                text[at] = with;
            }
            let whole: String = text.iter().collect();
            let _ = ClusterFile::parse(&whole);
            let part: String = text[cut.index(text.len())..].iter().collect();
            let _ = ClusterFile::parse(&part);
        }
    }
}
