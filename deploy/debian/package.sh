#!/bin/sh
# The Debian package of this tree, in target/debian/; with cargo-deb 3 (`cargo install cargo-deb --locked`). What is in it is listed in
# Cargo.toml. It fits the Debian release that it is built on, and newer ones.
set -eu
cd "$(dirname "$0")/../.."

cargo build --release --locked --package elea --bin elea
mkdir -p target/completions
for shell in bash zsh fish; do
    target/release/elea completions "$shell" >"target/completions/elea.$shell"
done
rm -f target/debian/elea_*.deb
cargo deb --no-build --locked --strip --output target/debian/
