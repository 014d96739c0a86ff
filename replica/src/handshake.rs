//! How a connection proves who it is, and how a peer's settings are compared before it is let in.
//!
//! Until it has, it is one of those that [wait](crate::waiting).

use elea_protocol::id::ReplicaId;
use elea_protocol::message::{
    Challenge, Farewell, HelloBody, Knock, Origin, ToClient, ToReplica, WIRE_VERSION,
};
use elea_protocol::seal::Rejection;

use crate::counters::{Counter, frame_counter};
use crate::frames::{self, FrameError, Reader, Writer};
use crate::limits::TERMS_FRAME_MAX;
use crate::shell::Shell;
use crate::waiting::Turn;

/// Why a connection is not let in: how it is counted and what it is told.
pub(crate) type Refused = (Counter, Option<Farewell>);

const GONE: Refused = (Counter::HandshakeAborted, None);

/// Challenges a connection, checks its answer, and gives back what that says.
pub(crate) async fn challenge(
    shell: &Shell,
    turn: &mut Turn,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<HelloBody, Refused> {
    let nonce = rand::random();
    let (genesis, replica) = (*shell.membership.genesis(), shell.me);
    let challenge = Challenge { version: WIRE_VERSION, genesis, replica, nonce };
    frames::write(writer, &ToClient::Challenge(challenge)).await.map_err(|_| GONE)?;
    let mut said = read(reader).await?;
    if let ToReplica::Knock(knock) = said {
        let origin = open_knock(shell, knock)?;
        if matches!(origin, Origin::Replica(_)) || !shell.membership.is_open() {
            turn.knock(origin);
        }
        said = read(reader).await?;
    }
    let ToReplica::Hello(hello) = said else {
        return Err((Counter::HelloMalformed, Some(Farewell::Misbehaviour)));
    };
    match shell.membership.open_hello(hello, shell.me, &nonce) {
        Ok(hello) if hello.body.origin == Origin::Replica(shell.me) => {
            Err((Counter::HelloUnknownSigner, Some(Farewell::NotAdmitted)))
        }
        Ok(hello) => {
            if let Origin::Replica(peer) = hello.body.origin {
                compare_terms(shell, peer, reader, writer).await?;
            }
            Ok(hello.body)
        }
        Err(rejection) => Err(refused(rejection)),
    }
}

/// Tells a peer on which terms it may come in, and hears its own.
async fn compare_terms(
    shell: &Shell,
    peer: ReplicaId,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), Refused> {
    let own = ToClient::Terms(shell.agreement.own().clone());
    frames::write(writer, &own).await.map_err(|_| GONE)?;
    reader.decoder_mut().set_max_frame_length(TERMS_FRAME_MAX);
    match read(reader).await? {
        ToReplica::Terms(theirs) if theirs.check().is_ok() => {
            let agreed = shell.agreement.compare(peer, &theirs);
            let refused = || (Counter::SettingsDiffer, Some(Farewell::SettingsDiffer));
            agreed.then_some(()).ok_or_else(refused)
        }
        _ => Err((Counter::HelloMalformed, Some(Farewell::Misbehaviour))),
    }
}

async fn read(reader: &mut Reader) -> Result<ToReplica, Refused> {
    match frames::read_to_replica(reader).await {
        Ok((said, _)) => Ok(said),
        Err(FrameError::Closed | FrameError::Io(_)) => Err(GONE),
        Err(error) => Err((frame_counter(&error), Some(Farewell::Misbehaviour))),
    }
}

fn open_knock(shell: &Shell, knock: Knock) -> Result<Origin, Refused> {
    let opened = shell.membership.open_knock(knock, shell.me);
    opened.map(|knock| knock.body.origin).map_err(refused)
}

fn refused(rejection: Rejection) -> Refused {
    let counter = match rejection {
        Rejection::BadSignature => Counter::HelloBadSignature,
        Rejection::UnknownSigner | Rejection::WeakKey => Counter::HelloUnknownSigner,
        Rejection::Malformed(_) => Counter::HelloMalformed,
    };
    (counter, Some(Farewell::NotAdmitted))
}
