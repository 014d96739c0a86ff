//! `elea evidence`: the proofs of misbehaviour that replicas hold.

use std::collections::BTreeMap;

use elea_protocol::evidence::Evidence;
use elea_protocol::id::{ReplicaId, View};
use serde_json::json;

use crate::cli;
use crate::cluster::by_reason;
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::output::line;

/// What a proof shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Charge {
    /// Who did it.
    pub culprit: ReplicaId,
    /// In which view.
    pub view: View,
    /// What it did, in a few words.
    pub kind: &'static str,
}

/// What is proven, with those who hold the proof. Two replicas may have caught somebody by
/// different statements: that is one charge all the same.
pub fn charges<'a>(
    held: impl IntoIterator<Item = (ReplicaId, &'a [Evidence])>,
) -> BTreeMap<Charge, Vec<ReplicaId>> {
    let mut charges = BTreeMap::<_, Vec<_>>::new();
    for (holder, proofs) in held {
        for proof in proofs {
            let charge =
                Charge { culprit: proof.culprit(), view: proof.view(), kind: proof.kind() };
            let holders = charges.entry(charge).or_default();
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    charges
}

/// Replicas by name: `r0, r2`.
pub fn names(ids: &[ReplicaId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `elea evidence`
pub async fn run(args: &cli::Status) -> Outcome {
    let access = &args.access;
    let file = commands::cluster(access.cluster.as_deref())?;
    let cluster = commands::connect(&file, access).await?;
    // Each proof is checked on its way in, so a replica cannot slander another one with this.
    let said = cluster.evidence(access.timeout).await;
    cluster.close().await;

    let (mut held, mut silent) = (Vec::new(), Vec::new());
    for (id, said) in file.membership.size().members().zip(&said) {
        match said {
            Ok(proofs) => held.push((id, proofs.as_slice())),
            Err(why) => silent.push((id, why.clone())),
        }
    }
    if held.is_empty() {
        return Err(Failure::unavailable(format!(
            "none of the {} replicas answered ({}): are they running, and is the cluster file \
             theirs?",
            silent.len(),
            by_reason(silent)
        )));
    }
    let charges = charges(held.iter().copied());
    for (Charge { culprit, view, kind }, holders) in &charges {
        if access.json {
            let holders: Vec<_> = holders.iter().map(|id| id.0).collect();
            let object =
                json!({ "culprit": culprit.0, "kind": kind, "view": view.0, "held_by": holders });
            line(&object.to_string());
        } else {
            line(&format!("{culprit}: {kind}, in {view}; held by {}", names(holders)));
        }
    }
    if !access.json && charges.is_empty() {
        let asked: Vec<_> = held.iter().map(|(id, _)| *id).collect();
        line(&format!("no proofs, say {}", names(&asked)));
    }
    let unheard = if silent.is_empty() {
        String::new()
    } else {
        format!("; not heard: {}", by_reason(silent))
    };
    let mut culprits: Vec<_> = charges.keys().map(|charge| charge.culprit).collect();
    culprits.dedup();
    if culprits.is_empty() {
        if let Some(unheard) = unheard.strip_prefix("; ") {
            eprintln!("elea: {unheard}");
        }
        return Ok(());
    }
    Err(Failure::misbehaviour(format!(
        "{} signed what no correct replica signs, and the proofs hold: take it out of use and ask \
         its operator{unheard}",
        names(&culprits)
    )))
}
