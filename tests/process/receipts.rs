//! Receipts: proofs that are worth something to somebody else.

use std::fs;

use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::codec;
use elea_protocol::receipt::Receipt;

use crate::harness::{Town, elea, run};

const HEADER: usize = "elea-receipt-1\n".len();

#[test]
fn a_receipt_is_checked_offline_and_every_flipped_bit_is_seen() {
    let mut town = Town::new(4);
    let path = town.path("sale.receipt");
    let receipt = path.to_str().expect("a path of text").to_owned();
    for (level, proven, fewest) in
        [("--weak", "executed", 2), ("--strong", "final", 3), ("--final", "final", 3)]
    {
        town.patient(&["incr", "stock", level, "--receipt", &receipt]).succeeds();
        let json = town.elea(&["receipt", "verify", &receipt, "--json"]).succeeds().json();
        // A weak request that was committed before the client heard of it has the better proof.
        assert!(
            json["proven"] == proven || level == "--weak" && json["proven"] == "final",
            "{json}"
        );
        assert!(json["voters"].as_array().is_some_and(|voters| voters.len() >= fewest), "{json}");
        assert!(json["results"][0]["result"].as_i64().is_some_and(|stock| stock > 0), "{json}");
    }
    let text = town.elea(&["receipt", "verify", &receipt]).succeeds();
    assert!(text.out.starts_with("The receipt is valid."), "{text:?}");

    // The cluster may be long gone.
    (0..4).for_each(|id| town.kill(id));
    town.elea(&["receipt", "verify", &receipt]).succeeds();

    let bytes = fs::read(&path).expect("saved");
    let forged = town.path("forged.receipt");
    let shown = forged.to_str().expect("a path of text");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&forged, changed).expect("written");
        town.elea(&["receipt", "verify", shown]).fails(4, &["proves nothing"]);
    }
    let cluster = fs::read_to_string(town.path("cluster.toml")).expect("there");
    let membership = ClusterFile::parse(&cluster).expect("sound").membership;
    let holds = |body: &[u8]| {
        codec::decode::<Receipt>(body).is_ok_and(|receipt| {
            codec::encode(&receipt).is_ok_and(|again| again == body)
                && receipt.verify(&membership).is_ok()
        })
    };
    let body = &bytes[HEADER..];
    assert!(holds(body));
    for bit in 0..body.len() * 8 {
        let mut changed = body.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!holds(&changed), "bit {bit}");
    }

    fs::write(&forged, b"").expect("written");
    town.elea(&["receipt", "verify", shown]).fails(4, &["does not begin as one"]);
    let other = crate::harness::init(4);
    let other = other.path().join("cluster.toml");
    run(elea().args(["receipt", "verify", &receipt]).arg("--cluster").arg(other))
        .fails(4, &["another cluster"]);
    town.elea(&["receipt", "verify", "/nowhere"]).fails(2, &["cannot be read"]);
}
