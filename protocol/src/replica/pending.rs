//! Requests that wait to be ordered, bounded in number and bytes, in all and of each client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::orphans::Orphans;
use crate::id::{ClientId, Digest, Instant, RequestName};
use crate::message::{Request, SignedRequest};
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
    /// Since when it was sent to the others, so that the primary has no excuse any more.
    forwarded: Option<Instant>,
}

/// Verified requests seen but not in the own history: orphans first, then the others, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    by_digest: BTreeMap<Digest, Waiting>,
    by_arrival: BTreeMap<u64, Digest>,
    by_forward: BTreeSet<(Instant, u64)>,
    by_name: BTreeMap<RequestName, Vec<Digest>>,
    per_client: BTreeMap<ClientId, usize>,
    bytes: usize,
    arrivals: u64,
    /// How many were forwarded.
    forwarded: usize,
    /// They count against no limit: the history that they are from was limited.
    orphans: Orphans,
}

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
        let contents =
            self.by_name.get(&name).map_or(0, Vec::len) + self.orphans.of_name(&name).count();
        let of_client = self.per_client.get(&name.client).copied().unwrap_or(0);
        let room = contents < CONTENTS_MAX
            && of_client < tuning.pending_per_client
            && self.len() < tuning.pending_max
            && self.bytes + bytes <= tuning.pending_bytes;
        if !wanted && !room {
            return Inserted::NoRoom;
        }
        self.arrivals += 1;
        if !wanted {
            *self.per_client.entry(name.client).or_default() += 1;
        }
        self.put(Waiting {
            request,
            forward_at,
            arrival: self.arrivals,
            bytes,
            wanted,
            forwarded: None,
        });
        Inserted::New
    }

    fn put(&mut self, waiting: Waiting) {
        let digest = waiting.request.digest();
        self.bytes += waiting.bytes;
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

    /// Nobody is to blame any more for what waits: there is another primary.
    pub(crate) fn forget_forwards(&mut self, forward_at: Instant) {
        self.forwarded = 0;
        self.orphans.forget_forwards();
        self.by_forward.clear();
        for waiting in self.by_digest.values_mut() {
            waiting.forwarded = None;
            waiting.forward_at = forward_at;
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
        self.forwarded -= usize::from(waiting.forwarded.is_some());
        if let Some(contents) = self.by_name.get_mut(&name) {
            contents.retain(|other| other != digest);
            if contents.is_empty() {
                self.by_name.remove(&name);
            }
        }
        if !waiting.wanted
            && let Some(count) = self.per_client.get_mut(&name.client)
        {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&name.client);
            }
        }
        Some(waiting.request)
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

    /// Whether anything waits under this name.
    pub(crate) fn holds(&self, name: &RequestName) -> bool {
        self.by_name.contains_key(name) || self.orphans.of_name(name).next().is_some()
    }

    /// All requests that could be ordered, as far as is known, in their order.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = (Digest, &Arc<SignedRequest>)> {
        self.orphans.ready().chain(self.others())
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

    /// The requests that are to be passed on by now, at most `count` of at most `bytes` together,
    /// or one that is larger. Their next turn is at `again`.
    pub(crate) fn take_forward(
        &mut self,
        now: Instant,
        again: Instant,
        count: usize,
        bytes: usize,
    ) -> Vec<Arc<SignedRequest>> {
        let mut taken = Vec::new();
        let mut size = 0;
        while taken.len() < count {
            let room = if taken.is_empty() { usize::MAX } else { bytes.saturating_sub(size) };
            let Some(request) = self.orphans.take_forward(now, again, room) else { break };
            size += request.body().wire_bytes();
            taken.push(request);
        }
        while let Some((at, arrival)) = self.by_forward.first().copied()
            && at <= now
            && taken.len() < count
            && let Some(digest) = self.by_arrival.get(&arrival)
            && let Some(waiting) = self.by_digest.get_mut(digest)
        {
            size += waiting.bytes;
            if size > bytes && !taken.is_empty() {
                break;
            }
            self.by_forward.remove(&(at, arrival));
            self.by_forward.insert((again, arrival));
            waiting.forward_at = again;
            self.forwarded += usize::from(waiting.forwarded.is_none());
            waiting.forwarded.get_or_insert(now);
            taken.push(waiting.request.clone());
        }
        taken
    }
}
