//! A running cluster that is asked again and again how it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::ReplicaId;

use super::model::{Model, Moment};
use super::picture::Picture;
use crate::cluster::Cluster;
use crate::commands::evidence::charges;
use crate::commands::status::{Row, rows};

/// A look waits no longer for a replica that does not answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Proofs are asked for no more often: a replica that says of ever more that it has them cannot have that done.
const PROOFS_EVERY: Duration = Duration::from_secs(2);

/// See the [module](self).
pub struct Watch {
    cluster: Cluster,
    file: ClusterFile,
    patience: Duration,
    model: Model,
    begun: Instant,
    /// When proofs were asked for, and how many there were said to be.
    proofs: Option<(Instant, BTreeMap<ReplicaId, u64>)>,
}

impl Watch {
    /// By this client; a look waits so long at most.
    pub fn new(cluster: Cluster, file: ClusterFile, patience: Duration) -> Self {
        let model = Model::new(&file.membership);
        let patience = patience.min(PATIENCE);
        Self { cluster, file, patience, model, begun: Instant::now(), proofs: None }
    }

    /// Asks all replicas, and shows what is known then.
    pub async fn look(&mut self) -> Picture {
        let said = self.cluster.statuses(self.patience).await;
        let rows: Vec<Row> = rows(&self.file, said);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        self.model.look(Moment { since: self.begun.elapsed(), wall }, &rows);
        self.ask_for_proofs().await;
        self.model.picture()
    }

    /// Where replicas say of other numbers of proofs than before. That there are any is believed of proofs alone.
    async fn ask_for_proofs(&mut self) {
        let claimed = self.model.claimed_proofs();
        let is_known = match &self.proofs {
            Some((at, known)) => *known == claimed || at.elapsed() < PROOFS_EVERY,
            None => claimed.values().all(|proofs| *proofs == 0),
        };
        if is_known {
            return;
        }
        let said = self.cluster.evidence(self.patience).await;
        self.proofs = Some((Instant::now(), claimed));
        let members = self.file.membership.size().members();
        let held: Vec<_> =
            members.zip(&said).filter_map(|(id, said)| Some((id, said.as_ref().ok()?))).collect();
        self.model.convict(charges(held.iter().map(|(id, proofs)| (*id, proofs.as_slice()))));
    }
}
