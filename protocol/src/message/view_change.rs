//! What replaces a primary: suspicion, the request for another view, and the new view.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{CommitCertificate, Malformed, Position};
use crate::codec::{Canonical, Sink};
use crate::evidence::Evidence;
use crate::id::{Digest, Slot, View};
use crate::quorum::{ClusterSize, REPLICAS_MAX, Strength};
use crate::seal::Signed;

/// The highest view that is spoken of: far beyond what any cluster reaches, and far enough below
/// the end of the numbers that nothing overflows.
pub const VIEW_MAX: View = View(1 << 62);

pub(super) fn check_view(view: View) -> Result<(), Malformed> {
    Malformed::unless(view <= VIEW_MAX, "a view beyond all views")
}

/// Replica to all: "the primary of `view` does not do its work". Zeno's *I hate the primary*.
///
/// `f + 1` of them, for this view or later, are reason enough for anybody to ask for the next one, and so
/// is one with which the primary resigns. Of each replica the highest counts, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Suspect {
    /// The view the sender has entered, or a later one that clocks or lists alone keep it from, or that it
    /// is asked to lead.
    pub view: View,
    /// Whether the sender gives the view up as its primary. Of anybody else it says nothing.
    pub resigns: bool,
}

impl Suspect {
    /// A suspicion, by whoever it is.
    #[must_use]
    pub fn of(view: View) -> Self {
        Self { view, resigns: false }
    }

    /// The word of a primary that cannot lead its view.
    #[must_use]
    pub fn resign(view: View) -> Self {
        Self { view, resigns: true }
    }

    pub(crate) fn check(&self) -> Result<(), Malformed> {
        check_view(self.view)
    }
}

impl Canonical for Suspect {
    const TAG: &'static str = "suspect";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        to.put_u64(u64::from(self.resigns));
    }
}

/// Replica to all: "I ask for `view`, and this is what I hold".
///
/// A request and not a promise: the sender goes on in the view it has entered, and enters `view`
/// or any other one only by the rule for entering. Bounds: `entered < view <= campaign`, the lock is of a view
/// below `view`, and the head is not below the stable slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewChange {
    /// The view asked for.
    pub view: View,
    /// The highest view that the sender asks for: it also asks for lower ones where others do, so
    /// that the lowest campaign gathers all.
    pub campaign: View,
    /// The view entered.
    pub entered: View,
    /// The highest certificate whose batches the sender holds. Its rank and position are signed;
    /// its votes prove themselves.
    pub lock: Option<CommitCertificate>,
    /// The last slot that will never be undone.
    pub stable: Slot,
    /// The end of the sender's history.
    pub head: Position,
    /// As in [`super::Status`], and counted together with it: the higher one is the newer word.
    pub stamp: u64,
}

impl ViewChange {
    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        check_view(self.campaign)?;
        Malformed::unless(self.view <= self.campaign, "a view change above its campaign")?;
        Malformed::unless(self.entered < self.view, "a view change for a view entered")?;
        Malformed::unless(self.stable <= self.head.slot, "a head below the stable slot")?;
        match &self.lock {
            None => Ok(()),
            Some(lock) => {
                Malformed::unless(lock.commit.view < self.view, "a lock of the view asked for")?;
                lock.check(size)
            }
        }
    }

    /// The rank of the lock, for comparison: none is below all.
    #[must_use]
    pub fn lock_rank(&self) -> Option<(View, Slot)> {
        self.lock.as_ref().map(CommitCertificate::rank)
    }
}

impl Canonical for ViewChange {
    const TAG: &'static str = "view-change";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        to.put_u64(self.campaign.0);
        to.put_u64(self.entered.0);
        let lock = self.lock.as_ref().map(CommitCertificate::at);
        super::status::write_lock(lock.as_ref(), to);
        to.put_u64(self.stable.0);
        self.head.write(to);
        to.put_u64(self.stamp);
    }
}

/// A view change with what led to it.
///
/// None of the causes has to be believed: what proves one is in here or in the view change's lock,
/// and a receiver that takes it in is led to ask for the view itself. Causes that prove nothing
/// (a wait in vain) carry nothing, and nobody follows them. Bounds: at most one word a replica in
/// each list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// The view change.
    pub change: Signed<ViewChange>,
    /// The suspicions known against the view entered or later ones.
    pub suspects: Vec<Signed<Suspect>>,
    /// A proof against the primary of the view entered or a later one.
    pub proof: Option<Box<Evidence>>,
    /// The newest view changes of others, without what led to them.
    pub others: Vec<Signed<ViewChange>>,
}

impl Campaign {
    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        self.change.body.check(size)?;
        Malformed::unless(distinct(&self.suspects, size), "two suspicions of one replica")?;
        Malformed::unless(distinct(&self.others, size), "two view changes of one replica")?;
        self.suspects.iter().try_for_each(|suspect| suspect.body.check())?;
        self.others.iter().try_for_each(|change| change.body.check(size))
    }
}

fn distinct<T>(words: &[Signed<T>], size: ClusterSize) -> bool {
    let by: BTreeSet<_> = words.iter().map(|word| word.by).collect();
    words.len() <= usize::from(REPLICAS_MAX)
        && by.len() == words.len()
        && by.iter().all(|id| size.has(*id))
}

/// What the primary's signature covers. Two of one view that differ are a proof against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewViewHeader {
    /// The view that begins.
    pub view: View,
    /// The history it begins with.
    pub head: Position,
    /// Over the view changes it is built on.
    pub changes: Digest,
}

impl Canonical for NewViewHeader {
    const TAG: &'static str = "new-view";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        self.head.write(to);
        to.put_digest(&self.changes);
    }
}

struct Changes<'a>(&'a [Signed<ViewChange>]);

impl Canonical for Changes<'_> {
    const TAG: &'static str = "view-changes";

    fn write(&self, to: &mut impl Sink) {
        to.put_len(self.0.len());
        for change in self.0 {
            to.put_u8(change.by.0);
            to.put_digest(&change.body.digest());
        }
    }
}

/// Over view changes, for [`NewViewHeader::changes`].
#[must_use]
pub fn changes_digest(changes: &[Signed<ViewChange>]) -> Digest {
    Changes(changes).digest()
}

/// The primary of `view` to all: "these asked for it; it begins with this history".
///
/// A receiver enters it if the rule for entering lets it. Bounds: a weak quorum of view changes of
/// different replicas for exactly this view, the primary's own among them, and a head that is not
/// below the base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewView {
    /// What is signed.
    pub header: NewViewHeader,
    /// Covered by `header.changes`.
    pub changes: Vec<Signed<ViewChange>>,
}

impl NewView {
    /// The highest lock among the view changes: what the head must extend.
    #[must_use]
    pub fn base(&self) -> Option<&CommitCertificate> {
        self.changes
            .iter()
            .filter_map(|change| change.body.lock.as_ref())
            .max_by_key(|lock| lock.rank())
    }

    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        let NewViewHeader { view, head, changes } = self.header;
        check_view(view)?;
        Malformed::unless(view > View::ZERO, "a new view 0")?;
        Malformed::unless(distinct(&self.changes, size), "two view changes of one replica")?;
        Malformed::unless(
            size.suffices(self.changes.len(), Strength::Weak),
            "a new view built on too little",
        )?;
        let primary = view.primary(size.replicas());
        Malformed::unless(
            self.changes.iter().any(|change| change.by == primary),
            "a new view without its primary's view change",
        )?;
        for change in &self.changes {
            change.body.check(size)?;
            Malformed::unless(change.body.view == view, "a view change for another view")?;
        }
        Malformed::unless(changes_digest(&self.changes) == changes, "other view changes")?;
        Malformed::unless(
            self.base().is_none_or(|base| {
                let at = base.commit.slot;
                at < head.slot || at == head.slot && base.commit.hash == head.hash
            }),
            "a head that does not extend the base",
        )
    }
}

impl Canonical for NewView {
    const TAG: &'static str = NewViewHeader::TAG;

    fn write(&self, to: &mut impl Sink) {
        self.header.write(to);
    }
}
