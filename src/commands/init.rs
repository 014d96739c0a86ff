//! `elea init`: the files of a new cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elea_processes::folder::Folder;
use elea_protocol::address;
use elea_protocol::cluster_file::{ClusterFile, Durability, ListedClient};
use elea_protocol::id::{ClientId, ReplicaId};
use elea_protocol::membership::{Membership, NAME_MAX};
use elea_protocol::quorum::{ClusterSize, Strength};
use elea_protocol::signature::{Ed25519, SecretKey, Signer as _};
use elea_protocol::tuning::Tuning;
use elea_replica::backup::Backup;

use crate::cli::Init;
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::output;

/// What a new cluster is made of.
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Where each replica listens.
    pub addresses: Vec<String>,
    /// How many client keys.
    pub clients: u16,
    /// The backup that it begins with, if it does.
    pub origin: Option<Backup>,
}

/// Writes the files and says what to do next.
pub fn run(args: &Init) -> Outcome {
    let addresses = addresses(args)?;
    let origin = match &args.from {
        Some(path) => Some(origin(path, args.from_cluster.as_deref())?),
        None => None,
    };
    let plan = Plan {
        name: args.name.clone().unwrap_or_else(|| name_of(&args.dir)),
        addresses,
        clients: args.clients,
        origin,
    };
    let file = write(&Folder::at(&args.dir), &plan)?;
    let size = file.membership.size();
    let dir = args.dir.display();
    let start = match (&plan.origin, &args.from) {
        (Some(origin), Some(from)) => format!(
            "It begins with the state after slot {} of the cluster `{}` (genesis {}): make sure that this is \
             the one you mean.\nGive each replica that state with `elea restore --from {} --cluster \
             {dir}/cluster.toml --key {dir}/replica-N.key --data {dir}/replica-N.data`.\nThen start",
            origin.at.slot,
            origin.cluster.membership.name(),
            origin.cluster.membership.genesis(),
            from.display(),
        ),
        _ => String::from("Start"),
    };
    output::line(&format!(
        "Wrote {dir}/cluster.toml and {} keys: {} replicas of which {} may be faulty; a weak answer \
         needs {}, a strong one {}.\n{start} it with `elea up {dir}`, or give each operator one \
         replica-N.key, cluster.toml, and `elea replica`.\nUse it with `export \
         ELEA_CLUSTER={dir}/cluster.toml ELEA_KEY={dir}/client-0.key`.",
        u32::from(args.replicas) + u32::from(args.clients),
        size.replicas(),
        size.faulty(),
        size.quorum(Strength::Weak),
        size.quorum(Strength::Strong),
    ));
    Ok(())
}

/// What stands in a `--host` for the replica's number.
const NUMBER: &str = "{n}";

/// Where the replicas listen: at ports of one host, or each on a host of its own.
fn addresses(args: &Init) -> Result<Vec<String>, Failure> {
    let host = |text: &str| {
        address::host(text).map_err(|bad| Failure::usage(format!("--host cannot be used: {bad}")))
    };
    if args.host.contains(NUMBER) {
        let own = |n: u8| host(&args.host.replace(NUMBER, &n.to_string()));
        return (0..args.replicas).map(|n| Ok(format!("{}:{}", own(n)?, args.base_port))).collect();
    }
    let last = u32::from(args.base_port) + u32::from(args.replicas) - 1;
    let Ok(last) = u16::try_from(last) else {
        return Err(Failure::usage(format!(
            "replica {} would listen at port {last}: choose a --base-port of at most {}",
            args.replicas - 1,
            u32::from(u16::MAX) + 1 - u32::from(args.replicas)
        )));
    };
    let host = host(&args.host)?;
    Ok((args.base_port..=last).map(|port| format!("{host}:{port}")).collect())
}

/// Makes keys and writes all files. Nothing that is there is touched.
pub fn write(folder: &Folder, plan: &Plan) -> Result<ClusterFile, Failure> {
    let count = u8::try_from(plan.addresses.len()).unwrap_or(u8::MAX);
    let size = ClusterSize::most_tolerant(count).map_err(|bad| Failure::usage(bad.to_string()))?;
    let replicas: Vec<SecretKey> = plan.addresses.iter().map(|_| new_key()).collect();
    let clients: Vec<SecretKey> = (0..plan.clients).map(|_| new_key()).collect();
    let listed: Vec<ListedClient> = (0..)
        .zip(&clients)
        .map(|(n, key): (u16, _)| ListedClient {
            id: key.public_key().into(),
            name: Some(format!("client-{n}")),
        })
        .collect();
    let admitted: BTreeSet<ClientId> = listed.iter().map(|client| client.id).collect();
    let membership = Membership::new(
        plan.name.as_str(),
        size.faulty(),
        replicas.iter().map(|key| key.public_key()).collect(),
        Some(admitted),
        Arc::new(Ed25519::default()),
    )
    .map_err(|bad| Failure::usage(format!("{bad}: choose another --name or --replicas")))?;
    let membership = match &plan.origin {
        Some(origin) => membership.beginning_with(origin.state),
        None => membership,
    };
    // What was stored under some limits is to be read under the same.
    let before = plan.origin.as_ref().map(|origin| &origin.cluster);
    let file = ClusterFile {
        membership,
        addresses: plan.addresses.clone(),
        clients: Some(listed),
        tuning: before.map_or_else(Tuning::default, |before| before.tuning),
        durability: before.map_or_else(Durability::default, |before| before.durability),
        application: before.map(|before| before.application.clone()).unwrap_or_default(),
    };
    // The host came from the command line: what cannot be read back must not be written.
    let text = file.to_text();
    let file = ClusterFile::parse(&text)
        .map_err(|bad| Failure::usage(format!("no cluster can be made so: {}", bad.message)))?;

    let dir = folder.path();
    fs::create_dir_all(dir)
        .map_err(|error| Failure::usage(format!("{} cannot be made ({error})", dir.display())))?;
    let keys: Vec<(PathBuf, &SecretKey)> = (0..)
        .zip(&replicas)
        .map(|(n, key)| (folder.replica_key(ReplicaId(n)), key))
        .chain((0..).zip(&clients).map(|(n, key)| (folder.client_key(n), key)))
        .collect();
    let cluster = folder.cluster();
    // All are looked for before any is written, so that a refusal leaves nothing behind.
    let taken = keys.iter().map(|(path, _)| path).chain([&cluster]).find(|path| path.exists());
    if let Some(taken) = taken {
        return Err(Failure::usage(format!(
            "{} is there already and is not overwritten: choose another directory",
            taken.display()
        )));
    }
    for (path, key) in keys {
        files::write_new(&path, &files::key_text(key), 0o600)?;
    }
    // Last, so that where there is a cluster file there are all its keys.
    files::write_new(&cluster, &text, 0o644)?;
    Ok(file)
}

/// Reads the backup to begin with, and checks that it is of the cluster that was named, if one was.
fn origin(path: &Path, of: Option<&Path>) -> Result<Backup, Failure> {
    let backup = commands::backup::examine(path)?;
    let Some(of) = of else { return Ok(backup) };
    if files::load_cluster(of)?.membership.genesis() != backup.cluster.membership.genesis() {
        return Err(Failure::misbehaviour(format!(
            "the backup {} is of the cluster `{}` (genesis {}), which is not the one in {}",
            path.display(),
            backup.cluster.membership.name(),
            backup.cluster.membership.genesis(),
            of.display()
        )));
    }
    Ok(backup)
}

fn new_key() -> SecretKey {
    SecretKey::from_bytes(&rand::random())
}

/// A new cluster is named after its directory and told apart by some random letters: two clusters
/// of one name and different keys differ anyway, but people read names.
fn name_of(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.filter(|name| name.len() <= NAME_MAX - 9).unwrap_or_else(|| "elea".to_owned());
    format!("{name}-{:08x}", rand::random::<u32>())
}
