//! All replicas are killed at once, again and again. The long form is `elea-chaos kill-all`.

use std::path::PathBuf;

use elea_chaos::kill_all::{self, Order};
use elea_protocol::message::Transport;

#[test]
fn power_cuts_lose_nothing_and_make_nobody_contradict_itself() {
    let order = Order {
        elea: PathBuf::from(env!("CARGO_BIN_EXE_elea")),
        transport: Transport::Encrypted,
        rounds: 5,
        replicas: 4,
        seed: rand::random(),
        is_told: false,
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let done = runtime.block_on(kill_all::run(&order));
    let summary = done.unwrap_or_else(|broken| panic!("seed {}: {broken}", order.seed));
    assert_eq!(summary["kills"], 20, "{summary}");
}
