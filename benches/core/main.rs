//! What the hot paths cost, each by itself, and four whole cores without sockets and disks.
//!
//! `cargo bench --bench core` measures time, which is to be compared within one run only. `-- --instructions` counts
//! instructions with valgrind and compares them with `benches/instructions.txt`.

mod instructions;
mod loopback;
mod paths;

use std::process::ExitCode;

use criterion::Criterion;

use self::paths::PATHS;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [instructions::ONCE, name, times] => instructions::repeat(name, times),
        _ if words.contains(&"--instructions") => return instructions::compare(),
        _ => measure(),
    }
    ExitCode::SUCCESS
}

fn measure() {
    let mut criterion = Criterion::default().configure_from_args();
    for path in PATHS {
        let mut operation = (path.start)();
        criterion.bench_function(path.name, |bencher| bencher.iter(&mut operation));
    }
    criterion.final_summary();
}
