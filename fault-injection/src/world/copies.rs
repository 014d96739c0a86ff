//! Backups of running replicas: somebody copies the state that a replica says is certified, piece by piece, while
//! everything else happens. What a correct replica gives has to be what it said.

use elea_protocol::application::{Application, Restore as _};
use elea_protocol::message::{Lent, Position, StateHead, ToClient};

use super::World;
use crate::network::Machine;
use crate::subject::Subject;
use crate::violation::Violation;

/// A state of which some pieces are here.
pub struct Copied<A: Application> {
    at: Position,
    restore: A::Restore,
}

impl<A: Application> Copied<A> {
    fn lacking(&self) -> Option<(Position, u32)> {
        self.restore.missing().map(|index| (self.at, index))
    }
}

impl<S: Subject> World<S> {
    /// Takes what a replica gave to a client of a state.
    ///
    /// # Errors
    /// `backup`: a correct replica gave what nobody certified, or another piece than was asked for.
    pub(super) fn copy(
        &mut self,
        from: Machine,
        client: u16,
        words: &ToClient,
    ) -> Result<(), Violation> {
        if !self.nodes[from.index()].is_correct() {
            return Ok(());
        }
        let wrong = |what: String| Violation::new("backup", format!("{from:?}: {what}"));
        match words {
            ToClient::State(Some(head)) if !self.copies.contains_key(&from) => {
                let opened = self.membership.open_state_head(StateHead::clone(head));
                let head = opened.map_err(|error| wrong(error.to_string()))?.into_inner();
                let restore = S::application(false).restore(head.digests.application);
                self.copies.insert(from, Copied { at: head.stable.position(), restore });
            }
            ToClient::Piece { at, index, lent } => {
                let Some(copied) = self.copies.get_mut(&from).filter(|copied| copied.at == *at)
                else {
                    return Ok(());
                };
                match lent {
                    // What was asked for twice, or for a copy before this one.
                    Lent::Piece(_) if copied.lacking() != Some((*at, *index)) => {}
                    Lent::Piece(bytes) => {
                        let accepted = copied.restore.accept(*index, bytes);
                        accepted.map_err(|bad| wrong(format!("piece {index}: {bad}")))?;
                        if copied.lacking().is_none() {
                            self.coverage.mark("backup made");
                            self.copies.remove(&from);
                        }
                    }
                    Lent::Later => self.coverage.mark("backup slowed down"),
                    Lent::Gone => {
                        self.coverage.mark("backup begun anew");
                        self.copies.remove(&from);
                    }
                }
            }
            _ => return Ok(()),
        }
        let lacking = self.copies.get(&from).and_then(Copied::lacking);
        self.clients.note_lacking(client, from.0, lacking);
        Ok(())
    }
}
