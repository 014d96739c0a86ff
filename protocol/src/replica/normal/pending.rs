//! Requests that wait to be ordered, bounded in number and bytes, in all and of each client.
//!
//! **Room.** A client may have no more waiting than is left for all others: alone it gets half, and the
//! more clients wait the smaller the share of each, so that whoever comes finds room. In bytes it may
//! also have no more than a 64th of all, or two large requests.
//!
//! **Turns.** Clients are ordered in turn, by weight: the next request is the oldest of the client that
//! was given least ([`Turns`]). A client that was away does not save up for later, and one that comes back
//! before the others have had as much is not given more for it. So what one client has waiting delays
//! another's request by what is under way, and not by all that came before it. Orphans come before
//! everything, in their old order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::orphans::Orphans;
use crate::id::{ClientId, Digest, Instant, RequestName, RequestNumber};
use crate::message::{OPERATION_WEIGHT, REQUEST_BYTES_MAX, Request, SignedRequest};
use crate::tuning::Tuning;

/// Contents kept under one name. A faulty client may sign many; the primary chooses one, and the
/// others are fetched if it chose one that is not kept.
const CONTENTS_MAX: usize = 2;

#[derive(Clone, Debug)]
struct Waiting {
    request: Arc<SignedRequest>,
    /// When it is to be passed on to the other replicas.
    forward_at: Instant,
    arrival: u64,
    bytes: usize,
    /// Named by an order, so not counted against its client.
    wanted: bool,
    /// Since when it was sent to the others, or another one of its session was executed after that: so long
    /// the primary has had no excuse.
    forwarded: Option<Instant>,
    /// How often its next turn was put off.
    put_off: u32,
}

/// How often the wait for the next turn doubles.
const PUT_OFF_MAX: u32 = 5;

/// Verified requests seen but not in the own history: orphans first, then the others, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    by_digest: BTreeMap<Digest, Waiting>,
    by_arrival: BTreeMap<u64, Digest>,
    by_forward: BTreeSet<(Instant, u64)>,
    by_name: BTreeMap<RequestName, Vec<Digest>>,
    lanes: BTreeMap<ClientId, Lane>,
    /// The clients of which something waits, by what they were given.
    turns: BTreeSet<(u64, ClientId)>,
    /// Those of which nothing waits that were given more than the one whose turn was the last.
    ahead: BTreeSet<(u64, ClientId)>,
    /// What the client whose turn was the last had been given before.
    given: u64,
    bytes: usize,
    /// Of all of them together.
    operations: usize,
    arrivals: u64,
    /// How many were forwarded.
    forwarded: usize,
    /// They count against no limit: the history that they are from was limited.
    orphans: Orphans,
}

/// What waits of one client, and what it was given.
#[derive(Clone, Debug, Default)]
struct Lane {
    arrivals: BTreeSet<u64>,
    /// Of those that count against it.
    count: usize,
    bytes: usize,
    given: u64,
}

/// The part of all bytes that wait, of which one client may have no more. It is small, since replicas mostly
/// have others of a client's requests waiting where it has more open: all of those have to be fetched and
/// ordered before anybody loses patience.
const CLIENT_PART: usize = 64;

/// What became of a request offered to [`Pending::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    New,
    AlreadyThere,
    NoRoom,
}

impl Pending {
    /// How many there are, orphans left out.
    pub(crate) fn len(&self) -> usize {
        self.by_digest.len()
    }

    /// Whether there is nothing that could be ordered, as far as is known.
    pub(crate) fn is_idle(&self) -> bool {
        self.by_digest.is_empty() && self.orphans.is_idle()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether more waits than one slot may have, orphans left out.
    pub(crate) fn fills_slot(&self, tuning: &Tuning) -> bool {
        let weight = self.bytes + OPERATION_WEIGHT * self.operations;
        self.len() >= tuning.batch_requests || weight >= tuning.batch_bytes
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<&Arc<SignedRequest>> {
        let orphan = || self.orphans.get(digest);
        self.by_digest.get(digest).map(|waiting| &waiting.request).or_else(orphan)
    }

    /// Keeps a request. One that an order names (`wanted`) is kept whatever the limits, since
    /// orders are limited themselves.
    pub(crate) fn insert(
        &mut self,
        request: Arc<SignedRequest>,
        forward_at: Instant,
        wanted: bool,
        tuning: &Tuning,
    ) -> Inserted {
        let digest = request.digest();
        if self.by_digest.contains_key(&digest) || self.orphans.contains(&digest) {
            return Inserted::AlreadyThere;
        }
        let name = request.body().name();
        let bytes = request.body().wire_bytes();
        if !wanted && !self.may_take(&name, bytes, tuning) {
            return Inserted::NoRoom;
        }
        self.arrivals += 1;
        self.put(Waiting {
            request,
            forward_at,
            arrival: self.arrivals,
            bytes,
            wanted,
            forwarded: None,
            put_off: 0,
        });
        Inserted::New
    }

    /// Whether there is room for another content of so many bytes under a name.
    pub(crate) fn may_take(&self, name: &RequestName, bytes: usize, tuning: &Tuning) -> bool {
        let contents =
            self.by_name.get(name).map_or(0, Vec::len) + self.orphans.of_name(name).count();
        contents < CONTENTS_MAX && self.has_room(&name.client, bytes, tuning)
    }

    fn has_room(&self, client: &ClientId, bytes: usize, tuning: &Tuning) -> bool {
        let (count, own) = self.lanes.get(client).map_or((0, 0), |lane| (lane.count, lane.bytes));
        let most = (tuning.pending_bytes / CLIENT_PART).max(2 * REQUEST_BYTES_MAX);
        let left = tuning.pending_bytes.saturating_sub(self.bytes);
        // Whoever has nothing waiting gets what is there.
        let share = if own == 0 { left } else { left.min(most) };
        count < tuning.pending_per_client.min(tuning.pending_max.saturating_sub(self.len()))
            && own + bytes <= share
            && bytes <= left
    }

    fn put(&mut self, waiting: Waiting) {
        let digest = waiting.request.digest();
        self.enter_lane(&waiting);
        self.bytes += waiting.bytes;
        self.operations += waiting.request.body().operations.len();
        self.forwarded += usize::from(waiting.forwarded.is_some());
        self.by_arrival.insert(waiting.arrival, digest);
        self.by_name.entry(waiting.request.body().name()).or_default().push(digest);
        self.by_forward.insert((waiting.forward_at, waiting.arrival));
        self.by_digest.insert(digest, waiting);
    }

    /// Keeps requests of an abandoned history, oldest first, before all others and whatever the
    /// limits: they were executed once, and the history that they are from was limited.
    pub(crate) fn insert_orphans(&mut self, orphans: &[Arc<SignedRequest>], forward_at: Instant) {
        // One may be there already, passed on by somebody.
        orphans.iter().for_each(|request| drop(self.remove_other(&request.digest())));
        self.orphans.insert(orphans, forward_at);
    }

    /// The orphans among them.
    pub(crate) fn orphans(&self) -> &Orphans {
        &self.orphans
    }

    /// The same, to be changed.
    pub(crate) fn orphans_mut(&mut self) -> &mut Orphans {
        &mut self.orphans
    }

    /// Whether this is an orphan.
    pub(crate) fn is_orphan(&self, digest: &Digest) -> bool {
        self.orphans.contains(digest)
    }

    /// Requests of these names were executed: orphans that waited for that are taken up.
    pub(crate) fn look_again(
        &mut self,
        executed: impl Iterator<Item = RequestName>,
        is_refused: impl Fn(&Request) -> bool,
    ) {
        self.orphans.look_again(executed, is_refused);
    }

    /// Whether this request was sent to the others and still waits.
    pub(crate) fn is_forwarded(&self, digest: &Digest) -> bool {
        let waiting = self.by_digest.get(digest);
        waiting.is_some_and(|waiting| waiting.forwarded.is_some())
            || self.orphans.is_forwarded(digest)
    }

    /// When it was sent to the others for the first time, if it was and still waits.
    pub(crate) fn forwarded_at(&self, digest: &Digest) -> Option<Instant> {
        self.by_digest.get(digest)?.forwarded
    }

    /// Requests that were sent to the others and still wait.
    pub(crate) fn forwarded(&self) -> impl Iterator<Item = &Arc<SignedRequest>> {
        self.forwarded_since().map(|(_, request)| request)
    }

    /// The same, with when they were sent for the first time.
    pub(crate) fn forwarded_since(&self) -> impl Iterator<Item = (Instant, &Arc<SignedRequest>)> {
        let all = (self.forwarded > 0).then(|| self.by_digest.values());
        let others = all.into_iter().flatten();
        let others = others.filter_map(|waiting| Some((waiting.forwarded?, &waiting.request)));
        self.orphans.forwarded_since().chain(others)
    }

    /// Whether any request was sent to the others and still waits.
    pub(crate) fn any_forwarded(&self) -> bool {
        self.forwarded > 0 || self.orphans.any_forwarded()
    }

    /// A request of this session is executed: those of it that were sent to the others and still wait are not
    /// left out. Answers whether there are any. How far a primary could go on with this is limited, since
    /// a session's window is.
    pub(crate) fn note_served(&mut self, name: &RequestName, now: Instant) -> bool {
        if self.forwarded == 0 {
            return false;
        }
        let number = |number| RequestName { number: RequestNumber(number), ..*name };
        let of_session = self.by_name.range(number(0)..=number(u64::MAX));
        let mut are_any = false;
        for digest in of_session.flat_map(|(_, contents)| contents) {
            if let Some(waiting) = self.by_digest.get_mut(digest)
                && let Some(since) = &mut waiting.forwarded
            {
                *since = now;
                are_any = true;
            }
        }
        are_any
    }

    /// Nobody is to blame any more for what waits: there is another primary.
    pub(crate) fn forget_forwards(&mut self, forward_at: Instant) {
        self.forwarded = 0;
        self.orphans.forget_forwards();
        self.by_forward.clear();
        for waiting in self.by_digest.values_mut() {
            waiting.forwarded = None;
            waiting.forward_at = forward_at;
            waiting.put_off = 0;
            self.by_forward.insert((waiting.forward_at, waiting.arrival));
        }
    }

    /// Forgets one request.
    pub(crate) fn remove(&mut self, digest: &Digest) -> Option<Arc<SignedRequest>> {
        self.orphans.remove(digest).or_else(|| self.remove_other(digest))
    }

    fn remove_other(&mut self, digest: &Digest) -> Option<Arc<SignedRequest>> {
        let waiting = self.by_digest.remove(digest)?;
        let name = waiting.request.body().name();
        self.by_arrival.remove(&waiting.arrival);
        self.by_forward.remove(&(waiting.forward_at, waiting.arrival));
        self.bytes -= waiting.bytes;
        self.operations -= waiting.request.body().operations.len();
        self.forwarded -= usize::from(waiting.forwarded.is_some());
        if let Some(contents) = self.by_name.get_mut(&name) {
            contents.retain(|other| other != digest);
            if contents.is_empty() {
                self.by_name.remove(&name);
            }
        }
        self.leave_lane(&name.client, &waiting);
        Some(waiting.request)
    }

    fn enter_lane(&mut self, waiting: &Waiting) {
        let (client, given) = (waiting.request.body().client, self.given);
        let lane = self.lanes.entry(client).or_insert_with(|| Lane { given, ..Lane::default() });
        if !waiting.wanted {
            lane.count += 1;
            lane.bytes += waiting.bytes;
        }
        lane.arrivals.insert(waiting.arrival);
        self.ahead.remove(&(lane.given, client));
        self.turns.insert((lane.given, client));
    }

    fn leave_lane(&mut self, client: &ClientId, waiting: &Waiting) {
        let Some(lane) = self.lanes.get_mut(client) else { return };
        if !waiting.wanted {
            lane.count -= 1;
            lane.bytes -= waiting.bytes;
        }
        lane.arrivals.remove(&waiting.arrival);
        if lane.arrivals.is_empty() {
            let turn = (lane.given, *client);
            self.turns.remove(&turn);
            self.ahead.insert(turn);
            self.forget_lanes();
        }
    }

    /// Forgets clients of which nothing waits, as soon as the others have had as much.
    fn forget_lanes(&mut self) {
        if self.turns.is_empty() {
            // Nobody has to be made up to: all begin anew.
            (self.given, self.ahead, self.lanes) = (0, BTreeSet::new(), BTreeMap::new());
            return;
        }
        while let Some((given, client)) = self.ahead.first().copied()
            && given <= self.given
        {
            self.ahead.remove(&(given, client));
            self.lanes.remove(&client);
        }
    }

    /// Notes that the primary has ordered a request of this client, of this weight.
    pub(crate) fn give(&mut self, client: &ClientId, weight: u64) {
        let Some(lane) = self.lanes.get_mut(client) else { return };
        let before = lane.given;
        lane.given = before.saturating_add(weight);
        for turns in [&mut self.turns, &mut self.ahead] {
            if turns.remove(&(before, *client)) {
                turns.insert((lane.given, *client));
            }
        }
        self.given = self.given.max(before);
        self.forget_lanes();
    }

    /// Forgets those of these requests that were kept only because an order named them.
    pub(crate) fn drop_wanted(&mut self, digests: impl IntoIterator<Item = Digest>) {
        for digest in digests {
            if self.by_digest.get(&digest).is_some_and(|waiting| waiting.wanted) {
                self.remove(&digest);
            }
        }
    }

    /// Forgets everything under a name and gives back the contents other than `executed`.
    pub(crate) fn remove_name(
        &mut self,
        name: &RequestName,
        executed: &Digest,
    ) -> Vec<Arc<SignedRequest>> {
        let mut contents = self.by_name.get(name).cloned().unwrap_or_default();
        contents.extend(self.orphans.of_name(name));
        contents
            .iter()
            .filter_map(|digest| self.remove(digest).filter(|_| digest != executed))
            .collect()
    }

    /// Whether anything waits of other clients than this one.
    pub(crate) fn any_of_others(&self, client: &ClientId) -> bool {
        self.turns.iter().take(2).any(|(_, other)| other != client)
    }

    /// Whether anything waits under this name.
    pub(crate) fn holds(&self, name: &RequestName) -> bool {
        self.by_name.contains_key(name) || self.orphans.of_name(name).next().is_some()
    }

    /// All requests that could be ordered, as far as is known, in the order in which the primary takes
    /// them: first the orphans, then those of clients in turn.
    pub(crate) fn in_turn(
        &self,
        weigh: impl Fn(&SignedRequest) -> u64,
    ) -> impl Iterator<Item = (Digest, &Arc<SignedRequest>)> {
        let (later, next, taken) = (self.turns.iter(), None, BTreeMap::new());
        let turns = Turns { pending: self, weigh, later, next, taken };
        let others = turns.filter_map(|digest| Some((digest, self.get(&digest)?)));
        self.orphans.ready().chain(others)
    }

    /// All requests, in their order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Digest, &Arc<SignedRequest>)> {
        self.orphans.all().chain(self.others())
    }

    fn others(&self) -> impl Iterator<Item = (Digest, &Arc<SignedRequest>)> {
        self.by_arrival.values().filter_map(|digest| Some((*digest, self.get(digest)?)))
    }

    /// When the next request is to be passed on.
    pub(crate) fn next_forward(&self) -> Option<Instant> {
        let others = self.by_forward.first().map(|(at, _)| *at);
        others.into_iter().chain(self.orphans.next_forward()).min()
    }

    /// The requests that are to be passed on by now, at most `count`, and whether it is the first time.
    /// Their next turn comes later and later; that of orphans `wait_ms` later, unless they are put off.
    pub(crate) fn take_forward(
        &mut self,
        now: Instant,
        wait_ms: u64,
        count: usize,
    ) -> Vec<(Arc<SignedRequest>, bool)> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let again = now.after_ms(wait_ms);
            let Some(request) = self.orphans.take_forward(now, again, usize::MAX) else { break };
            let is_first = self.orphans.forwarded_at(&request.digest()) == Some(now);
            taken.push((request, is_first));
        }
        while let Some((at, arrival)) = self.by_forward.first().copied()
            && at <= now
            && taken.len() < count
            && let Some(digest) = self.by_arrival.get(&arrival)
            && let Some(waiting) = self.by_digest.get_mut(digest)
        {
            let again = now.after_ms(wait_ms << waiting.put_off);
            waiting.put_off = (waiting.put_off + 1).min(PUT_OFF_MAX);
            self.by_forward.remove(&(at, arrival));
            self.by_forward.insert((again, arrival));
            waiting.forward_at = again;
            let is_first = waiting.forwarded.is_none();
            self.forwarded += usize::from(is_first);
            waiting.forwarded.get_or_insert(now);
            taken.push((waiting.request.clone(), is_first));
        }
        taken
    }
}

/// Requests of clients in turn. What is taken from it counts as given at once.
struct Turns<'a, W> {
    pending: &'a Pending,
    weigh: W,
    /// Clients that nothing was taken of yet.
    later: std::collections::btree_set::Iter<'a, (u64, ClientId)>,
    /// The first of those.
    next: Option<(u64, ClientId)>,
    /// The others, by what they were given, with the arrivals from which on they wait.
    taken: BTreeMap<(u64, ClientId), u64>,
}

impl<W: Fn(&SignedRequest) -> u64> Iterator for Turns<'_, W> {
    type Item = Digest;

    fn next(&mut self) -> Option<Digest> {
        self.next = self.next.or_else(|| self.later.next().copied());
        let taken = self.taken.first_key_value().map(|(turn, _)| *turn);
        let turn = [taken, self.next].into_iter().flatten().min()?;
        let from = if taken == Some(turn) { self.taken.remove(&turn)? } else { 0 };
        if self.next == Some(turn) {
            self.next = None;
        }
        let (given, client) = turn;
        let mut arrivals = self.pending.lanes.get(&client)?.arrivals.range(from..);
        let digest = *self.pending.by_arrival.get(arrivals.next()?)?;
        if let Some(after) = arrivals.next() {
            let weight = (self.weigh)(self.pending.get(&digest)?);
            self.taken.insert((given.saturating_add(weight), client), *after);
        }
        Some(digest)
    }
}

#[cfg(test)]
mod tests;
