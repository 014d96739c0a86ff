//! Waiting for company: why a slot that could be ordered sometimes is not, for a moment.
//!
//! A slot costs every replica some signatures and a sync, however many requests it has. Clients that wait for each answer
//! come in cohorts: when a slot is answered, all whose requests stood in it send their next ones, and the first of them
//! is there well before the others. Ordered at once, it would have a slot to itself, and the others, behind that, be a
//! cohort of their own for ever. It is what makes databases wait before a group commit. So with nothing under way the
//! primary looks who stood in its last two slots, and lets requests gather until most of them are here again, but no
//! longer than half of the time that they usually take to come back. Who comes alone never waits: there is nobody
//! to wait for.
//!
//! Only the primary does this, and no rule of the state machine knows of it.

use std::collections::BTreeMap;

use crate::estimate::Estimate;
use crate::id::{ClientId, Instant, RequestName, SessionId};
use crate::message::SignedRequest;

/// A slot that was ordered longer ago than so many times what sessions take to come back says nothing of who comes next.
const TELLS: u64 = 4;

/// A slot: when it was ordered, and how many requests of each session it has.
#[derive(Clone, Debug, Default)]
struct Round {
    at: Instant,
    company: BTreeMap<(ClientId, SessionId), usize>,
}

/// Who stood in the last two slots, how soon they come back, and since when requests gather for the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathering {
    last: Round,
    before: Round,
    /// So many requests of the last slot, and of the last two, may come again: of each session the most that it had in one.
    of_last: usize,
    of_both: usize,
    /// From when a request of a session is ordered until the next one of that session is here.
    returns: Estimate,
    since: Option<Instant>,
}

impl Gathering {
    /// A slot with these requests is ordered.
    pub(super) fn ordered<'a>(
        &mut self,
        requests: impl IntoIterator<Item = &'a SignedRequest>,
        now: Instant,
    ) {
        let mut round = Round { at: now, ..Round::default() };
        for request in requests {
            let body = request.body();
            *round.company.entry((body.client, body.session)).or_default() += 1;
        }
        self.before = std::mem::replace(&mut self.last, round);
        let company = &self.last.company;
        self.of_last = company.values().sum();
        let more = self.before.company.iter().map(|(who, before)| {
            before.saturating_sub(company.get(who).copied().unwrap_or_default())
        });
        self.of_both = self.of_last + more.sum::<usize>();
        self.since = None;
    }

    /// A request of this name is here that was not before.
    pub(super) fn came(&mut self, name: &RequestName, now: Instant) {
        let who = (name.client, name.session);
        let mut rounds = [&self.last, &self.before].into_iter();
        if let Some(round) = rounds.find(|round| round.company.contains_key(&who)) {
            self.returns.note(now, now.micros_since(round.at));
        }
    }

    /// What could be ordered was looked through.
    pub(super) fn looked(&mut self) {
        self.since = None;
    }

    /// How many requests are likely to come soon.
    fn expected(&self, now: Instant, returns: u64) -> usize {
        let tells = |round: &Round| now.micros_since(round.at) <= TELLS * returns;
        match (tells(&self.last), tells(&self.before)) {
            (false, _) => 0,
            (true, false) => self.of_last,
            (true, true) => self.of_both,
        }
    }

    /// Whether so many requests that wait, and nothing under way, should wait for more: a while that is
    /// never longer than `most_ms`.
    pub(super) fn goes_on(&mut self, waiting: usize, now: Instant, most_ms: u64) -> bool {
        let returns = self.returns.smoothed().unwrap_or_default();
        if 4 * waiting >= 3 * self.expected(now, returns) {
            return false;
        }
        self.since.get_or_insert(now);
        self.until(most_ms).is_some_and(|until| now < until)
    }

    /// Whether requests are gathering.
    pub(super) fn is_under_way(&self) -> bool {
        self.since.is_some()
    }

    /// When it ends, if requests are gathering.
    pub(super) fn until(&self, most_ms: u64) -> Option<Instant> {
        let returns = self.returns.smoothed().unwrap_or_default();
        self.since.map(|since| Instant(since.0.saturating_add((returns / 2).min(most_ms * 1000))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::id::RequestNumber;
    use crate::merkle::Path;
    use crate::message::{Level, Request};
    use crate::signature::Signature;

    const MOST: u64 = 10;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    fn request(session: u64, number: u64) -> Arc<SignedRequest> {
        let body = Request {
            client: ClientId([1; 32]),
            session: SessionId(session),
            number: RequestNumber(number),
            level: Level::Strong,
            want_final: false,
            operations: vec![Bytes::from_static(b"x")],
        };
        Arc::new(SignedRequest::from_parts(body, Signature([0; 64]), Path::lone()))
    }

    /// A slot with a request of each of these sessions, whose next ones come eight milliseconds later.
    fn slot(gathering: &mut Gathering, sessions: impl IntoIterator<Item = u64>, ms: u64) {
        let requests: Vec<_> = sessions.into_iter().map(|session| request(session, ms)).collect();
        gathering.ordered(requests.iter().map(|request| &**request), at(ms));
        requests.iter().for_each(|request| gathering.came(&request.body().name(), at(ms + 8)));
    }

    #[test]
    fn two_cohorts_become_one() {
        let mut gathering = Gathering::default();
        slot(&mut gathering, 0..4, 100);
        slot(&mut gathering, 4..8, 108);
        assert!(gathering.goes_on(4, at(116), MOST), "the other four have just been answered");
        assert!(gathering.goes_on(5, at(117), MOST));
        assert!(!gathering.goes_on(6, at(118), MOST), "three quarters are enough");
        slot(&mut gathering, 0..8, 118);
        assert!(gathering.goes_on(1, at(126), MOST));
        assert_eq!(gathering.until(MOST), Some(at(130)), "half of what they take to come back");
        assert!(!gathering.goes_on(1, at(130), MOST));
    }

    #[test]
    fn who_comes_alone_does_not_wait() {
        let mut gathering = Gathering::default();
        assert!(!gathering.goes_on(1, at(1), MOST));
        slot(&mut gathering, [7], 10);
        slot(&mut gathering, [7], 18);
        assert!(!gathering.goes_on(1, at(26), MOST));
        // Several of one session are as good as several sessions.
        slot(&mut gathering, [7, 7, 7, 7], 26);
        assert!(gathering.goes_on(1, at(34), MOST));
        assert!(!gathering.goes_on(3, at(34), MOST));
    }

    #[test]
    fn nobody_waits_for_who_has_gone() {
        let mut gathering = Gathering::default();
        slot(&mut gathering, 0..8, 100);
        slot(&mut gathering, [0], 108);
        assert!(gathering.goes_on(1, at(116), MOST), "seven may be about to come");
        slot(&mut gathering, [0], 120);
        assert!(!gathering.goes_on(1, at(128), MOST));
        slot(&mut gathering, 0..8, 128);
        assert!(!gathering.goes_on(1, at(128 + 4 * 8 + 1), MOST), "that was long ago");
    }

    #[test]
    fn on_slow_lines_the_wait_is_short() {
        let mut gathering = Gathering::default();
        let all: Vec<_> = (0..8).map(|session| request(session, 1)).collect();
        gathering.ordered(all.iter().map(|request| &**request), at(0));
        gathering.came(&all[0].body().name(), at(300));
        assert!(gathering.goes_on(1, at(300), MOST));
        assert_eq!(gathering.until(MOST), Some(at(310)));
        gathering.looked();
        assert_eq!(gathering.until(MOST), None);
    }
}
