//! Simulated processes on one host, some of them killed, against a model of the cluster.

use std::collections::BTreeSet;
use std::path::PathBuf;

use elea_protocol::id::SessionId;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const GENESIS: Digest = Digest([3; 32]);

fn wall(ms: u64) -> WallTime {
    WallTime(1_700_000_000_000 + ms)
}

struct Host {
    folder: TempDir,
}

impl Host {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("client-0.key")
    }

    fn create(&self) -> Sessions {
        Sessions::File(Arc::new(SessionFile::create(&self.key(), &GENESIS).expect("created")))
    }

    /// As another process would.
    fn open(&self) -> Sessions {
        Sessions::File(Arc::new(SessionFile::open(&self.key(), &GENESIS).expect("opened")))
    }
}

fn parting(next: u64, unsettled: Option<u64>) -> Parting {
    Parting {
        next: RequestNumber(next),
        whole: true,
        retire: false,
        unsettled: unsettled.map(RequestNumber),
        executed_floor: SessionId(0),
    }
}

#[test]
fn one_process_after_another_goes_on_in_one_session() {
    let host = Host::new();
    host.create();
    let mut used = BTreeSet::new();
    for n in 1..=20 {
        let lease = host.open().lease(wall(n), 7).expect("leased");
        used.insert(lease.leased.session);
        assert_eq!(lease.leased.next, RequestNumber(n));
        assert_eq!(lease.leased.floor, lease.leased.session);
        lease.release(parting(n + 1, None)).expect("released");
    }
    assert_eq!(used.len(), 1);
    let names: Vec<_> = std::fs::read_dir(host.folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    assert_eq!(names.len(), 2, "the state and its lock only: {names:?}");
}

#[test]
fn processes_side_by_side_have_sessions_of_their_own_whatever_the_clock_says() {
    let host = Host::new();
    host.create();
    let leases: Vec<_> = [5, 5, 1].map(|ms| host.open().lease(wall(ms), 7).expect("leased")).into();
    let ids: Vec<_> = leases.iter().map(|lease| lease.leased.session).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[test]
fn the_session_of_a_killed_process_is_never_used_again_and_goes_when_it_is_settled() {
    let host = Host::new();
    host.create();
    let mut killed = host.open().lease(wall(1), 0).expect("leased");
    let dirty = killed.leased.session;
    killed.note_acknowledged(RequestNumber(4)).expect("written");
    drop(killed);

    let second = host.open().lease(wall(2), 0).expect("leased").leased;
    assert!(second.session > dirty);
    assert_eq!(second.floor, dirty, "it holds an acknowledged request");
    assert_eq!(second.unsettled, [(dirty, RequestNumber(4))]);

    let sessions = host.open();
    sessions.with(|book| book.note_settled(dirty, RequestNumber(3))).expect("written");
    assert_eq!(sessions.with(|book| book.floor()).expect("read"), dirty);
    sessions.with(|book| book.note_settled(dirty, RequestNumber(4))).expect("written");
    // The second holder was dropped above, without a word and without an acknowledged request.
    let third = sessions.lease(wall(3), 0).expect("leased");
    assert_eq!((third.leased.floor, third.leased.live), (third.leased.session, 3));
    let floor = third.leased.floor;
    third.release(Parting { executed_floor: floor, ..parting(2, None) }).expect("released");
    assert_eq!(sessions.with(|book| book.live()).expect("read"), 1);
}

#[test]
fn a_killed_process_that_acknowledged_nothing_holds_nothing_up() {
    let host = Host::new();
    host.create();
    drop(host.open().lease(wall(1), 0).expect("leased"));
    let next = host.open().lease(wall(2), 0).expect("leased").leased;
    assert_eq!((next.floor, next.unsettled.len()), (next.session, 0));
}

#[test]
fn free_sessions_below_a_retiring_one_retire_too() {
    let host = Host::new();
    host.create();
    let [low, high] = [1, 2].map(|n| host.open().lease(wall(n), 0).expect("leased"));
    let lowest = low.leased.session;
    low.release(parting(9, Some(8))).expect("released");
    drop(high);
    let next = host.open().lease(wall(3), 0).expect("leased").leased;
    assert!(next.session > lowest, "not the free one");
    assert_eq!((next.floor, next.unsettled), (lowest, vec![(lowest, RequestNumber(8))]));
}

#[test]
fn a_lost_or_damaged_file_pins_the_floor_until_the_cluster_was_quiet() {
    let host = Host::new();
    let sessions = host.open();
    let first = sessions.lease(wall(1), 0).expect("leased");
    assert_eq!((first.leased.floor, first.leased.pinned), (SessionId(0), true));
    sessions.with(|book| book.note_quiet(&[])).expect("written");
    let floor = sessions.with(|book| book.floor()).expect("read");
    assert_eq!(floor, first.leased.session);
    first.release(parting(2, None)).expect("released");

    std::fs::write(beside_key(&host, "sessions"), b"{ what is this").expect("written");
    let after = host.open().lease(wall(2), 0).expect("leased").leased;
    assert_eq!((after.floor, after.pinned), (SessionId(0), true));
    assert!(beside_key(&host, "sessions.damaged").exists());
}

fn beside_key(host: &Host, ending: &str) -> PathBuf {
    host.folder.path().join(format!("client-0.key.{ending}"))
}

#[test]
fn a_file_from_before_the_last_boot_is_a_lost_one_but_ids_still_grow() {
    let host = Host::new();
    let sessions = host.create();
    let before = sessions.lease(wall(100), 0).expect("leased");
    let session = before.leased.session;
    before.release(parting(5, None)).expect("released");
    let path = beside_key(&host, "sessions");
    let text = std::fs::read_to_string(&path).expect("text");
    let start = text.find("\"boot\": \"").expect("a boot id") + 9;
    let end = start + text[start..].find('"').expect("its end");
    let other = format!("{}another boot{}", &text[..start], &text[end..]);
    std::fs::write(&path, other).expect("written");
    let after = host.open().lease(wall(1), 0).expect("leased").leased;
    assert!(after.pinned && after.session > session, "{after:?}");
    assert_eq!(after.next, RequestNumber::FIRST);
}

#[test]
fn another_cluster_and_a_second_creation_are_refused() {
    let host = Host::new();
    host.create();
    let again = SessionFile::create(&host.key(), &GENESIS);
    assert!(matches!(again, Err(SessionError::Exists(_))));
    let other = SessionFile::open(&host.key(), &Digest([4; 32]));
    assert!(matches!(other, Err(SessionError::OtherCluster(_))));
}

#[test]
fn clients_of_one_process_with_one_key_share_a_book() {
    let client = ClientId([1; 32]);
    let one = Sessions::in_memory(GENESIS, client).lease(wall(1), 0).expect("leased");
    let other = Sessions::in_memory(GENESIS, client).lease(wall(2), 0).expect("leased");
    Sessions::in_memory(GENESIS, client).with(|book| book.note_quiet(&[])).expect("memory");
    let floor = Sessions::in_memory(GENESIS, client).with(|book| book.floor()).expect("memory");
    assert_eq!(floor, one.leased.session.min(other.leased.session));
    let stranger = Sessions::in_memory(GENESIS, ClientId([2; 32])).lease(wall(3), 0);
    assert!(stranger.expect("leased").leased.pinned);
}

/// What the cluster keeps of one session.
#[derive(Debug, Default)]
struct Kept {
    executed: BTreeSet<u64>,
    /// Acknowledged weakly and not final.
    acknowledged: BTreeSet<u64>,
}

/// The replicated state, as far as sessions go, with what a careless floor would break.
#[derive(Debug, Default)]
struct Cluster {
    floor: SessionId,
    sessions: BTreeMap<SessionId, Kept>,
    most: usize,
}

impl Cluster {
    fn execute(&mut self, leased: &Leased, number: u64) {
        assert!(leased.session >= self.floor, "{} is retired", leased.session);
        let floor = leased.floor.max(self.floor);
        for (id, kept) in self.sessions.range(..floor) {
            assert!(kept.acknowledged.is_empty(), "the floor loses requests of {id}: {kept:?}");
        }
        self.sessions = self.sessions.split_off(&floor);
        self.floor = floor;
        let kept = self.sessions.entry(leased.session).or_default();
        assert!(kept.executed.insert(number), "{}/{number} was used twice", leased.session);
        self.most = self.most.max(self.sessions.len());
    }

    fn all_final(&mut self) {
        self.sessions.values_mut().for_each(|kept| kept.acknowledged.clear());
    }

    /// What a strong quorum would report of a session.
    fn final_through(&self, session: SessionId) -> RequestNumber {
        let Some(kept) = self.sessions.get(&session) else { return RequestNumber(0) };
        let executed = (1..).take_while(|n| kept.executed.contains(n)).last().unwrap_or(0);
        let open = kept.acknowledged.first().map_or(u64::MAX, |first| first - 1);
        RequestNumber(executed.min(open))
    }
}

/// What one process does before it ends.
#[derive(Clone, Debug)]
struct Life {
    requests: u64,
    weak: bool,
    /// Killed at its end: after its last request was executed, before anybody heard of it.
    killed: bool,
    /// All that was executed becomes final in between.
    commits: bool,
}

fn life() -> impl Strategy<Value = Life> {
    (0..4u64, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.5))
        .prop_map(|(requests, weak, killed, commits)| Life { requests, weak, killed, commits })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Up to four processes at a time, in any interleaving: no number is used twice, no session in
    /// use is retired, no acknowledged request is dropped.
    #[test]
    fn no_floor_ever_drops_an_acknowledged_request(
        lives in prop::collection::vec((0..4usize, life()), 1..60),
    ) {
        let host = Host::new();
        host.create();
        let mut cluster = Cluster::default();
        let mut running: [Option<(Lease, Life)>; 4] = Default::default();
        for (time, (place, life)) in (0u64..).zip(lives) {
            if let Some((lease, life)) = running[place].take() {
                finish(&mut cluster, lease, &life);
            }
            let lease = host.open().lease(wall(time), 0).expect("leased");
            running[place] = Some((lease, life));
        }
        for (lease, life) in running.into_iter().flatten() {
            finish(&mut cluster, lease, &life);
        }
        // Once all is final, a few commands bring it down to what is in use.
        cluster.all_final();
        for time in 0..12 {
            let life = Life { requests: 1, weak: false, killed: false, commits: true };
            let lease = host.open().lease(wall(1000 + time), 0).expect("leased");
            finish(&mut cluster, lease, &life);
        }
        prop_assert!(cluster.sessions.len() <= 5, "{cluster:?}");
        let live = host.open().with(|book| book.live()).expect("read");
        prop_assert!(live <= 6, "{live} in the book");
    }
}

/// A process executes its requests, settles what it can in passing, and ends.
fn finish(cluster: &mut Cluster, mut lease: Lease, life: &Life) {
    let leased = lease.leased.clone();
    let mut next = leased.next.0;
    let mut unsettled = None;
    for request in 0..life.requests {
        cluster.execute(&leased, next);
        let unheard = life.killed && request + 1 == life.requests;
        if life.weak && !unheard {
            lease.note_acknowledged(RequestNumber(next)).expect("written");
            let kept = cluster.sessions.get_mut(&leased.session).expect("just executed");
            kept.acknowledged.insert(next);
            unsettled = Some(RequestNumber(next));
        }
        next += 1;
    }
    if life.commits {
        cluster.all_final();
    }
    if life.killed {
        return;
    }
    let settled: Vec<_> =
        leased.unsettled.iter().map(|(id, _)| (*id, cluster.final_through(*id))).collect();
    let Holder::File(held) = &lease.holder else { panic!("a file") };
    let file = Sessions::File(held.file());
    file.with(|book| settled.iter().for_each(|(id, through)| book.note_settled(*id, *through)))
        .expect("written");
    let executed_floor = if life.requests > 0 { leased.floor } else { SessionId(0) };
    lease
        .release(Parting {
            next: RequestNumber(next),
            whole: true,
            retire: false,
            unsettled,
            executed_floor,
        })
        .expect("released");
}

/// The acceptance test in small: many one-shot commands with one key, 16 at a time, some
/// of them killed, in as many threads, each with its own file handles as processes have.
#[test]
fn many_commands_sixteen_at_a_time_leave_few_sessions() {
    let host = Host::new();
    host.create();
    let cluster = Mutex::new(Cluster::default());
    std::thread::scope(|scope| {
        for thread in 0..16u64 {
            let (host, cluster) = (&host, &cluster);
            scope.spawn(move || {
                for n in 0..60 {
                    let lease = host.open().lease(wall(n), 0).expect("leased");
                    let mut cluster = cluster.lock().expect("no panic elsewhere");
                    let life = Life {
                        requests: 1,
                        weak: n % 3 == 0,
                        killed: (n + thread) % 20 == 0,
                        commits: n % 2 == 0,
                    };
                    finish(&mut cluster, lease, &life);
                }
            });
        }
    });
    let cluster = cluster.into_inner().expect("no panic elsewhere");
    assert!(cluster.most <= 64, "{} sessions at one time", cluster.most);
    assert!(cluster.sessions.len() <= 48, "{} sessions in the end", cluster.sessions.len());
}
