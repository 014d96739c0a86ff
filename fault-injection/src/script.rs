//! Scripted traces: a protocol scenario as a page of text.
//!
//! A page is a list of directives, each with the output it must have; `datadriven` compares them,
//! or writes them anew with `REWRITE=1`. Every message takes one millisecond and a sync takes none,
//! unless the page says otherwise. Output is state, and what clients were told; never log prose.
//!
//! | directive | does |
//! |---|---|
//! | `cluster n=4 clients=1 villain=(0,equivocator) window=4 sync=5` | begins a new world |
//! | `weak client=0 ms=20`, `strong`, `final` | submits the operations below it, one a line, and runs |
//! | `raw client=0 number=9 to=(1,2)` | sends a request of any number, as no honest client would |
//! | `run ms=100` | lets time go by |
//! | `drop from=0 to=2 kind=order count=1` | loses messages that match; parties are `0` or `c0` |
//! | `split left=(0,1,c0) right=(2,3)` | cuts every link between the two sides |
//! | `heal` | ends all cuts and drops |
//! | `crash r=3`, `restart r=3` | as they say |
//! | `status`, `state`, `evidence` | prints one line a replica |
//! | `count r=2 of=(slot_fetches,slots_filled)` | prints counters of a core |

use std::collections::HashMap;
use std::fmt::Write;

use bytes::Bytes;
use elea_protocol::client::Follow;
use elea_protocol::id::{ReplicaId, hex};
use elea_protocol::message::Level;

use crate::network::{Drop, Party};
use crate::plan::{Fault, Plan};
use crate::run::run_until;
use crate::subject::JournalWorld;
use crate::villain;
use crate::world::World;

/// The arguments of a directive, as `datadriven` gives them.
pub type Arguments = HashMap<String, Vec<String>>;

/// A page being run.
#[derive(Default)]
pub struct Script {
    world: Option<World<JournalWorld>>,
}

impl Script {
    /// Runs one directive and answers its output, or what is wrong with it.
    pub fn step(&mut self, directive: &str, arguments: &Arguments, input: &str) -> String {
        let mut given = Given { arguments: arguments.clone() };
        let outcome = self.dispatch(directive, &mut given, input);
        match outcome {
            Ok(_) if !given.arguments.is_empty() => {
                format!("ERROR unknown arguments: {:?}\n", given.arguments.keys())
            }
            Ok(output) if output.is_empty() => "ok\n".into(),
            Ok(output) => output,
            Err(error) => format!("ERROR {error}\n"),
        }
    }

    fn dispatch(
        &mut self,
        directive: &str,
        given: &mut Given,
        input: &str,
    ) -> Result<String, String> {
        if directive == "cluster" {
            self.world = Some(cluster(given)?);
            return Ok(String::new());
        }
        let world = self.world.as_mut().ok_or("there is no cluster yet")?;
        match directive {
            "weak" => submit(world, given, input, Level::Weak, Follow::No),
            "final" => submit(world, given, input, Level::Weak, Follow::Yes),
            "strong" => submit(world, given, input, Level::Strong, Follow::No),
            "raw" => raw(world, given, input),
            "run" => {
                let ms = given.number("ms")?.ok_or("`ms` is missing")?;
                run(world, ms)?;
                Ok(told(world) + &status(world))
            }
            "drop" => {
                let drop = Drop {
                    from: given.party("from")?,
                    to: given.party("to")?,
                    kind: given.word("kind"),
                    left: given.number("count")?,
                };
                world.network.drops.push(drop);
                Ok(String::new())
            }
            "split" => {
                let (left, right) = (given.parties("left")?, given.parties("right")?);
                for one in &left {
                    right.iter().for_each(|other| world.network.cut(*one, *other));
                }
                Ok(String::new())
            }
            "heal" => {
                world.network.join();
                Ok(String::new())
            }
            "crash" => inflict(world, given, Fault::Crash),
            "restart" => inflict(world, given, Fault::Restart),
            "status" => Ok(status(world)),
            "state" => Ok(state(world)),
            "evidence" => Ok(evidence(world)),
            "count" => count(world, given),
            other => Err(format!("no such directive: {other}")),
        }
    }
}

/// The arguments that were not used yet.
struct Given {
    arguments: Arguments,
}

impl Given {
    fn word(&mut self, name: &str) -> Option<String> {
        self.arguments.remove(name)?.into_iter().next()
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        self.word(name)
            .map(|word| word.parse().map_err(|_| format!("`{name}` is no number: {word}")))
            .transpose()
    }

    fn party(&mut self, name: &str) -> Result<Option<Party>, String> {
        self.word(name).map(|word| party(&word)).transpose()
    }

    fn parties(&mut self, name: &str) -> Result<Vec<Party>, String> {
        let words = self.arguments.remove(name).unwrap_or_default();
        words.iter().map(|word| party(word)).collect()
    }
}

fn party(word: &str) -> Result<Party, String> {
    let bad = |_| format!("no replica and no client: {word}");
    match word.strip_prefix('c') {
        Some(index) => index.parse().map(Party::Client).map_err(bad),
        None => word.parse().map(Party::Replica).map_err(bad),
    }
}

fn cluster(given: &mut Given) -> Result<World<JournalWorld>, String> {
    let replicas = given.number("n")?.unwrap_or(4);
    let replicas = u8::try_from(replicas).map_err(|_| "too many replicas")?;
    let mut plan = Plan::quiet(replicas);
    let clients = given.number("clients")?.unwrap_or(1);
    plan.patrons = (0..clients).map(|_| (1, 0)).collect();
    if let Some(window) = given.number("window")? {
        plan.tuning.rules.session_window = window;
    }
    if let Some(sync) = given.number("sync")? {
        plan.sync_max = vec![sync * 1000; usize::from(replicas)];
    }
    if let Some(interval) = given.number("checkpoint")? {
        plan.tuning.rules.checkpoint_interval = interval;
    }
    if let Some(retained) = given.number("retained")? {
        plan.tuning.retained_slots = retained;
    }
    if let Some(words) = given.arguments.remove("villain") {
        let [id, name] = &words[..] else { return Err("villain=(ID,NAME)".into()) };
        let known = villain::PRIMARIES.iter().chain(villain::BACKUPS);
        let name = known.map(|(known, ..)| *known).find(|known| known == name);
        let id = id.parse().map_err(|_| "no such replica")?;
        plan.villains.push((ReplicaId(id), name.ok_or("no such villain")?));
    }
    World::new(plan, false).map_err(|violation| violation.to_string())
}

fn run(world: &mut World<JournalWorld>, ms: u64) -> Result<(), String> {
    let until = world.now() + ms * 1000;
    run_until(world, until).map_err(|violation| violation.to_string())
}

fn submit(
    world: &mut World<JournalWorld>,
    given: &mut Given,
    input: &str,
    level: Level,
    follow: Follow,
) -> Result<String, String> {
    let index = client(world, given)?;
    let ms = given.number("ms")?.unwrap_or(20);
    let now = world.now();
    let operations = operations(input);
    let patron = &mut world.clients.patrons[usize::from(index)];
    let wants = patron
        .submit(now, usize::MAX, vec![(level, follow, operations)])
        .and_then(|wants| world.after_client(index, wants));
    wants.map_err(|violation| violation.to_string())?;
    run(world, ms)?;
    Ok(told(world) + &status(world))
}

fn client(world: &World<JournalWorld>, given: &mut Given) -> Result<u16, String> {
    let index = given.number("client")?.unwrap_or(0);
    let index = u16::try_from(index).map_err(|_| "no such client")?;
    if usize::from(index) < world.clients.patrons.len() {
        Ok(index)
    } else {
        Err("no such client".into())
    }
}

fn operations(input: &str) -> Vec<Bytes> {
    input.lines().map(|line| Bytes::copy_from_slice(line.as_bytes())).collect()
}

fn raw(world: &mut World<JournalWorld>, given: &mut Given, input: &str) -> Result<String, String> {
    let index = client(world, given)?;
    let number = given.number("number")?.ok_or("`number` is missing")?;
    let ms = given.number("ms")?.unwrap_or(20);
    let to = given.parties("to")?;
    let patron = &world.clients.patrons[usize::from(index)];
    let bytes = patron.raw_request(number, operations(input));
    for party in world.plan.size.members().map(|id| Party::Replica(id.0)) {
        if to.is_empty() || to.contains(&party) {
            world.transmit(Party::Client(index), party, &bytes, "request");
        }
    }
    run(world, ms)?;
    Ok(told(world) + &status(world))
}

fn inflict(
    world: &mut World<JournalWorld>,
    given: &mut Given,
    fault: fn(ReplicaId) -> Fault,
) -> Result<String, String> {
    let id = replica(world, given)?;
    world.inflict(fault(id)).map_err(|violation| violation.to_string())?;
    Ok(String::new())
}

fn replica(world: &World<JournalWorld>, given: &mut Given) -> Result<ReplicaId, String> {
    let id = given.number("r")?.ok_or("`r` is missing")?;
    let id = u8::try_from(id).map(ReplicaId).map_err(|_| "no such replica")?;
    if world.plan.size.has(id) { Ok(id) } else { Err("no such replica".into()) }
}

/// What clients were told since the last time, each thing once with how often.
fn told(world: &mut World<JournalWorld>) -> String {
    let mut output = String::new();
    for (index, patron) in world.clients.patrons.iter_mut().enumerate() {
        let mut last: Option<(String, u32)> = None;
        let mut flush = |entry: Option<(String, u32)>| {
            let Some((words, times)) = entry else { return };
            let often = if times > 1 { format!(" x{times}") } else { String::new() };
            writeln!(output, "c{index}: {words}{often}").expect("writing to a String");
        };
        for words in patron.told.drain(..) {
            match &mut last {
                Some((known, times)) if *known == words => *times += 1,
                _ => flush(last.replace((words, 1))),
            }
        }
        flush(last);
    }
    output
}

fn lines(
    world: &World<JournalWorld>,
    mut line: impl FnMut(&crate::node::Node<JournalWorld>) -> Option<String>,
) -> String {
    let mut output = String::new();
    for node in &world.nodes {
        let words = line(node).unwrap_or_else(|| "down".into());
        writeln!(output, "{} {words}", node.id).expect("writing to a String");
    }
    output
}

fn status(world: &World<JournalWorld>) -> String {
    lines(world, |node| {
        let core = node.core.as_ref()?;
        let head = core.head();
        let lock = core.lock().map_or(0, |lock| lock.commit.slot.0);
        Some(format!(
            "{} head={} {} lock={lock} stable={}",
            core.entered(),
            head.slot,
            hex(&head.hash.0[..2]),
            core.stable()
        ))
    })
}

fn state(world: &World<JournalWorld>) -> String {
    lines(world, |node| Some(node.core.as_ref()?.application().describe()))
}

fn evidence(world: &World<JournalWorld>) -> String {
    lines(world, |node| {
        let core = node.core.as_ref()?;
        let culprits: Vec<String> =
            core.evidence().iter().map(|proof| proof.culprit().to_string()).collect();
        Some(if culprits.is_empty() {
            "none".into()
        } else {
            format!("against {}", culprits.join(" "))
        })
    })
}

fn count(world: &World<JournalWorld>, given: &mut Given) -> Result<String, String> {
    let id = replica(world, given)?;
    let names = given.arguments.remove("of").unwrap_or_default();
    let mut output = String::new();
    for name in names {
        let known = world.node(id).core.as_ref().map(crate::inspect::counters).unwrap_or_default();
        if known.iter().all(|(counter, _)| *counter != name) {
            return Err(format!("no such counter: {name}"));
        }
        writeln!(output, "{name}={}", world.node(id).count(&name)).expect("writing to a String");
    }
    Ok(output)
}
