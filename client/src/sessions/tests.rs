//! Simulated processes on one host, some of them killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use elea_protocol::id::{RequestNumber, SessionId};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const GENESIS: Digest = Digest([3; 32]);
const OPENING: SessionId = SessionId(5 << 32);

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

    /// As a process would.
    fn open(&self) -> Sessions {
        Sessions::File(Arc::new(SessionFile::beside(&self.key(), &GENESIS).expect("opened")))
    }

    /// A session for a new process.
    fn lease(&self) -> Lease {
        let sessions = self.open();
        let free = sessions.lease_free().expect("read");
        free.unwrap_or_else(|| sessions.lease_new(OPENING).expect("leased"))
    }

    fn known(&self) -> usize {
        SessionFile::beside(&self.key(), &GENESIS).expect("opened").known().expect("read")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.folder.path().join(format!("client-0.key.{ending}"))
    }
}

fn whole(next: u64) -> Parting {
    Parting { next: RequestNumber(next), whole: true }
}

#[test]
fn one_process_after_another_goes_on_in_one_session() {
    let host = Host::new();
    let mut used = BTreeSet::new();
    for n in 1..=20 {
        let lease = host.lease();
        used.insert(lease.leased.session);
        assert_eq!(lease.leased.next, RequestNumber(n));
        lease.release(whole(n + 1)).expect("released");
    }
    assert_eq!(used.len(), 1);
    let names: Vec<_> = std::fs::read_dir(host.folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    assert_eq!(names.len(), 2, "the state and its lock only: {names:?}");
}

#[test]
fn processes_side_by_side_have_sessions_of_their_own() {
    let host = Host::new();
    let leases: Vec<_> = (0..20).map(|_| host.lease()).collect();
    let ids: BTreeSet<_> = leases.iter().map(|lease| lease.leased.session).collect();
    assert_eq!(ids.len(), 20);
    assert!(ids.iter().all(|id| id.generation() == OPENING.generation()));
}

#[test]
fn the_session_of_a_killed_process_is_never_used_again() {
    let host = Host::new();
    let killed = host.lease();
    let session = killed.leased.session;
    drop(killed);
    let next = host.lease();
    assert_ne!(next.leased.session, session);
    assert_eq!(host.known(), 1);
}

#[test]
fn who_gave_up_on_a_number_leaves_its_session_to_nobody() {
    let host = Host::new();
    let lease = host.lease();
    let session = lease.leased.session;
    lease.release(Parting { next: RequestNumber(5), whole: false }).expect("released");
    assert_ne!(host.lease().leased.session, session);
}

#[test]
fn what_was_never_used_is_not_kept() {
    let host = Host::new();
    host.lease().release(whole(1)).expect("released");
    assert_eq!(host.known(), 0);
}

#[test]
fn of_many_free_sessions_the_newest_is_used_and_the_oldest_are_forgotten() {
    let mut book = Book::new(&GENESIS);
    let opened = |book: &mut Book, n: u64| book.lease_new(SessionId::first_of(n), || 0).session;
    let sessions: Vec<_> = (1..=1030).map(|n| opened(&mut book, n)).collect();
    sessions.iter().for_each(|session| book.release(*session, whole(2)));
    assert_eq!(book.len(), 1024);
    let newest = book.lease_free().expect("many");
    assert_eq!((newest.session.generation(), newest.next), (1030, RequestNumber(2)));
}

#[test]
fn a_damaged_file_begins_anew_and_is_kept_to_be_looked_at() {
    let host = Host::new();
    let before = host.lease();
    let session = before.leased.session;
    before.release(whole(5)).expect("released");
    std::fs::write(host.beside("sessions"), b"{ what is this").expect("written");
    assert_ne!(host.lease().leased.session, session);
    assert!(host.beside("sessions.damaged").exists());
}

#[test]
fn a_file_from_before_the_last_boot_is_a_lost_one() {
    let host = Host::new();
    let before = host.lease();
    let session = before.leased.session;
    before.release(whole(5)).expect("released");
    let path = host.beside("sessions");
    let text = std::fs::read_to_string(&path).expect("text");
    let start = text.find("\"boot\": \"").expect("a boot id") + 9;
    let end = start + text[start..].find('"').expect("its end");
    let other = format!("{}another boot{}", &text[..start], &text[end..]);
    std::fs::write(&path, other).expect("written");
    let after = host.lease().leased;
    assert_ne!(after.session, session);
    assert_eq!(after.next, RequestNumber::FIRST);
}

#[test]
fn the_file_of_another_cluster_is_refused_and_any_place_will_do() {
    let host = Host::new();
    drop(host.open());
    let other = SessionFile::beside(&host.key(), &Digest([4; 32]));
    assert!(matches!(other, Err(SessionError::OtherCluster(_))));
    assert!(SessionFile::at(host.folder.path().join("elsewhere"), &Digest([4; 32])).is_ok());
}

#[test]
fn clients_of_one_process_with_one_key_share_a_book() {
    let sessions = |client: u8| Sessions::in_memory(GENESIS, ClientId([client; 32]));
    let lease = sessions(1).lease_new(OPENING).expect("leased");
    let session = lease.leased.session;
    assert!(sessions(1).lease_free().expect("memory").is_none());
    lease.release(whole(3)).expect("released");
    assert!(sessions(2).lease_free().expect("memory").is_none());
    let again = sessions(1).lease_free().expect("memory").expect("it was given back");
    assert_eq!(again.leased, Leased { session, next: RequestNumber(3) });
}

/// What one process does before it ends.
#[derive(Clone, Debug)]
struct Life {
    requests: u64,
    /// Killed at its end: after its last request was executed, before anybody heard of it.
    killed: bool,
}

fn life() -> impl Strategy<Value = Life> {
    let killed = prop::bool::weighted(0.2);
    (0..4u64, killed).prop_map(|(requests, killed)| Life { requests, killed })
}

/// The numbers executed in each session.
type Executed = BTreeMap<SessionId, BTreeSet<u64>>;

fn finish(executed: &mut Executed, lease: Lease, life: &Life) {
    let Leased { session, next } = lease.leased;
    for number in next.0..next.0 + life.requests {
        let fresh = executed.entry(session).or_default().insert(number);
        assert!(fresh, "{session}/{number} was used twice");
    }
    if !life.killed {
        lease.release(whole(next.0 + life.requests)).expect("released");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Up to four processes at a time, in any interleaving: no number is used twice, and there are
    /// no more sessions than processes at one time, and killed ones.
    #[test]
    fn no_number_is_used_twice(lives in prop::collection::vec((0..4usize, life()), 1..60)) {
        let host = Host::new();
        let mut executed = Executed::new();
        let killed = lives.iter().filter(|(_, life)| life.killed).count();
        let mut running: [Option<(Lease, Life)>; 4] = Default::default();
        for (place, life) in lives {
            if let Some((lease, life)) = running[place].take() {
                finish(&mut executed, lease, &life);
            }
            running[place] = Some((host.lease(), life));
        }
        for (lease, life) in running.into_iter().flatten() {
            finish(&mut executed, lease, &life);
        }
        prop_assert!(executed.len() <= 4 + killed, "{executed:?}");
    }
}

/// Many one-shot commands with one key, 16 at a time, some of them killed, in as many threads, each
/// with its own file handles as processes have.
#[test]
fn many_commands_sixteen_at_a_time_use_few_sessions() {
    let host = Host::new();
    let executed = Mutex::new(Executed::new());
    std::thread::scope(|scope| {
        for thread in 0..16u64 {
            let (host, executed) = (&host, &executed);
            scope.spawn(move || {
                for n in 0..60 {
                    let lease = host.lease();
                    let mut executed = executed.lock().expect("no panic elsewhere");
                    let life = Life { requests: 1, killed: (n + thread) % 20 == 0 };
                    finish(&mut executed, lease, &life);
                }
            });
        }
    });
    let sessions = executed.into_inner().expect("no panic elsewhere").len();
    assert!(sessions <= 16 + 48, "{sessions} sessions");
}
