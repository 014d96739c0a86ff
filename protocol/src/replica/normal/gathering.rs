//! Waiting for company: why a slot that could be ordered sometimes is not, for a moment.
//!
//! A slot costs every replica some signatures and a sync, however many requests it has. Clients that wait for each answer
//! come in cohorts: when a slot is answered, all whose requests stood in it send their next ones, and the first of them
//! is there well before the others. Ordered at once, it would have a slot to itself, and the others, behind that, be a
//! cohort of their own for ever. It is what makes databases wait before a group commit. So with nothing under way the
//! primary looks who stood in its last two slots and should be back by now, and lets requests gather until most of them
//! are, but no longer than half of the time that they usually take. Who comes alone waits for nobody, and where
//! requests gathered in vain, the next slots do not wait: after each time twice as many.
//!
//! Only the primary does this, and no rule of the state machine knows of it.

use std::collections::BTreeMap;

use crate::estimate::Estimate;
use crate::id::{ClientId, Instant, RequestName, SessionId, Slot};
use crate::message::SignedRequest;

/// Who stood in a slot that was ordered longer ago than so many times what sessions take to come back has gone.
const GONE: u64 = 4;

/// How often the number of slots doubles that do not wait after requests gathered in vain.
const IN_VAIN_MAX: u32 = 6;

/// What a slot has of a session.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    requests: usize,
    /// Whether another request of it came since.
    is_back: bool,
}

/// A slot, when it was ordered, and what it has of each session.
#[derive(Clone, Debug, Default)]
struct Round {
    slot: Slot,
    at: Instant,
    company: BTreeMap<(ClientId, SessionId), Part>,
}

/// Requests that gather.
#[derive(Clone, Copy, Debug)]
struct Begun {
    until: Instant,
    /// So many waited when it began, and so many more were expected.
    waited: usize,
    lacked: usize,
}

/// Who stood in the last two slots, how soon they come back, and what gathers for the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathering {
    last: Round,
    before: Round,
    /// So many requests of these may come again: of each session in both, the most that it had in one.
    of_last: usize,
    of_before: usize,
    of_both: usize,
    /// From when a request of a session is ordered until the first one after its answer is here.
    returns: Estimate,
    begun: Option<Begun>,
    /// How often in a row requests gathered in vain, and how many slots do not wait any more for that.
    in_vain: u32,
    resting: u32,
}

impl Gathering {
    /// A slot with these requests is ordered.
    pub(super) fn ordered<'a>(
        &mut self,
        slot: Slot,
        requests: impl IntoIterator<Item = &'a SignedRequest>,
        now: Instant,
    ) {
        let mut round = Round { slot, at: now, company: BTreeMap::new() };
        for request in requests {
            let body = request.body();
            round.company.entry((body.client, body.session)).or_default().requests += 1;
        }
        self.before = std::mem::replace(&mut self.last, round);
        let company = &self.last.company;
        let of = |part: &Part| part.requests;
        self.of_before = std::mem::replace(&mut self.of_last, company.values().map(of).sum());
        let more =
            self.before.company.iter().map(|(who, before)| {
                before.requests.saturating_sub(company.get(who).map_or(0, of))
            });
        self.of_both = self.of_last + more.sum::<usize>();
        match self.begun.take() {
            None => self.resting = self.resting.saturating_sub(1),
            Some(begun) => self.judge(&begun, self.of_last),
        }
    }

    /// Whether it was worth while: half of what lacked has come.
    fn judge(&mut self, begun: &Begun, stand: usize) {
        if 2 * stand.saturating_sub(begun.waited) >= begun.lacked {
            self.in_vain = 0;
        } else {
            self.resting = 1 << self.in_vain;
            self.in_vain = (self.in_vain + 1).min(IN_VAIN_MAX);
        }
    }

    /// A request of this name is here that was not before. What comes while the last one of its session is under
    /// way does not come after an answer.
    pub(super) fn came(
        &mut self,
        name: &RequestName,
        now: Instant,
        is_under_way: impl Fn(Slot) -> bool,
    ) {
        let who = (name.client, name.session);
        let rounds = [&mut self.last, &mut self.before].into_iter();
        for round in rounds {
            if let Some(part) = round.company.get_mut(&who) {
                if !part.is_back && !is_under_way(round.slot) {
                    self.returns.note(now, now.micros_since(round.at));
                }
                part.is_back = true;
                return;
            }
        }
    }

    /// What could be ordered was looked through, or nothing is left that could.
    pub(super) fn looked(&mut self) {
        self.begun = None;
    }

    /// How long requests gather at most.
    fn most(&self, most_ms: u64) -> u64 {
        (self.returns.smoothed().unwrap_or_default() / 2).min(most_ms * 1000)
    }

    /// How many requests are likely to be here when they have gathered for so long: of slots whose sessions usually
    /// are back by then. Who takes its time is not waited for.
    fn expected(&self, now: Instant, most: u64) -> usize {
        let returns = self.returns.smoothed().unwrap_or_default();
        let is_due = |round: &Round| {
            let since = now.micros_since(round.at);
            returns <= since + most && since <= GONE * returns
        };
        match (is_due(&self.last), is_due(&self.before)) {
            (true, true) => self.of_both,
            (true, false) => self.of_last,
            (false, true) => self.of_before,
            (false, false) => 0,
        }
    }

    /// Whether so many requests that wait, and nothing under way, should wait for more: a while that is
    /// never longer than `most_ms`.
    pub(super) fn goes_on(&mut self, waiting: usize, now: Instant, most_ms: u64) -> bool {
        if self.resting > 0 {
            return false;
        }
        let most = self.most(most_ms);
        let expected = self.expected(now, most);
        if 4 * waiting >= 3 * expected {
            return false;
        }
        let lacked = expected - waiting;
        let until = Instant(now.0.saturating_add(most));
        let begun = self.begun.get_or_insert(Begun { until, waited: waiting, lacked });
        now < begun.until
    }

    /// When it ends, if requests are gathering.
    pub(super) fn until(&self) -> Option<Instant> {
        self.begun.map(|begun| begun.until)
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
        gathering.ordered(Slot(ms), requests.iter().map(|request| &**request), at(ms));
        for request in &requests {
            gathering.came(&request.body().name(), at(ms + 8), |_| false);
        }
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
        assert_eq!(gathering.until(), Some(at(130)), "half of what they take to come back");
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
    fn who_takes_its_time_is_not_waited_for() {
        let mut gathering = Gathering::default();
        // Two sessions, each of which asks once a second.
        for second in 1..9 {
            for (session, ms) in [(0, 0), (1, 300)] {
                let (now, request) = (at(1000 * second + ms), request(session, second));
                gathering.came(&request.body().name(), now, |_| false);
                assert!(!gathering.goes_on(1, now, MOST), "second {second}, session {session}");
                gathering.ordered(Slot(ms + second), [&*request], now);
            }
        }
    }

    #[test]
    fn what_gathers_in_vain_does_not_gather_the_next_times() {
        let mut gathering = Gathering::default();
        let mut now = 100;
        slot(&mut gathering, [0], now);
        let mut gathered = 0;
        // Sessions that never come back, one every eight milliseconds.
        for session in 1..100 {
            now += 8;
            if gathering.goes_on(1, at(now), MOST) {
                gathered += 1;
                now += 4;
                assert!(!gathering.goes_on(1, at(now), MOST));
            }
            let request = request(session, 1);
            gathering.came(&request.body().name(), at(now), |_| false);
            gathering.ordered(Slot(session), [&*request], at(now));
        }
        assert!((1..=7).contains(&gathered), "{gathered} of 99");
        // It begins again when somebody is there to be waited for.
        for _ in 0..70 {
            now += 12;
            slot(&mut gathering, 0..8, now);
        }
        assert!(gathering.goes_on(1, at(now + 8), MOST));
        now += 10;
        slot(&mut gathering, 0..8, now);
        assert!(gathering.goes_on(1, at(now + 8), MOST), "it was worth while");
    }

    #[test]
    fn what_comes_before_its_session_was_answered_does_not_come_back() {
        let mut gathering = Gathering::default();
        slot(&mut gathering, 0..4, 100);
        let early = request(0, 9);
        gathering.ordered(Slot(108), [&*early], at(108));
        gathering.came(&early.body().name(), at(109), |slot| slot == Slot(108));
        assert!(gathering.goes_on(1, at(116), MOST), "eight milliseconds, as before");
        assert_eq!(gathering.until(), Some(at(120)));
    }

    #[test]
    fn on_slow_lines_the_wait_is_short() {
        let mut gathering = Gathering::default();
        let all: Vec<_> = (0..8).map(|session| request(session, 1)).collect();
        gathering.ordered(Slot(1), all.iter().map(|request| &**request), at(0));
        gathering.came(&all[0].body().name(), at(300), |_| false);
        assert!(gathering.goes_on(1, at(300), MOST));
        assert_eq!(gathering.until(), Some(at(310)));
        gathering.looked();
        assert_eq!(gathering.until(), None);
    }
}
