//! `elea backup` and `elea restore`: the state of a cluster in a file, and a new cluster from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use elea_kv::{Get, KeyValueStore, Operation};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::{ReplicaId, Slot};
use elea_protocol::message::{Lent, StateHead};
use elea_replica::backup::{self, Backup, BackupError, Download, Taken};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use crate::cli;
use crate::cluster::{Cluster, Wait, by_reason};
use crate::commands::{self, replica};
use crate::failure::{Failure, Outcome};
use crate::{files, output};

/// How long to wait before replicas are asked again that had nothing new to give.
const PAUSE: Duration = Duration::from_millis(100);

/// So many states are begun with, where none is given to its end.
const TRIES: usize = 5;

/// For so long a backup that was interrupted is gone on with, whatever became final since.
const GONE_ON_WITH: Duration = Duration::from_secs(600);

/// How long nobody may give anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// `elea backup`
pub async fn backup(args: &cli::Backup) -> Outcome {
    let path = args.access.cluster.as_deref();
    let file = commands::cluster(path)?;
    let store = replica::application(&file, path.unwrap_or(Path::new("cluster.toml")))?;
    let backup = match &args.data {
        Some(data) => backup::write(&file, store, data, &args.out).map_err(failure)?,
        None => fetch(&file, &store, args).await?,
    };
    if args.access.json {
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

/// Has running replicas give their state.
async fn fetch(
    file: &ClusterFile,
    store: &KeyValueStore,
    args: &cli::Backup,
) -> Result<Backup, Failure> {
    let cluster = commands::connect(file, &args.access).await?;
    // What somebody was told is final before this began has a slot up to here.
    let read = Operation::from(Get::new(""));
    let final_slot = cluster.read(read, Wait::Strong, args.access.timeout).await?.slot;
    let fetched = Fetching { file, store, args, cluster: &cluster, final_slot }.run().await;
    cluster.close().await;
    fetched
}

/// A backup that is being fetched.
struct Fetching<'a> {
    file: &'a ClusterFile,
    store: &'a KeyValueStore,
    args: &'a cli::Backup,
    cluster: &'a Cluster,
    /// What is to be in it at least.
    final_slot: Slot,
}

impl Fetching<'_> {
    async fn run(&self) -> Result<Backup, Failure> {
        let begun = Download::resume(self.file, self.store, &self.args.out).map_err(failure)?;
        // What was interrupted began a moment ago. What was forgotten long ago may lack what became final since.
        let is_of_use = |begun: &Download<_>| {
            begun.rested() < GONE_ON_WITH || begun.at().slot >= self.final_slot
        };
        let mut download = match begun.filter(is_of_use) {
            Some(begun) => begun,
            None => self.begin().await?,
        };
        for _ in 0..TRIES {
            if self.fill(&mut download).await? {
                return download.finish(self.store).map_err(failure);
            }
            // Nobody has that state any more.
            download = self.begin().await?;
        }
        Err(Failure::unavailable(
            "states are gone before all of them is here: somebody else is making a backup, or the line is too slow; try again later, or with a higher --rate",
        ))
    }

    /// Begins with the state that most replicas can give, the newest of those: what one shows alone, it may give alone, or not
    /// at all.
    async fn begin(&self) -> Result<Download<KeyValueStore>, Failure> {
        let begin = Instant::now();
        loop {
            let states = self.cluster.states(self.args.access.timeout).await;
            let is_of_use = |head: &&StateHead| head.stable.slot() >= self.final_slot;
            let heads: Vec<_> = states.iter().flatten().flatten().filter(is_of_use).collect();
            let shown = |slot: Slot| heads.iter().filter(|head| head.stable.slot() == slot).count();
            let best = heads.iter().max_by_key(|head| {
                let slot = head.stable.slot();
                (shown(slot), slot)
            });
            if let Some(&head) = best {
                let (store, out) = (self.store, &self.args.out);
                return Download::begin(self.file, store, out, head.clone()).map_err(failure);
            }
            if begin.elapsed() >= PATIENCE {
                let why = states.iter().enumerate().filter_map(|(id, said)| {
                    let id = ReplicaId(u8::try_from(id).ok()?);
                    let why = said.as_ref().err().cloned();
                    Some((
                        id,
                        why.unwrap_or_else(|| "has no newer state that is certified".to_owned()),
                    ))
                });
                return Err(Failure::unavailable(format!(
                    "no replica gives a state with everything that was final when this began, up to slot {} ({})",
                    self.final_slot,
                    by_reason(why)
                )));
            }
            sleep(PAUSE).await;
        }
    }

    /// Fetches what is missing, from all that have it, one piece of each at a time. Answers whether all is here; it is not
    /// where nobody has that state any more.
    async fn fill(&self, download: &mut Download<KeyValueStore>) -> Result<bool, Failure> {
        let at = download.at();
        let mut asked = FuturesUnordered::new();
        // Who may be asked, and who has not answered and is asked again when there is nobody else.
        let mut free: VecDeque<ReplicaId> = self.file.membership.size().members().collect();
        let mut silent = BTreeMap::new();
        let mut under_way = BTreeSet::new();
        let (begin, mut bytes, mut heard) = (Instant::now(), 0_u64, Instant::now());
        let bar = bar(at.slot);
        while !download.is_whole() {
            if free.is_empty() && asked.is_empty() {
                if silent.is_empty() {
                    return Ok(false);
                }
                if heard.elapsed() >= PATIENCE {
                    let why = by_reason(silent);
                    return Err(Failure::unavailable(format!(
                        "no replica gives any more of the state after slot {} ({why}): the same command goes on with what came",
                        at.slot
                    )));
                }
                free.extend(std::mem::take(&mut silent).into_keys());
            }
            let mut next = download.lacks(0);
            while let Some(index) = next
                && !free.is_empty()
            {
                if under_way.insert(index)
                    && let Some(id) = free.pop_front()
                {
                    let lent = self.cluster.piece(id, at, index, self.args.access.timeout);
                    asked.push(async move {
                        let lent = lent.await;
                        if matches!(lent, Ok(Lent::Later)) {
                            // It alone rests: the others may have more to give.
                            sleep(PAUSE).await;
                        }
                        (id, index, lent)
                    });
                }
                next = download.lacks(index + 1);
            }
            let Some((id, index, lent)) = asked.next().await else { continue };
            under_way.remove(&index);
            match lent {
                Ok(Lent::Piece(piece)) => {
                    bytes += piece.len() as u64;
                    match download.take(index, &piece).map_err(failure)? {
                        Taken::Kept => {
                            heard = Instant::now();
                            free.push_back(id);
                        }
                        Taken::Wrong => eprintln!(
                            "elea: {id} gave a piece that is not of the certified state; it is asked for nothing more"
                        ),
                    }
                }
                Ok(Lent::Later) if heard.elapsed() < PATIENCE => free.push_back(id),
                Ok(Lent::Later) => {
                    drop(silent.insert(id, "gives to others all that it may give".to_owned()));
                }
                Ok(Lent::Gone) => {}
                Err(why) => drop(silent.insert(id, why)),
            }
            let (here, of) = download.progress();
            bar.set_length(of.unwrap_or(here).into());
            bar.set_position(here.into());
            // No faster than allowed.
            let mebibytes = bytes as f64 / f64::from(1 << 20);
            let due = Duration::from_secs_f64(mebibytes / f64::from(self.args.rate));
            sleep(due.saturating_sub(begin.elapsed())).await;
        }
        bar.finish_and_clear();
        Ok(true)
    }
}

/// Shows how far it is, where somebody looks.
fn bar(slot: Slot) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} pieces {msg} {eta}");
    let bar = ProgressBar::new(0).with_message(format!("of the state after slot {slot}"));
    // A template that is wrong shows itself in the default one.
    style.map_or(bar.clone(), |style| bar.with_style(style))
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
