//! `elea status`: what each replica says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::edition::Edition;
use elea_protocol::id::{ClientId, Digest, ReplicaId, hex};
use elea_protocol::message::{
    Difference, Disagreement, DiskHealth, MismatchReport, NodeStatus, Origin, OtherList, Standing,
    Transferring, Transport,
};
use elea_protocol::quorum::Strength;
use serde_json::{Map, Value as Json, json};

use crate::cli;
use crate::cluster::by_reason;
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::output;

/// A disk that takes so many microseconds for a write is named.
const SLOW_SYNC: u64 = 250_000;

/// What became of asking one replica.
pub struct Row {
    /// The replica that was asked.
    pub id: ReplicaId,
    /// Where it should be.
    pub address: String,
    /// What it said, or why it said nothing.
    pub said: Result<NodeStatus, String>,
}

/// Asks all replicas at the same time.
pub async fn ask(file: &ClusterFile, access: &cli::Access) -> Result<Vec<Row>, Failure> {
    let cluster = commands::connect(file, access).await?;
    let said = cluster.statuses(access.timeout).await;
    cluster.close().await;
    Ok(rows(file, said))
}

/// Who was asked, with what came of it.
pub fn rows(file: &ClusterFile, said: Vec<Result<NodeStatus, String>>) -> Vec<Row> {
    let members = file.membership.size().members();
    let rows = members.zip(&file.addresses).zip(said);
    rows.map(|((id, address), said)| Row { id, address: address.clone(), said }).collect()
}

/// `elea status`
pub async fn run(args: &cli::Status) -> Outcome {
    let file = commands::cluster(args.access.cluster.as_deref())?;
    let rows = ask(&file, &args.access).await?;
    let outcome = somebody_answered(&rows);
    if args.access.json {
        return show_json(to_json(&file, &rows), outcome);
    }
    output::line(&to_table(&rows));
    remarks(&rows).iter().for_each(|remark| {
        output::line(remark);
    });
    outcome
}

/// Prints the object, with the failure in it if there is one.
fn show_json(mut object: Json, outcome: Outcome) -> Outcome {
    if let Err(failure) = &outcome {
        object["error"] = failure.to_json();
    }
    output::line(&object.to_string());
    outcome.map_err(Failure::told)
}

fn somebody_answered(rows: &[Row]) -> Outcome {
    if rows.iter().any(|row| row.said.is_ok()) {
        return Ok(());
    }
    let why = rows.iter().filter_map(|row| Some((row.id, row.said.as_ref().err()?.clone())));
    Err(Failure::unavailable(format!(
        "none of the {} replicas answered ({}): are they running, and is the cluster file theirs?",
        rows.len(),
        by_reason(why)
    )))
}

fn to_json(file: &ClusterFile, rows: &[Row]) -> Json {
    let size = file.membership.size();
    let replicas: Vec<_> = rows.iter().map(row_json).collect();
    json!({
        "cluster": file.membership.name(),
        "genesis": file.membership.genesis().to_string(),
        "f": size.faulty(),
        "weak_quorum": size.quorum(Strength::Weak),
        "strong_quorum": size.quorum(Strength::Strong),
        "replicas": replicas,
    })
}

fn row_json(row: &Row) -> Json {
    match &row.said {
        Ok(status) => replica_json(row.id, &row.address, status),
        Err(why) => json!({
            "id": row.id.0, "address": row.address, "reachable": false, "error": why,
        }),
    }
}

/// How one replica is.
pub fn replica_json(id: ReplicaId, address: &str, status: &NodeStatus) -> Json {
    let clocks: Map<_, _> =
        status.clocks.iter().map(|(id, ahead)| (id.to_string(), (*ahead).into())).collect();
    let settings: Vec<_> = status.disagreements.iter().map(settings_json).collect();
    let lists: Vec<_> = status.other_lists.iter().map(list_json).collect();
    let refused: Map<_, _> =
        status.refused.iter().map(|(by, pieces)| (by.to_string(), (*pieces).into())).collect();
    let round_trips: Map<_, _> = status
        .pace
        .others
        .iter()
        .map(|other| (other.of.to_string(), other.round_trip.map(millis).into()))
        .collect();
    let counters: Map<_, _> =
        status.counters.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
    json!({
        "id": id.0,
        "address": address,
        "reachable": true,
        "standing": standing(status),
        "transport": status.transport.name(),
        "mismatches": status.mismatches.iter().map(mismatch_json).collect::<Vec<_>>(),
        "view": status.view.0,
        "primary": status.primary.0,
        "campaign": status.campaign.map(|view| view.0),
        "head": { "slot": status.head.slot.0, "hash": status.head.hash.to_string() },
        "lock": lock_json(status),
        "stable": status.stable.0,
        "state": status.state.to_string(),
        "sessions": status.sessions,
        "pending": status.pending,
        "divergence": status.divergent.iter().map(|id| id.0).collect::<Vec<_>>(),
        "evidence": status.evidence,
        "disk": disk_word(&status.disk),
        "disk_damage": match &status.disk {
            DiskHealth::Damaged(what) => Some(what),
            DiskHealth::Sound | DiskHealth::Full => None,
        },
        "clocks_ahead_ms": clocks,
        "settings_differ": settings,
        "client_lists_differ": lists,
        "edition": status.edition.to_string(),
        "editions": {
            "lowest": status.editions.lowest.to_string(),
            "newest": status.editions.newest.to_string(),
            "common": status.common_edition.to_string(),
        },
        "sync_ms": status.pace.sync.map(millis),
        "patience_ms": status.pace.patience,
        "round_trips_ms": round_trips,
        "transfer": transfer_json(status),
        "pieces_refused": refused,
        "keys_in_two_places": status.doubled.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "counters": counters,
    })
}

fn lock_json(status: &NodeStatus) -> Json {
    status.lock.map_or(
        Json::Null,
        |(view, at)| json!({ "view": view.0, "slot": at.slot.0, "hash": at.hash.to_string() }),
    )
}

fn mismatch_json(known: &MismatchReport) -> Json {
    json!({
        "slot": known.slot.0,
        "own": known.own.to_string(),
        "certified": known.certified.to_string(),
    })
}

fn transfer_json(status: &NodeStatus) -> Json {
    status.transfer.map_or(Json::Null, |fetched| {
        json!({
            "slot": fetched.slot.0,
            "pieces": fetched.pieces,
            "of": fetched.of,
            "bytes": fetched.bytes,
        })
    })
}

/// In what a replica has other settings than the one that tells of it.
fn settings_json(other: &Disagreement) -> Json {
    let settings = other.settings.iter().map(|Difference { name, here, there }| {
        let value = json!({ "here": here, "there": there });
        (name.clone(), value)
    });
    json!({ "replica": other.replica.0, "settings": settings.collect::<Map<_, _>>() })
}

/// In what a replica's list of clients is another one.
fn list_json(other: &OtherList) -> Json {
    let names = |clients: &[ClientId]| clients.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "replica": other.replica.0,
        "not_there": names(&other.not_there),
        "not_here": names(&other.not_here),
    })
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

/// Whether it votes, in a word.
pub fn standing(status: &NodeStatus) -> &'static str {
    match status.standing {
        Standing::Voter if status.quarantined => "quarantined",
        standing => standing.word(),
    }
}

fn disk_word(disk: &DiskHealth) -> &'static str {
    match disk {
        DiskHealth::Sound => "sound",
        DiskHealth::Full => "full",
        DiskHealth::Damaged(_) => "damaged",
    }
}

/// How far a state has come, as a bar where its end is known.
fn progress(fetched: &Transferring) -> String {
    const WIDTH: u64 = 20;
    let Transferring { slot, pieces, of, bytes } = *fetched;
    let bytes = indicatif::HumanBytes(bytes);
    match of {
        // Both are a stranger's word.
        Some(of) => {
            let done = u128::from(pieces.min(of)) * u128::from(WIDTH) / u128::from(of.max(1));
            let done = usize::try_from(done).unwrap_or_default();
            let left = WIDTH as usize - done;
            let bar = format!("[{}{}]", "#".repeat(done), ".".repeat(left));
            format!("{bar} {pieces} of {of} pieces, {bytes}, of the state at slot {slot}")
        }
        None => format!("{pieces} pieces, {bytes}, of the state at slot {slot}"),
    }
}

/// Keys that are in use in two places, each once, and who says so.
fn doubled(rows: &[Row]) -> Vec<String> {
    let mut told = BTreeMap::<Origin, Vec<String>>::new();
    for row in rows {
        for origin in row.said.iter().flat_map(|status| &status.doubled) {
            told.entry(*origin).or_default().push(row.id.to_string());
        }
    }
    let remark = |(origin, by): (Origin, Vec<String>)| {
        let advice = match origin {
            Origin::Replica(_) => "two processes run with it: stop one of them",
            Origin::Client(_) => "give each host a key of its own",
        };
        format!("the key of {origin} is in use in two places at once ({}): {advice}", by.join(", "))
    };
    told.into_iter().map(remark).collect()
}

/// Of each replica how far its clock is ahead of what the others agree on, in ms: the median of what
/// they say, so that no liar among them moves it. Its own word is heard only where there is no other.
fn clocks(rows: &[Row]) -> Vec<(ReplicaId, i64)> {
    let said = || rows.iter().filter_map(|row| Some((row.id, row.said.as_ref().ok()?)));
    let ahead = |id: ReplicaId, own: bool| {
        let of_id = said().filter(|(by, _)| (*by == id) == own);
        let words = of_id.flat_map(|(_, status)| &status.clocks).filter(|(of, _)| *of == id);
        let mut words: Vec<i64> = words.map(|(_, ahead)| *ahead).collect();
        words.sort_unstable();
        let middle = words.len().checked_sub(1)? / 2;
        words.get(middle).copied()
    };
    let each = rows.iter().filter_map(|row| {
        let known = ahead(row.id, false).or_else(|| ahead(row.id, true))?;
        Some((row.id, known))
    });
    each.collect()
}

fn clock_remarks(rows: &[Row]) -> Vec<String> {
    let tolerances = rows.iter().filter_map(|row| Some(row.said.as_ref().ok()?.clock_tolerance_ms));
    let tolerance = tolerances.max().unwrap_or(u64::MAX);
    let wrong = clocks(rows).into_iter().filter(|(_, ahead)| ahead.unsigned_abs() > tolerance);
    let told = wrong.map(|(id, ahead)| {
        let seconds = Duration::from_millis(ahead.unsigned_abs()).as_secs_f64();
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        format!("the clock of {id} is {seconds:.1} s {way} those of the others: set it right")
    });
    told.collect()
}

/// Where settings or lists of clients differ. Two that differ both say so: one of them is enough.
fn difference_remarks(rows: &[Row]) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut told = BTreeSet::new();
    for row in rows {
        let (id, Ok(status)) = (row.id, &row.said) else { continue };
        for other in &status.disagreements {
            if !told.insert((id.min(other.replica), id.max(other.replica))) {
                continue;
            }
            let shown = |value: &Option<String>| match value {
                Some(value) => value.escape_debug().to_string(),
                None => String::from("nothing"),
            };
            let settings: Vec<String> = other
                .settings
                .iter()
                .map(|Difference { name, here, there }| {
                    let (name, here, there) = (name.escape_debug(), shown(here), shown(there));
                    format!("{name} = {there}, {id} {here}")
                })
                .collect();
            remarks.push(format!(
                "{} has {}: they do not speak to each other until both have the same",
                other.replica,
                settings.join("; ")
            ));
        }
    }
    let lists = |row: &Row| row.said.as_ref().ok().map(|status| status.other_lists.clone());
    let mut lacking: BTreeMap<ClientId, BTreeSet<ReplicaId>> = BTreeMap::new();
    for row in rows {
        for other in lists(row).into_iter().flatten() {
            let there = other.not_there.iter().map(|client| (*client, other.replica));
            let here = other.not_here.iter().map(|client| (*client, row.id));
            for (client, id) in there.chain(here) {
                lacking.entry(client).or_default().insert(id);
            }
        }
    }
    remarks.extend(lacking.into_iter().map(|(client, by)| {
        let by: Vec<String> = by.iter().map(ToString::to_string).collect();
        format!("{} not list the client {client}", does(&by))
    }));
    remarks
}

/// Whose programs are older than those of the others, and from when on nobody can be put back to one.
fn edition_remarks(rows: &[Row]) -> Vec<String> {
    let said = || rows.iter().filter_map(|row| Some((row.id, row.said.as_ref().ok()?)));
    let highest = |of: fn(&NodeStatus) -> Edition| {
        said().map(|(_, status)| of(status)).reduce(Edition::max).unwrap_or_default()
    };
    let newest = highest(|status| status.editions.newest);
    let common = highest(|status| status.common_edition);
    let now = highest(|status| status.edition);
    let old = said().filter(|(_, status)| !status.editions.newest.may_follow(newest));
    let old: Vec<String> = old.map(|(id, _)| id.to_string()).collect();
    let mut remarks = Vec::new();
    if !old.is_empty() {
        remarks.push(format!(
            "{} not execute edition {newest}, to which all go over once all do: update its program",
            does(&old)
        ));
    }
    if !now.may_follow(common) {
        remarks.push(format!(
            "all have been known to execute edition {common}: do not put any of them back to an older program"
        ));
    }
    remarks
}

/// Who can be listened to.
fn transport_remark(rows: &[Row]) -> Option<String> {
    let is_plain =
        |row: &&Row| row.said.as_ref().is_ok_and(|status| status.transport == Transport::Plain);
    let plain: Vec<String> = rows.iter().filter(is_plain).map(|row| row.id.to_string()).collect();
    (!plain.is_empty()).then(|| {
        format!(
            "{} not encrypt connections: whoever is on the way reads everything that is said",
            does(&plain)
        )
    })
}

fn does(names: &[String]) -> String {
    let verb = if names.len() == 1 { "does" } else { "do" };
    format!("{} {verb}", names.join(", "))
}

/// What an operator should know of replicas that do not vote, or whose state was wrong.
fn remarks(rows: &[Row]) -> Vec<String> {
    let mut remarks = doubled(rows);
    remarks.extend(clock_remarks(rows));
    remarks.extend(difference_remarks(rows));
    remarks.extend(edition_remarks(rows));
    remarks.extend(transport_remark(rows));
    for row in rows {
        let (id, Ok(status)) = (row.id, &row.said) else { continue };
        match status.standing {
            Standing::Voter => {}
            Standing::New => remarks.push(format!(
                "{id} is new: it votes once a strong quorum has said that it never heard of it"
            )),
            Standing::Observer => remarks.push(format!(
                "{id} is an observer: it lost its data folder, follows and serves, and never votes"
            )),
        }
        if status.quarantined {
            remarks.push(format!(
                "{id} is in quarantine: it doubts its own state and neither votes nor answers \
                 until that is repaired"
            ));
        }
        if let Some(fetched) = &status.transfer {
            remarks.push(format!("{id} fetches a state from the others: {}", progress(fetched)));
        }
        match &status.disk {
            DiskHealth::Sound => {}
            DiskHealth::Full => remarks.push(format!(
                "{id} has no room on its disk: it answers this, but neither votes nor executes \
                 until there is some"
            )),
            DiskHealth::Damaged(what) => {
                remarks.push(format!("{id} has a damaged disk: {}", what.escape_debug()));
            }
        }
        if let Some(sync) = status.pace.sync.filter(|sync| *sync >= SLOW_SYNC) {
            let seconds = Duration::from_micros(sync).as_secs_f64();
            remarks.push(format!("{id} has a slow disk: a write takes {seconds:.2} s to be on it"));
        }
        remarks.extend(status.refused.iter().map(|(by, pieces)| {
            format!(
                "{id} refused {pieces} pieces of states from {by}: they were not the certified ones"
            )
        }));
        remarks.extend(status.mismatches.iter().map(|known| {
            let short = |digest: &Digest| hex(&digest.0[..4]);
            format!(
                "{id} had the state {} after slot {}, where {} was certified: its memory or disk \
                 is bad, or it executed slots with other settings or another program",
                short(&known.own),
                known.slot,
                short(&known.certified),
            )
        }));
    }
    remarks
}

/// The view entered, and the one asked for where the replica wants to leave it.
fn view_cell(status: &NodeStatus) -> String {
    match status.campaign {
        None => status.view.to_string(),
        Some(wanted) => format!("{}, wants {wanted}", status.view),
    }
}

fn to_table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "replica",
        "reachable",
        "standing",
        "view",
        "primary",
        "head",
        "lock",
        "stable",
        "state",
        "divergence",
        "evidence",
    ]);
    let short = |digest: &Digest| hex(&digest.0[..4]);
    for row in rows {
        let name = format!("{} {}", row.id, row.address);
        let Ok(status) = &row.said else {
            let why = row.said.as_ref().err().cloned().unwrap_or_default();
            table.add_row([name, format!("no: {why}")]);
            continue;
        };
        let divergent: Vec<_> = status.divergent.iter().map(ToString::to_string).collect();
        table.add_row([
            name,
            String::from("yes"),
            standing(status).to_owned(),
            view_cell(status),
            status.primary.to_string(),
            format!("{} {}", status.head.slot, short(&status.head.hash)),
            status.lock.map_or_else(String::new, |(view, at)| format!("{} in {view}", at.slot)),
            status.stable.to_string(),
            short(&status.state),
            if divergent.is_empty() { String::from("none") } else { divergent.join(", ") },
            status.evidence.to_string(),
        ]);
    }
    table.to_string()
}
