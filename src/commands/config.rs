//! `elea config check`: what is wrong with a cluster file, and in what two operators' files differ.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use elea_protocol::application::Application as _;
use elea_protocol::cluster_file::{ClusterFile, Durability};
use elea_protocol::id::{ClientId, ReplicaId, hex};
use elea_protocol::message::Terms;
use elea_protocol::quorum::Strength;
use serde_json::{Value as Json, json};

use crate::cli::{ConfigAction, ConfigCheck, ConfigCommand};
use crate::commands::replica::{application, owner};
use crate::failure::{Failure, Outcome};
use crate::files::{self, load_cluster};
use crate::output;
use crate::settings::Local;

/// What it takes for two replicas to work with different files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// They are of different clusters.
    Cluster,
    /// Results follow from it, so they do not speak to each other.
    Rule,
    /// Each may have its own; for long, clients are served by some and not by others.
    Own,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Cluster => "another cluster",
            Self::Rule => "must be equal",
            Self::Own => "may differ",
        }
    }
}

/// Something that two files say differently.
#[derive(Debug)]
struct Difference {
    kind: Kind,
    what: String,
    first: String,
    second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, what, first, second } = self;
        write!(f, "{}: {what} is {first} in the first and {second} in the second", kind.word())
    }
}

/// Does what was asked.
pub fn run(command: &ConfigCommand) -> Outcome {
    let ConfigAction::Check(args) = &command.action;
    check(args)
}

fn check(args: &ConfigCheck) -> Outcome {
    let text = std::fs::read_to_string(&args.file).unwrap_or_default();
    if args.other.is_none() && Local::is_meant(&text) {
        return check_local(args);
    }
    let first = load(&args.file)?;
    let second = args.other.as_deref().map(load).transpose()?;
    let found = second.as_ref().map_or_else(Vec::new, |second| differences(&first, second));
    if args.json {
        output::line(&to_json(&first, &found).to_string());
    } else {
        output::line(&describe(&first));
        found.iter().for_each(|difference| {
            output::line(&difference.to_string());
        });
        if second.is_some() && found.is_empty() {
            output::line("the two say the same");
        }
    }
    match found.iter().find(|difference| difference.kind != Kind::Own) {
        None => Ok(()),
        Some(worst) => {
            let word = match worst.kind {
                Kind::Cluster => "the two files are of different clusters",
                Kind::Rule | Kind::Own => {
                    "replicas with these two files do not speak to each other: use one file for all"
                }
            };
            Err(Failure::refused(word))
        }
    }
}

/// Checks a replica's own file, with the files that it names.
fn check_local(args: &ConfigCheck) -> Outcome {
    let local = Local::load(&args.file)?;
    let (cluster, key) = local.files();
    let file = cluster.map(load).transpose()?;
    let key = key.map(|(key, group)| Ok((key, files::load_key(key, files::readers(key, group))?)));
    let key = key.transpose()?;
    let id = match (&file, cluster, &key) {
        (Some(checked), Some(path), Some((of, key))) => Some(owner(&checked.file, path, key, of)?),
        _ => None,
    };
    if args.json {
        let name = file.as_ref().map(|checked| checked.file.membership.name());
        output::line(&json!({ "replica": id.map(|id| id.0), "cluster": name }).to_string());
        return Ok(());
    }
    let of = file.as_ref().map_or_else(
        || "a cluster that the command line names".to_owned(),
        |checked| format!("`{}`", checked.file.membership.name()),
    );
    let who = id.map_or_else(|| "a replica".to_owned(), |id| id.to_string());
    output::line(&format!("{}: {who} of {of}", args.file.display()));
    Ok(())
}

/// A file of which everything has been checked that a replica checks at its start.
fn load(path: &Path) -> Result<Checked, Failure> {
    let file = load_cluster(path)?;
    let terms = Terms::of(&file.tuning.rules, application(&file, path)?.settings());
    Ok(Checked { file, terms })
}

struct Checked {
    file: ClusterFile,
    /// What decides results.
    terms: Terms,
}

fn describe(Checked { file, .. }: &Checked) -> String {
    let (membership, size) = (&file.membership, file.membership.size());
    let clients = match &file.clients {
        Some(clients) => format!("{} clients", clients.len()),
        None => "open to any client".to_owned(),
    };
    format!(
        "cluster {:?} with genesis {}: {} replicas of which {} may be faulty, {clients}; a weak answer needs {}, a strong \
         one {}",
        membership.name(),
        membership.genesis(),
        size.replicas(),
        size.faulty(),
        size.quorum(Strength::Weak),
        size.quorum(Strength::Strong),
    )
}

fn to_json(first: &Checked, differences: &[Difference]) -> Json {
    let membership = &first.file.membership;
    let differences: Vec<Json> = differences
        .iter()
        .map(|Difference { kind, what, first, second }| {
            json!({ "kind": kind.word(), "what": what, "first": first, "second": second })
        })
        .collect();
    json!({
        "cluster": membership.name(),
        "genesis": membership.genesis().to_string(),
        "f": membership.size().faulty(),
        "replicas": membership.size().replicas(),
        "clients": first.file.clients.as_ref().map(Vec::len),
        "differences": differences,
    })
}

/// In what two files differ, what matters most first.
fn differences(first: &Checked, second: &Checked) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |kind, what: String, first: String, second: String| {
        if first != second {
            found.push(Difference { kind, what, first, second });
        }
    };
    let (one, two) = (&first.file, &second.file);
    let (ours, theirs) = (&one.membership, &two.membership);
    let quoted = |text: &str| format!("{text:?}");
    compare(Kind::Cluster, "name".into(), quoted(ours.name()), quoted(theirs.name()));
    let faulty = |file: &ClusterFile| file.membership.size().faulty().to_string();
    compare(Kind::Cluster, "f".into(), faulty(one), faulty(two));
    let state = |file: &ClusterFile| {
        file.membership.initial_state().map_or_else(|| "none".to_owned(), |state| hex(&state.0))
    };
    compare(Kind::Cluster, "initial_state".into(), state(one), state(two));
    let none = || "none".to_owned();
    let most = ours.size().replicas().max(theirs.size().replicas());
    let members = || (0..most).map(ReplicaId);
    for id in members() {
        let key = |file: &ClusterFile| {
            file.membership.replica_key(id).map_or_else(none, |key| hex(&key.0))
        };
        compare(Kind::Cluster, format!("the public_key of replica {}", id.0), key(one), key(two));
    }
    for difference in first.terms.differences(&second.terms) {
        let value = |value: Option<String>| value.unwrap_or_else(none);
        let (here, there) = (value(difference.here), value(difference.there));
        compare(Kind::Rule, difference.name, here, there);
    }
    for id in members() {
        let address = |file: &ClusterFile| {
            file.addresses.get(usize::from(id.0)).map_or_else(none, |address| quoted(address))
        };
        compare(Kind::Own, format!("the address of replica {}", id.0), address(one), address(two));
    }
    let (here, there) = (own_settings(one), own_settings(two));
    for (name, value) in &here {
        let other = there.get(name).unwrap_or(&Json::Null);
        compare(Kind::Own, name.clone(), value.to_string(), other.to_string());
    }
    let durability = |file: &ClusterFile| match file.durability {
        Durability::Sync => quoted("sync"),
        Durability::Os => quoted("os"),
    };
    compare(Kind::Own, "durability".into(), durability(one), durability(two));
    let openness = |file: &ClusterFile| {
        if file.clients.is_none() { quoted("open") } else { quoted("listed") }
    };
    compare(Kind::Own, "clients".into(), openness(one), openness(two));
    if let (Some(here), Some(there)) = (listed(one), listed(two)) {
        for client in here.symmetric_difference(&there) {
            let in_first = here.contains(client);
            let word = |is_listed: bool| if is_listed { "listed" } else { "not listed" };
            let what = format!("the client {}", hex(&client.0));
            compare(Kind::Own, what, word(in_first).into(), word(!in_first).into());
        }
    }
    found
}

fn listed(file: &ClusterFile) -> Option<BTreeSet<ClientId>> {
    Some(file.clients.as_ref()?.iter().map(|client| client.id).collect())
}

/// What is tuned and is none of the rules.
fn own_settings(file: &ClusterFile) -> serde_json::Map<String, Json> {
    match serde_json::to_value(file.tuning) {
        Ok(Json::Object(mut all)) => {
            all.retain(|_, value| value.is_number());
            all
        }
        _ => unreachable!("every tuning is an object"),
    }
}
