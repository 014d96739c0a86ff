//! `elea backup` and `elea restore`: the state of a cluster in a file, and a new cluster from it.

use std::path::Path;

use elea_kv::KeyValueStore;
use elea_replica::backup::{self, Backup, BackupError};
use serde_json::{Value as Json, json};

use crate::cli;
use crate::commands::replica;
use crate::failure::{Failure, Outcome};
use crate::{files, output};

/// `elea backup`
pub fn backup(args: &cli::Backup) -> Outcome {
    let file = files::load_cluster(&args.cluster)?;
    let store = replica::application(&file, &args.cluster)?;
    let backup = backup::write(&file, store, &args.data, &args.out).map_err(failure)?;
    if args.json {
        output::line(&to_json(&backup).to_string());
    } else {
        output::line(&format!("Wrote {}: {}.", args.out.display(), describe(&backup)));
    }
    if let Some(last) = backup.final_beyond {
        eprintln!(
            "elea: slots up to {last} were final and are not in it: it was stopped before their state was \
             certified; start it again and stop it when nothing is written for a second"
        );
    }
    Ok(())
}

/// `elea restore`
pub fn restore(args: &cli::Restore) -> Outcome {
    let file = files::load_cluster(&args.cluster)?;
    let key = files::load_key(&args.key, files::Readers::Owner)?;
    let id = replica::owner(&file, &args.cluster, &key, &args.key)?;
    let store = replica::application(&file, &args.cluster)?;
    let backup = backup::restore(&args.from, &file, id, &store, &args.data).map_err(failure)?;
    if args.json {
        let mut object = to_json(&backup);
        object["replica"] = id.0.into();
        object["restored_into"] = file.membership.genesis().to_string().into();
        output::line(&object.to_string());
    } else {
        let data = args.data.display();
        output::line(&format!(
            "{id} of `{}` has in {data} {}.",
            file.membership.name(),
            describe(&backup)
        ));
    }
    Ok(())
}

/// Reads a backup and checks all of it.
pub fn examine(path: &Path) -> Result<Backup, Failure> {
    // Limits say what may be written, not what can be read.
    backup::examine(path, &KeyValueStore::new()).map_err(failure)
}

fn failure(error: BackupError) -> Failure {
    if error.is_invalid() {
        Failure::misbehaviour(error.to_string())
    } else {
        Failure::usage(error.to_string())
    }
}

fn describe(backup: &Backup) -> String {
    format!(
        "the state after slot {} of the cluster `{}`, certified by its replicas (genesis {}, state {})",
        backup.at.slot,
        backup.cluster.membership.name(),
        backup.cluster.membership.genesis(),
        backup.state,
    )
}

fn to_json(backup: &Backup) -> Json {
    json!({
        "cluster": backup.cluster.membership.name(),
        "genesis": backup.cluster.membership.genesis().to_string(),
        "slot": backup.at.slot.0,
        "hash": backup.at.hash.to_string(),
        "state": backup.state.to_string(),
        "final": backup.final_beyond.unwrap_or(backup.at.slot).0,
        "chunks": backup.chunks,
        "bytes": backup.bytes,
    })
}
