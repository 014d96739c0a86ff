#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| (elea_fuzz::named("stored").expect("a target").run)(bytes));
