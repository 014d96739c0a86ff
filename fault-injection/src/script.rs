//! Scripted traces: a protocol scenario as a page of text.
//!
//! A page is a list of directives, each with the output it must have; `datadriven` compares them,
//! or writes them anew with `REWRITE=1`. Every message takes one millisecond and a sync takes none,
//! unless the page says otherwise. Output is state, and what clients were told; never log prose.
//!
//! | directive | does |
//! |---|---|
//! | `cluster n=4 clients=1 sync=5` | begins a new world, in which a sync takes up to 5 ms |
//! | ...`seed=2` | with other keys, and another choice of what villains and syncs do |
//! | ...`villain=(0,equivocator)` | and a replica is Byzantine |
//! | ...`twin=0` | and a replica is two machines with one key, `r0` and `r0b`: both hear and are heard by everybody, as far as nothing is cut, except by each other |
//! | ...`first_start` | and the replicas do not know yet whether they may vote |
//! | ...`lists` | and replicas list the clients, and do not take everybody |
//! | ...`careless=3` | and the disk of a replica will be lost: it counts among the faulty ones |
//! | ...`skew=(0,0,-500,0)` | and wall clocks are off by so many ms |
//! | ...`checkpoint_interval=4` | and any setting of `tuning::Tuning`, by its name |
//! | `weak client=0 ms=20`, `strong`, `final` | submits the operations below it, one a line, and runs |
//! | ...with `append log x*900` below | and a line may end in a text and how often it is repeated |
//! | `query client=0 level=weak past ms=20` | asks what operations that change nothing come to, strongly if no level is named, in a history that includes all that the client has seen if it is with a `past`, and runs |
//! | `raw client=0 number=9 to=(1,2)` | sends a request of any number, as no honest client would |
//! | `run ms=100` | lets time go by |
//! | `drop from=0 to=(2,3) kind=order count=1` | loses the next messages that match, `count` of each combination |
//! | `split left=(0,1,c0) right=(2,3)` | cuts every link between the two sides |
//! | ...`oneway` | but only so that the right side does not hear the left one |
//! | ...`forever` | in a way that no healing ends |
//! | `heal` | ends all cuts and drops |
//! | `crash r=3`, `restart r=3` | as they say |
//! | `leave r=3` | it is told that it is going to be stopped |
//! | `lose r=3` | the power goes, and the disk is empty when it comes back |
//! | `fill r=3`, `room r=3` | its disk is full, or has room again |
//! | `scrub r=3` | finds, while it runs, that its stored state is damaged |
//! | `list r=(2,3) without=c1` | starts replicas anew, one at a time, with a list of all clients but these |
//! | `clock r=(0,1) ms=3600000 rate=500` | sets wall clocks so many ms off, which run at half speed then; of all replicas if none is named |
//! | `update r=3 newest=2` | starts replicas anew, one at a time, with a program that executes editions up to 1.2 |
//! | `clocks` | how far clocks are ahead of the one agreed on, in ms, as each replica sees it |
//! | `status`, `state`, `disk`, `evidence` | prints a line for all replicas of which the same is true |
//! | `editions` | the same of the edition of the last slot, and of what programs execute |
//! | `mismatches` | the same of certified states that were not the own ones |
//! | `counters of=(merges,orphans) r=2` | the same of what cores count; of all replicas if none is named |
//!
//! Parties are `0` for a replica, `0b` for its twin and `c0` for a client. A line of the status is
//!
//! ```text
//! r1,r2 v4@3 head=7 1a2b lock=v4:6 stable=4 asks=v5 waiting=2 orphans=1
//! ```
//!
//! View 4, entered at slot 3; the head is slot 7, whose hash begins with 1a2b; the highest lock is
//! of view 4 and slot 6; slot 4 is stable; it asks for view 5; two requests wait to be ordered, and
//! one of an abandoned slot to be ordered again. What is none is left out. A lock that does not lie
//! on the own history is followed by its hash: `lock=v4:6/3c4d`. Who may not vote says why at the end:
//! `new`, `observer` or `quarantined`. Clients are told
//!
//! ```text
//! c0: final slot=4 results=[111] by=r0,r1,r2 reordered, was slot=2 results=[11]
//! ```
//!
//! with `moved` where the results are the same and only the place is another one. Several refusals
//! for one reason are one line, and come first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::panic;
use std::path::Path;

use bytes::Bytes;
use elea_protocol::client::{Follow, Ticket};
use elea_protocol::codec::Canonical as _;
use elea_protocol::edition::Editions;
use elea_protocol::id::{Digest, ReplicaId, Slot, View, hex};
use elea_protocol::message::{Level, Standing};
use elea_protocol::tuning::Tuning;

use crate::disk::Disk;
use crate::inspect;
use crate::network::{Drop, Machine, Party};
use crate::node::Node;
use crate::patron::{Patron, Told, Wants};
use crate::plan::{Fault, PatronPlan, Plan};
use crate::run::run_until;
use crate::subject::JournalWorld;
use crate::villain;
use crate::violation::Violation;
use crate::world::World;

/// The arguments of a directive, as `datadriven` gives them.
pub type Arguments = HashMap<String, Vec<String>>;

/// Runs a page, or all pages in a folder, and answers where one does not print what it says, with
/// what it should have been. With `REWRITE` set in the environment they are written anew instead.
///
/// # Errors
/// The differences, a text for people; or what is wrong with a file.
pub fn check_pages(path: &Path) -> Result<(), String> {
    let Some(name) = path.to_str().filter(|_| path.exists()) else {
        return Err(format!("{}: there is no such page\n", path.display()));
    };
    let run = || {
        datadriven::walk(name, |file| {
            let mut script = Script::default();
            file.run(|case| script.step(&case.directive, &case.args, &case.input));
        });
    };
    // It tells of differences by a panic, as a test does.
    panic::catch_unwind(run).map_err(|told| match told.downcast::<String>() {
        Ok(told) => *told,
        Err(_) => format!("{name}: the core panicked\n"),
    })
}

/// A page being run.
#[derive(Default)]
pub struct Script {
    page: Option<Page>,
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
            self.page = Some(Page::new(given)?);
            return Ok(String::new());
        }
        let page = self.page.as_mut().ok_or("there is no cluster yet")?;
        match directive {
            "weak" => page.submit(given, input, Level::Weak, Follow::No),
            "final" => page.submit(given, input, Level::Weak, Follow::Yes),
            "strong" => page.submit(given, input, Level::Strong, Follow::No),
            "query" => page.query(given, input),
            "raw" => page.raw(given, input),
            "run" => {
                let ms = given.number("ms")?.ok_or("`ms` is missing")?;
                page.run(ms)
            }
            "drop" => page.drop(given),
            "split" => page.split(given),
            "heal" => {
                page.cuts.clear();
                page.world.network.join();
                Ok(String::new())
            }
            "crash" => page.inflict(given, Fault::Crash),
            "restart" => page.inflict(given, Fault::Restart),
            "leave" => page.inflict(given, Fault::Leave),
            "fill" => page.inflict(given, Fault::FillDisk),
            "room" => page.inflict(given, Fault::MakeRoom),
            "lose" => page.lose(given),
            "scrub" => page.scrub(given),
            "clock" => page.set_clocks(given),
            "update" => page.update(given),
            "list" => page.list(given),
            "clocks" => Ok(page.lines(clocks)),
            "editions" => Ok(page.lines(editions)),
            "status" => Ok(page.status()),
            "state" => Ok(page.lines(|node| Some(node.core.as_ref()?.application().describe()))),
            "disk" => Ok(page.lines(|node| Some(on_disk(&node.disk)))),
            "evidence" => Ok(page.lines(evidence)),
            "mismatches" => Ok(page.lines(mismatches)),
            "counters" => page.counters(given),
            other => Err(format!("no such directive: {other}")),
        }
    }
}

/// By which rules its last slot was executed, and what its program executes.
fn editions(node: &Node<JournalWorld>) -> Option<String> {
    let core = node.core.as_ref()?;
    let (edition, own) = (core.history().choices().edition, core.editions());
    Some(format!("edition={edition} of {own}"))
}

/// From which state on and how many slots.
fn on_disk(disk: &Disk) -> String {
    let base = disk.base().map_or(Slot::GENESIS, |base| base.slot);
    format!("state={base} slots={}", disk.len())
}

/// The arguments that were not used yet.
struct Given {
    arguments: Arguments,
}

impl Given {
    fn words(&mut self, name: &str) -> Vec<String> {
        self.arguments.remove(name).unwrap_or_default()
    }

    fn flag(&mut self, name: &str) -> bool {
        self.arguments.remove(name).is_some()
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        Ok(self.numbers(name)?.into_iter().next())
    }

    fn numbers<T: std::str::FromStr>(&mut self, name: &str) -> Result<Vec<T>, String> {
        let bad = |word: &String| format!("`{name}` is no number that can be: {word}");
        self.words(name).iter().map(|word| word.parse().map_err(|_| bad(word))).collect()
    }
}

/// A world with what was already told of it.
struct Page {
    world: World<JournalWorld>,
    /// Directions cut until the network heals.
    cuts: Vec<(Party, Party)>,
    /// For each client, its submissions of which was said that they are final.
    finals: Vec<BTreeSet<Ticket>>,
}

fn spoken(violation: Violation) -> String {
    violation.to_string()
}

impl Page {
    fn new(given: &mut Given) -> Result<Self, String> {
        let replicas = given.number("n")?.unwrap_or(4);
        let mut plan = Plan::quiet(replicas);
        plan.seed = given.number("seed")?.unwrap_or(plan.seed);
        plan.twins = given.numbers("twin")?.into_iter().map(ReplicaId).collect();
        let clients: usize = given.number("clients")?.unwrap_or(1);
        plan.patrons = vec![PatronPlan::idle(1); clients];
        let machines = plan.machines().count();
        let sync: u64 = given.number("sync")?.unwrap_or(0);
        plan.sync_max = vec![sync * 1000; machines];
        plan.skews = given.numbers("skew")?.into_iter().map(|ms: i64| ms * 1000).collect();
        plan.skews.resize(machines, 0);
        if let [id, name] = &given.words("villain")[..] {
            let name = villain::ALL.iter().map(|(known, ..)| *known).find(|known| known == name);
            let id = id.parse().map(ReplicaId).map_err(|_| "no such replica")?;
            plan.villains.push((id, name.ok_or("no such villain")?));
        }
        plan.is_first_start = given.flag("first_start");
        plan.lists_clients = given.flag("lists");
        plan.careless = given.numbers("careless")?.into_iter().map(ReplicaId).collect();
        let villains = plan.villains.iter().map(|(id, _)| id);
        let faulty = plan.twins.iter().chain(villains).chain(&plan.careless);
        if !faulty.clone().all(|id| plan.size.has(*id)) {
            return Err("no such replica".into());
        }
        if faulty.count() > usize::from(plan.size.faulty()) {
            return Err("more than f faulty replicas void all promises".into());
        }
        plan.tuning = tuning(plan.tuning, std::mem::take(&mut given.arguments))?;
        let world = World::new(plan, false).map_err(spoken)?;
        Ok(Self { world, cuts: Vec::new(), finals: vec![BTreeSet::new(); clients] })
    }

    // ---- parties ----

    fn name(&self, machine: Machine) -> String {
        let id = self.world.plan.replica_on(machine);
        format!("{id}{}", if Machine::from(id) == machine { "" } else { "b" })
    }

    fn party(&self, word: &str) -> Result<Party, String> {
        let clients = (0..self.world.clients.patrons.len()).map(|index| format!("c{index}"));
        let client = (0..).map(Party::Client).zip(clients).find(|(_, name)| name == word);
        let machine = self.world.plan.machines().find(|machine| self.name(*machine)[1..] == *word);
        client
            .map(|(party, _)| party)
            .or(machine.map(Machine::party))
            .ok_or_else(|| format!("no replica and no client: {word}"))
    }

    fn parties(&self, given: &mut Given, name: &str) -> Result<Vec<Party>, String> {
        given.words(name).iter().map(|word| self.party(word)).collect()
    }

    fn machine(&self, given: &mut Given) -> Result<Option<Machine>, String> {
        match self.parties(given, "r")?[..] {
            [] => Ok(None),
            [Party::Replica(number)] => Ok(Some(Machine(number))),
            _ => Err("`r` is one replica".into()),
        }
    }

    fn client(&self, given: &mut Given) -> Result<u16, String> {
        let index = given.number("client")?.unwrap_or(0);
        let known = usize::from(index) < self.world.clients.patrons.len();
        if known { Ok(index) } else { Err("no such client".into()) }
    }

    // ---- what is done ----

    fn run(&mut self, ms: u64) -> Result<String, String> {
        let until = self.world.now() + ms * 1000;
        run_until(&mut self.world, until).map_err(spoken)?;
        Ok(self.told() + &self.status())
    }

    fn submit(
        &mut self,
        given: &mut Given,
        input: &str,
        level: Level,
        follow: Follow,
    ) -> Result<String, String> {
        let index = self.client(given)?;
        let ms = given.number("ms")?.unwrap_or(20);
        let now = self.world.now();
        let newest = usize::MAX;
        let wants = self.world.clients.patrons[usize::from(index)]
            .submit(now, newest, vec![(level, follow, operations(input))])
            .map_err(spoken)?;
        self.world.after_client(index, wants).map_err(spoken)?;
        self.run(ms)
    }

    fn query(&mut self, given: &mut Given, input: &str) -> Result<String, String> {
        let index = self.client(given)?;
        let ms = given.number("ms")?.unwrap_or(20);
        let level = match given.words("level").first().map(String::as_str) {
            None | Some("strong") => Level::Strong,
            Some("weak") => Level::Weak,
            Some(other) => return Err(format!("`{other}` is no level")),
        };
        let now = self.world.now();
        let mut wants = Wants::default();
        let patron = &mut self.world.clients.patrons[usize::from(index)];
        let (session, operations) = (usize::MAX, operations(input));
        match given.flag("past") {
            true => patron.ask_with_past(now, session, level, operations, &mut wants),
            false => patron.ask(now, session, level, operations, &mut wants),
        }
        .map_err(spoken)?;
        self.world.after_client(index, wants).map_err(spoken)?;
        self.run(ms)
    }

    fn raw(&mut self, given: &mut Given, input: &str) -> Result<String, String> {
        let index = self.client(given)?;
        let number = given.number("number")?.ok_or("`number` is missing")?;
        let ms = given.number("ms")?.unwrap_or(20);
        let to = self.parties(given, "to")?;
        let patron = &self.world.clients.patrons[usize::from(index)];
        let bytes = patron.raw_request(number, operations(input));
        for party in self.world.plan.machines().map(Machine::party) {
            if to.is_empty() || to.contains(&party) {
                self.world.transmit(Party::Client(index), party, &bytes, "request");
            }
        }
        self.run(ms)
    }

    fn drop(&mut self, given: &mut Given) -> Result<String, String> {
        let or_any = |parties: Vec<Party>| match parties.len() {
            0 => vec![None],
            _ => parties.into_iter().map(Some).collect(),
        };
        let from = or_any(self.parties(given, "from")?);
        let to = or_any(self.parties(given, "to")?);
        let kinds = given.words("kind");
        let kinds =
            if kinds.is_empty() { vec![None] } else { kinds.into_iter().map(Some).collect() };
        let left = given.number("count")?;
        for from in from {
            for to in &to {
                let drops =
                    kinds.iter().map(|kind| Drop { from, to: *to, kind: kind.clone(), left });
                self.world.network.drops.extend(drops);
            }
        }
        Ok(String::new())
    }

    fn split(&mut self, given: &mut Given) -> Result<String, String> {
        let (left, right) = (self.parties(given, "left")?, self.parties(given, "right")?);
        let (oneway, forever) = (given.flag("oneway"), given.flag("forever"));
        for one in left {
            for other in &right {
                let there = Some((one, *other));
                let back = Some((*other, one)).filter(|_| !oneway);
                for (from, to) in there.into_iter().chain(back) {
                    if forever {
                        self.world.network.wall(from, to);
                    } else {
                        self.cuts.push((from, to));
                    }
                }
            }
        }
        self.world.network.split(&self.cuts);
        Ok(String::new())
    }

    fn lose(&mut self, given: &mut Given) -> Result<String, String> {
        let machine = self.machine(given)?.ok_or("`r` is missing")?;
        if self.world.nodes[machine.index()].is_correct() {
            return Err("who loses its disk is named as `careless` in the beginning".into());
        }
        self.world.inflict(&Fault::LoseDisk(machine)).map_err(spoken)?;
        Ok(String::new())
    }

    fn scrub(&mut self, given: &mut Given) -> Result<String, String> {
        let machine = self.machine(given)?.ok_or("`r` is missing")?;
        self.world.scrub(machine).map_err(spoken)?;
        Ok(String::new())
    }

    fn list(&mut self, given: &mut Given) -> Result<String, String> {
        let named = self.parties(given, "r")?;
        let without = self.parties(given, "without")?;
        let clients = without.iter().filter_map(|party| match party {
            Party::Client(index) => Some(*index),
            Party::Replica(_) => None,
        });
        let without: Vec<u16> = clients.collect();
        for machine in self.world.plan.machines() {
            if named.contains(&machine.party()) {
                let fault = Fault::Lists { machine, without: without.clone() };
                self.world.inflict(&fault).map_err(spoken)?;
            }
        }
        Ok(String::new())
    }

    fn update(&mut self, given: &mut Given) -> Result<String, String> {
        let newest = given.number("newest")?.ok_or("`newest` is missing")?;
        let lowest = given.number("lowest")?.unwrap_or(1);
        let named = self.parties(given, "r")?;
        for machine in self.world.plan.machines() {
            if named.contains(&machine.party()) {
                let fault = Fault::Update { machine, editions: Editions::with(lowest..=newest) };
                self.world.inflict(&fault).map_err(spoken)?;
            }
        }
        Ok(String::new())
    }

    fn set_clocks(&mut self, given: &mut Given) -> Result<String, String> {
        let skew = given.number::<i64>("ms")?.ok_or("`ms` is missing")? * 1000;
        let rate = given.number("rate")?.unwrap_or(1000);
        let named = self.parties(given, "r")?;
        for machine in self.world.plan.machines() {
            if named.is_empty() || named.contains(&machine.party()) {
                let fault = Fault::SetClock { machine, skew, rate };
                self.world.inflict(&fault).map_err(spoken)?;
            }
        }
        Ok(String::new())
    }

    fn inflict(
        &mut self,
        given: &mut Given,
        fault: fn(Machine) -> Fault,
    ) -> Result<String, String> {
        let machine = self.machine(given)?.ok_or("`r` is missing")?;
        self.world.inflict(&fault(machine)).map_err(spoken)?;
        Ok(String::new())
    }

    // ---- what is said ----

    /// What clients were told since the last time, each thing once. Refusals come first.
    fn told(&mut self) -> String {
        let mut output = String::new();
        let patrons = self.world.clients.patrons.iter_mut().zip(&mut self.finals);
        for (index, (patron, finals)) in patrons.enumerate() {
            let mut moved = moved(patron, finals);
            let mut lines: Vec<(String, u32)> = Vec::new();
            let mut refusals: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for mut words in patron.told.drain(..) {
                if let Some((who, reason)) = words.split_once(" refuses: ") {
                    refusals.entry(reason.to_owned()).or_default().insert(who.to_owned());
                    continue;
                }
                let answer = words.rsplit_once(" by=").map_or("", |(answer, _)| answer);
                if let Some(place) = moved.iter().position(|(known, _)| known == answer) {
                    words += &moved.remove(place).1;
                }
                match lines.last_mut() {
                    Some((known, times)) if *known == words => *times += 1,
                    _ => lines.push((words, 1)),
                }
            }
            for (reason, who) in refusals {
                let who: Vec<String> = who.into_iter().collect();
                writeln!(output, "c{index}: refused by={}: {reason}", who.join(","))
                    .expect("writing to a String");
            }
            for (words, times) in lines {
                let often = if times > 1 { format!(" x{times}") } else { String::new() };
                writeln!(output, "c{index}: {words}{often}").expect("writing to a String");
            }
        }
        output
    }

    /// One line for all replicas of which the same is true.
    fn lines(&self, mut line: impl FnMut(&Node<JournalWorld>) -> Option<String>) -> String {
        let mut groups: Vec<(Vec<String>, String)> = Vec::new();
        for node in &self.world.nodes {
            let words = line(node).unwrap_or_else(|| "down".into());
            let name = self.name(node.machine);
            match groups.iter_mut().find(|(_, known)| *known == words) {
                Some((names, _)) => names.push(name),
                None => groups.push((vec![name], words)),
            }
        }
        let whole = groups.len() == 1;
        let mut output = String::new();
        for (names, words) in groups {
            let who = if whole { "all".into() } else { names.join(",") };
            writeln!(output, "{who} {words}").expect("writing to a String");
        }
        output
    }

    fn status(&self) -> String {
        self.lines(|node| {
            let core = node.core.as_ref()?;
            let view = match core.entered() {
                View::ZERO => View::ZERO.to_string(),
                entered => format!("{entered}@{}", core.entry_slot()),
            };
            let head = core.head();
            let mut words = format!("{view} head={} {}", head.slot, hex(&head.hash.0[..2]));
            match core.lock().map(|lock| lock.body) {
                None => words += " lock=-",
                Some(lock) => {
                    write!(words, " lock={}:{}", lock.view, lock.slot).expect("a String");
                    let own = core.history().hash_at(lock.slot);
                    if lock.slot > core.history().base().slot && own != Some(lock.hash) {
                        write!(words, "/{}", hex(&lock.hash.0[..2])).expect("a String");
                    }
                }
            }
            write!(words, " stable={}", core.stable()).expect("a String");
            if let Some(campaign) = core.campaign() {
                write!(words, " asks={campaign}").expect("a String");
            }
            let footprint = core.footprint();
            for (name, count) in [("waiting", footprint.pending), ("orphans", footprint.orphans)] {
                if count > 0 {
                    write!(words, " {name}={count}").expect("a String");
                }
            }
            match core.standing() {
                Standing::Voter if core.may_vote() => {}
                Standing::Voter => words += " quarantined",
                standing => write!(words, " {}", standing.word()).expect("a String"),
            }
            Some(words)
        })
    }

    fn counters(&self, given: &mut Given) -> Result<String, String> {
        let names = given.words("of");
        let only = self.machine(given)?;
        let known: Vec<&str> = self
            .world
            .nodes
            .iter()
            .filter_map(|node| node.core.as_ref())
            .flat_map(inspect::counters)
            .map(|(name, _)| name)
            .collect();
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("no such counter: {name}"));
        }
        let words = |node: &Node<JournalWorld>| -> String {
            let counts = names.iter().map(|name| format!("{name}={}", node.count(name)));
            counts.collect::<Vec<_>>().join(" ")
        };
        Ok(match only {
            None => self.lines(|node| Some(words(node))),
            Some(machine) => {
                let node = &self.world.nodes[machine.index()];
                format!("{} {}\n", self.name(machine), words(node))
            }
        })
    }
}

/// The settings with those that the rest of the arguments name.
fn tuning(usual: Tuning, arguments: Arguments) -> Result<Tuning, String> {
    let mut table = toml::Table::try_from(usual).map_err(|error| error.to_string())?;
    for (name, words) in arguments {
        let value = words.first().and_then(|word| word.parse::<i64>().ok());
        let value = value.ok_or_else(|| format!("no number for `{name}`"))?;
        let setting = if table.contains_key(&name) {
            table.get_mut(&name)
        } else {
            let rules = table.get_mut("rules").and_then(toml::Value::as_table_mut);
            rules.and_then(|rules| rules.get_mut(&name))
        };
        *setting.ok_or_else(|| format!("no such setting: {name}"))? = value.into();
    }
    let tuning: Tuning = table.try_into().map_err(|error: toml::de::Error| error.to_string())?;
    tuning.check().map_err(|error| error.to_string())?;
    Ok(tuning)
}

/// One a line. A line that ends in `x*5` ends in `xxxxx`.
fn operations(input: &str) -> Vec<Bytes> {
    let written_out = |line: &str| {
        let (start, last) = line.rsplit_once(' ')?;
        let (text, count) = last.split_once('*')?;
        Some(format!("{start} {}", text.repeat(count.parse().ok()?)))
    };
    input.lines().map(|line| written_out(line).unwrap_or_else(|| line.into()).into()).collect()
}

/// Of each answer that has become final since the last time and was another one before, its words
/// and what to add to them.
fn moved(patron: &Patron, finals: &mut BTreeSet<Ticket>) -> Vec<(String, String)> {
    let mut moved = Vec::new();
    for (ticket, story) in &patron.stories {
        let (Some(first), Some(last)) = (&story.answered, &story.finally) else { continue };
        if !finals.insert(*ticket) {
            continue;
        }
        let results = |told: &Told| -> String {
            let results = told.results.iter().map(|result| String::from_utf8_lossy(result));
            format!("slot={} results=[{}]", told.slot, results.collect::<Vec<_>>().join(", "))
        };
        let before = if first.results != last.results {
            format!(" reordered, was {}", results(first))
        } else if first.hash != last.hash {
            format!(" moved, was slot={}", first.slot)
        } else {
            continue;
        };
        moved.push((format!("final {}", results(last)), before));
    }
    moved
}

fn mismatches(node: &Node<JournalWorld>) -> Option<String> {
    let short = |digest: &Digest| hex(&digest.0[..2]);
    let all: Vec<String> = node
        .core
        .as_ref()?
        .mismatches()
        .iter()
        .map(|known| {
            let certified = &known.certified.checkpoint.body;
            let own = short(&known.own.digest());
            format!("slot={} own={own} certified={}", certified.slot, short(&certified.state))
        })
        .collect();
    Some(if all.is_empty() { "none".into() } else { all.join("; ") })
}

fn clocks(node: &Node<JournalWorld>) -> Option<String> {
    let clocks = node.core.as_ref()?.clocks();
    let words: Vec<String> = clocks.iter().map(|(id, ahead)| format!("{id}:{ahead:+}")).collect();
    Some(if words.is_empty() { "none".into() } else { words.join(" ") })
}

fn evidence(node: &Node<JournalWorld>) -> Option<String> {
    let proofs: Vec<String> = node
        .core
        .as_ref()?
        .evidence()
        .iter()
        .map(|proof| format!("against {}: {} in {}", proof.culprit(), proof.kind(), proof.view()))
        .collect();
    Some(if proofs.is_empty() { "none".into() } else { proofs.join("; ") })
}
