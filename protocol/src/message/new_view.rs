//! Another view begins.

use serde::{Deserialize, Serialize};

use super::position::check_view;
use super::view_change::distinct;
use super::{CommitCertificate, Malformed, Position, ViewChange};
use crate::codec::{Canonical, Sink};
use crate::id::{Digest, View};
use crate::quorum::{ClusterSize, Strength};
use crate::signature::Signed;

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
                let at = base.body.slot;
                at < head.slot || at == head.slot && base.body.hash == head.hash
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
