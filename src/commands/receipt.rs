//! `elea receipt verify`, and the file that `--receipt` saves.
//!
//! The file is a line that says what it is and the receipt in the protocol's own encoding. It has
//! no byte that does not matter: what is read must encode to the very bytes of the file, and every
//! field is covered by every vote. So a receipt in which one bit was changed proves nothing.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use elea_kv::Answer;
use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::id::hex;
use elea_protocol::membership::Membership;
use elea_protocol::message::Results;
use elea_protocol::quorum::Strength;
use elea_protocol::receipt::{BadReceipt, Proven, Receipt};
use serde_json::{Value as Json, json};

use crate::cli::{ReceiptAction, ReceiptCommand, Verify};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Style};
use crate::{commands, files};

const HEADER: &[u8] = b"elea-receipt-1\n";

/// Runs `elea receipt …`.
pub fn run(args: &ReceiptCommand) -> Outcome {
    let ReceiptAction::Verify(args) = &args.action;
    verify(args)
}

/// The bytes of a receipt file.
pub fn to_bytes(receipt: &Receipt) -> Result<Vec<u8>, Failure> {
    let body = codec::encode(receipt)
        .map_err(|error| Failure::usage(format!("the receipt cannot be saved ({error})")))?;
    Ok([HEADER, &body].concat())
}

/// Saves a receipt.
pub fn save(path: &Path, receipt: &Receipt) -> Outcome {
    files::write_whole(path, &to_bytes(receipt)?)
}

/// Reads a receipt and checks all of it: a sentence where it proves nothing.
pub fn check(bytes: &[u8], membership: &Membership) -> Result<(Receipt, Proven), String> {
    let body = bytes
        .strip_prefix(HEADER)
        .ok_or("it does not begin as one: is it the file that --receipt saved, unchanged?")?;
    let receipt: Receipt = codec::decode(body).map_err(|error| error.to_string())?;
    let again = codec::encode(&receipt).map_err(|error| error.to_string())?;
    if again != body {
        return Err("it is not encoded as receipts are".into());
    }
    let proven = receipt.verify(membership).map_err(|bad| match bad {
        BadReceipt::TooFew(votes) => format!(
            "{votes} votes are too few: to show that it was executed takes {}",
            membership.size().quorum(Strength::Weak)
        ),
        bad => bad.to_string(),
    })?;
    Ok((receipt, proven))
}

fn verify(args: &Verify) -> Outcome {
    let file = commands::cluster(args.cluster.as_deref())?;
    let bytes = read(&args.file)?;
    let shown = args.file.display();
    let (receipt, proven) = check(&bytes, &file.membership).map_err(|why| {
        Failure::misbehaviour(format!("the receipt {shown} proves nothing: {why}"))
    })?;
    if args.json {
        output::line(&to_json(&receipt, proven).to_string());
    } else {
        output::line(&to_text(&receipt, proven, &file.membership));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let most = u64::try_from(FRAME_MAX + HEADER.len() + 1).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(|error| {
        Failure::usage(format!("the receipt {} cannot be read ({error})", path.display()))
    })?;
    Ok(bytes)
}

/// The word by which `--json` and people know what is proven.
pub fn level(proven: Proven) -> &'static str {
    match proven {
        Proven::Executed => "executed",
        Proven::Final => "final",
    }
}

fn to_json(receipt: &Receipt, proven: Proven) -> Json {
    let Receipt { genesis, reply, votes } = receipt;
    let results: Json = match &reply.results {
        Results::Full(results) => results
            .iter()
            .map(|bytes| match Answer::decode(bytes) {
                Ok(Answer::Refused(refused)) => json!({ "refused": refused.to_string() }),
                Ok(answer) => Json::Object(output::json_result(&answer, false)),
                Err(_) => json!({ "bytes_base64": output::base64(bytes) }),
            })
            .collect(),
        Results::Forgotten(digest) => json!({ "forgotten": digest.to_string() }),
    };
    json!({
        "proven": level(proven),
        "cluster": genesis.to_string(),
        "client": reply.name.client.to_string(),
        "session": reply.name.session.0,
        "number": reply.name.number.0,
        "request": reply.request.to_string(),
        "view": reply.view.0,
        "slot": reply.slot.0,
        "index": reply.index,
        "hash": reply.hash.to_string(),
        "results": results,
        "voters": votes.iter().map(|vote| vote.by.0).collect::<Vec<_>>(),
    })
}

fn to_text(receipt: &Receipt, proven: Proven, membership: &Membership) -> String {
    let Receipt { reply, votes, .. } = receipt;
    let results = match &reply.results {
        Results::Full(results) => {
            let all: Vec<_> = results.iter().map(|bytes| result_text(bytes)).collect();
            all.join("\n            ")
        }
        Results::Forgotten(digest) => format!("too large to be kept; its digest is {digest}"),
    };
    let voters: Vec<_> = votes.iter().map(|vote| vote.by.to_string()).collect();
    let meaning = match proven {
        Proven::Executed => {
            "executed: a correct replica did it; it is never lost, but its place may change"
        }
        Proven::Final => "final: every later history has it in this place with this result",
    };
    format!(
        "The receipt is valid.\n\
         \x20 proven    {}\n\
         \x20 cluster   `{}`\n\
         \x20 request   {} of session {} of client {}\n\
         \x20           whose content has the digest {}\n\
         \x20 place     slot {}, operation {}, in view {}\n\
         \x20 history   {}\n\
         \x20 result    {results}\n\
         \x20 signed by {}, {} of {} replicas",
        meaning,
        membership.name(),
        reply.name.number,
        reply.name.session,
        reply.name.client,
        hex(&reply.request.0),
        reply.slot,
        reply.index,
        reply.view,
        hex(&reply.hash.0),
        voters.join(", "),
        votes.len(),
        membership.size().replicas(),
    ) + if proven == Proven::Final { "" } else { "\nAsk again with --final for a final one." }
}

fn result_text(bytes: &[u8]) -> String {
    let Ok(answer) = Answer::decode(bytes) else {
        return format!("{} (base64; not of the key-value store)", output::base64(bytes));
    };
    if let Some(no) = output::refusal(&answer) {
        return no;
    }
    let text = output::plain(&answer, Style::Lines);
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end_matches('\n').escape_debug().to_string();
    if text.is_empty() { String::from("done") } else { text }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use elea_kv::{Found, Outcome as Step, Version};
    use elea_protocol::id::ReplicaId;
    use elea_protocol::id::{ClientId, Digest, RequestName, RequestNumber, SessionId, Slot, View};
    use elea_protocol::message::{Reply, ReplyKind};
    use elea_protocol::seal::sign_replies;
    use elea_protocol::signature::{Ed25519, SecretKey, Signer as _};

    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n + 1; 32])
    }

    fn membership() -> Membership {
        let keys = (0..4).map(|n| key(n).public_key()).collect();
        Membership::new("receipts", 1, keys, None, Arc::new(Ed25519::default())).expect("sound")
    }

    /// A receipt as replicas make it: the reply is the second of three in its slot.
    fn receipt(kind: ReplyKind, voters: &[u8]) -> Receipt {
        let membership = membership();
        let found = Found { value: "seven".into(), version: Version { slot: Slot(2), index: 0 } };
        let answer = codec::encode(&Answer::Step(Step::Get(Some(found)))).expect("small");
        let reply = |number| Reply {
            kind,
            view: View(3),
            slot: Slot(9),
            hash: Digest([7; 32]),
            name: RequestName {
                client: ClientId(key(9).public_key().0),
                session: SessionId(5),
                number: RequestNumber(number),
            },
            request: Digest([8; 32]),
            index: u32::try_from(number).expect("small"),
            results: Results::Full(vec![answer.clone()]),
        };
        let votes = voters.iter().map(|n| {
            let replies = vec![reply(1), reply(2), reply(3)];
            let signed = sign_replies(&key(*n), membership.genesis(), ReplicaId(*n), replies);
            signed[1].vote.clone()
        });
        Receipt { genesis: *membership.genesis(), reply: reply(2), votes: votes.collect() }
    }

    #[test]
    fn a_receipt_reads_back_and_says_what_it_proves() {
        let membership = membership();
        for (kind, voters, says) in [
            (ReplyKind::Speculative, &[0, 3][..], Proven::Executed),
            (ReplyKind::Committed, &[1, 2, 3][..], Proven::Final),
            // What few hold a certificate for may give way, but it was executed.
            (ReplyKind::Committed, &[1, 2][..], Proven::Executed),
        ] {
            let receipt = receipt(kind, voters);
            let bytes = to_bytes(&receipt).expect("small");
            assert_eq!(check(&bytes, &membership), Ok((receipt.clone(), says)));
            let json = to_json(&receipt, says);
            assert_eq!(json["results"], json!([{ "result": "seven" }]));
            assert_eq!(json["voters"], json!(voters));
            assert!(to_text(&receipt, says, &membership).contains("seven"));
        }
        let few = to_bytes(&receipt(ReplyKind::Committed, &[1])).expect("small");
        assert!(check(&few, &membership).is_err_and(|why| why.contains("takes 2")));
    }

    #[test]
    fn every_single_bit_matters() {
        let membership = membership();
        for kind in [ReplyKind::Speculative, ReplyKind::Committed] {
            let bytes = to_bytes(&receipt(kind, &[0, 1, 2])).expect("small");
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&changed, &membership).is_err(), "bit {bit} of {kind:?}");
            }
            for end in 0..bytes.len() {
                assert!(check(&bytes[..end], &membership).is_err(), "cut at {end}");
            }
            assert!(check(&[&bytes[..], &[0]].concat(), &membership).is_err());
        }
    }
}
