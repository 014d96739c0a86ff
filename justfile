# What is done daily. `just` lists it.

default:
    @just --list --unsorted

# Everything that must hold before a change is merged
ci:
    .ci/run

# Formatting and lints; changes nothing
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --locked -- -D warnings

# Formats
fix:
    cargo fmt --all

# All tests, or those whose names have this in them
test *filter:
    cargo test --release --workspace {{filter}}

# Seeds of a campaign
sim campaign='all' seeds='200':
    cargo run --release -p elea-fault-injection -- campaign {{campaign}} --seeds {{seeds}}

# One seed again, with everything that happens
replay campaign seed:
    cargo run --release -p elea-fault-injection -- replay {{campaign}} {{seed}} --verbose

# Scripted traces; `just traces rewrite=1` writes their outputs anew
traces folder='tests/traces' rewrite='':
    {{ if rewrite == '' { '' } else { 'REWRITE=1' } }} cargo run --release -p elea-fault-injection -- trace {{folder}}

# Mutants must be caught: all, or these
mutants *names:
    cargo run --release -p elea-fault-injection -- mutants {{names}}

# Explores small clusters state by state
model minutes='10':
    cargo run --release -p elea-fault-injection -- model --minutes {{minutes}}

# Looks for bytes that a target cannot bear; takes cargo-fuzz
fuzz target='world' seconds='600':
    cd fuzz && cargo fuzz run --fuzz-dir libfuzzer -s none {{target}} corpus/{{target}} -- -max_total_time={{seconds}} -max_len=2048

# Faults on real processes
chaos minutes='10' out='chaos-report':
    cargo build --release -p elea -p elea-chaos
    target/release/elea-chaos run --minutes {{minutes}} --out {{out}}

# Microbenchmarks
bench *filter:
    cargo bench --bench core -- {{filter}}

# Elea beside etcd (Debian's `etcd-server`), in one run
compare out='compare-report' *arguments:
    cargo build --release -p elea -p elea-compare
    target/release/elea-compare --out {{out}} {{arguments}}

# Licences, sources and known faults of the dependencies; takes cargo-deny and the network
deny:
    cargo deny check

# The documentation, with private items
doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --release --workspace --no-deps --locked --document-private-items

# Four operators in network namespaces (takes root); `just operators --write` writes docs/operators.md anew
operators *arguments:
    cargo build --release -p elea --bin elea
    PATH="$PWD/target/release:$PATH" tests/operators.sh {{arguments}}
