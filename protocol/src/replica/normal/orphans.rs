//! Orphans: requests of abandoned slots that wait to be executed again.
//!
//! They come before everything else that waits, in their old order, and nothing but their own client
//! can make one superfluous, by a second content under the name, or by so many other sessions that this one
//! has left. So those two reasons let an orphan go. Every other reason may pass: a window moves, later generations of
//! sessions begin, a merge undoes what was in the way. What is refused for such a reason is *parked*. It costs
//! memory, and no work while it waits: no order and no event looks at all of what is parked. It
//! is looked at again where its client's sessions change, a few in turn with every slot, and all
//! at once when slots are undone; and it is passed on ever more rarely.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::id::{ClientId, Digest, Instant, RequestName, RequestNumber, SessionId};
use crate::message::{Request, SignedRequest};
use crate::replica::counters::Tally;

/// How often the wait of what cannot be ordered doubles: to half an hour, with the default settings.
const PUT_OFF_MAX: u32 = 11;

/// How many parked sessions are looked at in turn with each slot.
const LOOKS: usize = 4;

#[derive(Clone, Debug)]
struct Orphan {
    request: Arc<SignedRequest>,
    /// Its place among all orphans: those of later merges have lower ones.
    place: u64,
    /// When it is to be passed on to the other replicas.
    forward_at: Instant,
    /// How often that was put off.
    put_off: u32,
    parked: bool,
}

/// The place that the first orphan gets; those of later merges come before.
const FIRST_PLACE: u64 = 1 << 48;

/// All orphans of a replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orphans {
    by_digest: BTreeMap<Digest, Orphan>,
    by_name: BTreeSet<(RequestName, Digest)>,
    by_place: BTreeMap<u64, Digest>,
    by_forward: BTreeSet<(Instant, u64)>,
    /// Those that can be ordered, as far as is known, by their places.
    ready: BTreeMap<u64, Digest>,
    /// Those that cannot.
    parked: BTreeSet<(RequestName, Digest)>,
    /// Which session of the parked ones was looked at last.
    looked: Option<(ClientId, SessionId)>,
    /// Ready ones that were passed on, so that the primary has no excuse any more, and since when.
    forwarded: BTreeMap<Digest, Instant>,
    /// Those that left since this was last asked for.
    gone: Vec<Digest>,
    /// How often one was looked at, to see whether it can be ordered.
    looks: Tally,
}

impl Orphans {
    pub(crate) fn len(&self) -> usize {
        self.by_digest.len()
    }

    /// Whether none of them can be ordered, as far as is known.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.by_digest.contains_key(digest)
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<&Arc<SignedRequest>> {
        self.by_digest.get(digest).map(|orphan| &orphan.request)
    }

    /// The contents that wait under a name.
    pub(crate) fn of_name(&self, name: &RequestName) -> impl Iterator<Item = Digest> {
        let (first, last) = (Digest([0; 32]), Digest([255; 32]));
        self.by_name.range((*name, first)..=(*name, last)).map(|(_, digest)| *digest)
    }

    /// Takes in requests of an abandoned history, oldest first, before all others.
    pub(crate) fn insert(&mut self, orphans: &[Arc<SignedRequest>], forward_at: Instant) {
        let lowest = self.by_place.keys().next().copied().unwrap_or(FIRST_PLACE);
        let first = lowest.saturating_sub(orphans.len() as u64);
        for (place, request) in (first..).zip(orphans) {
            let digest = request.digest();
            self.take_out(&digest);
            self.gone.retain(|gone| *gone != digest);
            self.by_name.insert((request.body().name(), digest));
            self.by_place.insert(place, digest);
            self.by_forward.insert((forward_at, place));
            self.ready.insert(place, digest);
            let request = request.clone();
            let orphan = Orphan { request, place, forward_at, put_off: 0, parked: false };
            self.by_digest.insert(digest, orphan);
        }
    }

    /// Lets one go: it is in the history again, or never will be.
    pub(crate) fn remove(&mut self, digest: &Digest) -> Option<Arc<SignedRequest>> {
        let request = self.take_out(digest)?;
        self.gone.push(*digest);
        Some(request)
    }

    fn take_out(&mut self, digest: &Digest) -> Option<Arc<SignedRequest>> {
        let Orphan { request, place, forward_at, .. } = self.by_digest.remove(digest)?;
        let entry = (request.body().name(), *digest);
        self.by_name.remove(&entry);
        self.by_place.remove(&place);
        self.by_forward.remove(&(forward_at, place));
        self.ready.remove(&place);
        self.parked.remove(&entry);
        self.forwarded.remove(digest);
        Some(request)
    }

    /// Those that left since this was last asked.
    pub(crate) fn take_gone(&mut self) -> Vec<Digest> {
        std::mem::take(&mut self.gone)
    }

    /// Those that can be ordered, as far as is known, in their order.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (Digest, &Arc<SignedRequest>)> {
        self.ready.values().filter_map(|digest| Some((*digest, self.get(digest)?)))
    }

    /// All of them, in their order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Digest, &Arc<SignedRequest>)> {
        self.by_place.values().filter_map(|digest| Some((*digest, self.get(digest)?)))
    }

    // ---- those that cannot be ordered at present ----

    /// It cannot be ordered at present.
    pub(crate) fn park(&mut self, digest: &Digest) {
        let Some(orphan) = self.by_digest.get_mut(digest) else { return };
        orphan.parked = true;
        self.ready.remove(&orphan.place);
        self.forwarded.remove(digest);
        self.parked.insert((orphan.request.body().name(), *digest));
    }

    /// Perhaps it can be ordered again: then it is passed on at once.
    pub(crate) fn unpark(&mut self, digest: &Digest) {
        let Some(orphan) = self.by_digest.get_mut(digest).filter(|orphan| orphan.parked) else {
            return;
        };
        orphan.parked = false;
        orphan.put_off = 0;
        self.by_forward.remove(&(orphan.forward_at, orphan.place));
        orphan.forward_at = Instant::default();
        self.by_forward.insert((orphan.forward_at, orphan.place));
        self.ready.insert(orphan.place, *digest);
        self.parked.remove(&(orphan.request.body().name(), *digest));
    }

    /// Slots were undone, or a state was replaced: whatever was in the way may be gone.
    pub(crate) fn unpark_all(&mut self) {
        for (_, digest) in self.parked.clone() {
            self.unpark(&digest);
        }
    }

    /// Requests of these names were executed: what may have waited for one of them is looked at, and
    /// a few others in their turn. What this costs does not depend on how much is parked.
    pub(crate) fn look_again(
        &mut self,
        executed: impl Iterator<Item = RequestName>,
        is_refused: impl Fn(&Request) -> bool,
    ) {
        if self.parked.is_empty() {
            return;
        }
        let mut last = None;
        for RequestName { client, session, .. } in executed {
            if last.replace((client, session)) == Some((client, session)) {
                continue;
            }
            self.look_at(client, session, &is_refused);
            if let Some(first) = self.session_from(client, SessionId(0)) {
                let (of, session) = first;
                if of == client {
                    self.look_at(client, session, &is_refused);
                }
            }
        }
        self.look_in_turn(is_refused);
    }

    /// How often one was looked at since the start.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.0
    }

    /// So many were looked at by somebody else.
    pub(crate) fn count_looks(&mut self, looks: usize) {
        self.looks.0 += looks as u64;
    }

    /// Looks at a few parked sessions in their turn.
    fn look_in_turn(&mut self, is_refused: impl Fn(&Request) -> bool) {
        for _ in 0..LOOKS {
            let after = self.looked.and_then(|(client, session)| {
                self.session_from(client, SessionId(session.0.checked_add(1)?))
            });
            let next =
                after.or_else(|| self.parked.first().map(|(name, _)| (name.client, name.session)));
            self.looked = next;
            let Some((client, session)) = next else { return };
            self.look_at(client, session, &is_refused);
        }
    }

    /// The first parked session at or after this one.
    fn session_from(&self, client: ClientId, session: SessionId) -> Option<(ClientId, SessionId)> {
        let name = RequestName { client, session, number: RequestNumber(0) };
        let (name, _) = self.parked.range((name, Digest([0; 32]))..).next()?;
        Some((name.client, name.session))
    }

    /// Takes up those of a session that can be ordered again, as many as there are in a row.
    fn look_at(
        &mut self,
        client: ClientId,
        session: SessionId,
        is_refused: &impl Fn(&Request) -> bool,
    ) {
        let name = RequestName { client, session, number: RequestNumber(0) };
        let mut after = Bound::Included((name, Digest([0; 32])));
        while let Some((name, digest)) =
            self.parked.range((after, Bound::Unbounded)).next().copied()
            && (name.client, name.session) == (client, session)
        {
            self.looks.0 += 1;
            if self.get(&digest).is_none_or(|request| is_refused(request.body())) {
                return;
            }
            after = Bound::Excluded((name, digest));
            self.unpark(&digest);
        }
    }

    // ---- passing on ----

    /// Whether one that can be ordered was passed on.
    pub(crate) fn any_forwarded(&self) -> bool {
        !self.forwarded.is_empty()
    }

    /// When this one was sent to the others for the first time.
    pub(crate) fn forwarded_at(&self, digest: &Digest) -> Option<Instant> {
        self.forwarded.get(digest).copied()
    }

    pub(crate) fn is_forwarded(&self, digest: &Digest) -> bool {
        self.forwarded.contains_key(digest)
    }

    /// Those that can be ordered and were passed on, with when that was for the first time.
    pub(crate) fn forwarded_since(&self) -> impl Iterator<Item = (Instant, &Arc<SignedRequest>)> {
        self.forwarded.iter().filter_map(|(digest, since)| Some((*since, self.get(digest)?)))
    }

    /// Nobody is to blame any more for what waits.
    pub(crate) fn forget_forwards(&mut self) {
        self.forwarded.clear();
    }

    /// When the next one is to be passed on.
    pub(crate) fn next_forward(&self) -> Option<Instant> {
        self.by_forward.first().map(|(at, _)| *at)
    }

    /// Cannot be ordered at present: its next turn comes later and later.
    pub(crate) fn put_off(&mut self, digest: &Digest, now: Instant, wait_ms: u64) {
        self.park(digest);
        let Some(orphan) = self.by_digest.get_mut(digest) else { return };
        self.by_forward.remove(&(orphan.forward_at, orphan.place));
        orphan.put_off = (orphan.put_off + 1).min(PUT_OFF_MAX);
        orphan.forward_at = now.after_ms(wait_ms << orphan.put_off);
        self.by_forward.insert((orphan.forward_at, orphan.place));
    }

    /// The next one that is to be passed on by now, if it has at most so many bytes. Its next turn
    /// is at `again`.
    pub(crate) fn take_forward(
        &mut self,
        now: Instant,
        again: Instant,
        bytes: usize,
    ) -> Option<Arc<SignedRequest>> {
        let (at, place) = self.by_forward.first().copied().filter(|(at, _)| *at <= now)?;
        let digest = *self.by_place.get(&place)?;
        let orphan = self.by_digest.get_mut(&digest)?;
        if orphan.request.body().wire_bytes() > bytes {
            return None;
        }
        self.by_forward.remove(&(at, place));
        self.by_forward.insert((again, place));
        orphan.forward_at = again;
        if !orphan.parked {
            self.forwarded.entry(digest).or_insert(now);
        }
        Some(orphan.request.clone())
    }
}
