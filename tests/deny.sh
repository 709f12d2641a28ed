#!/usr/bin/env bash
# Checks the licences, bans and sources of all dependencies against deny.toml with cargo-deny.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
if ! command -v cargo-deny >/dev/null 2>&1; then
    cache=${ISK_TEST_CACHE:-$HOME/.cache/isk-tests}/cargo-deny-$version
    if [ ! -x "$cache/bin/cargo-deny" ]; then
        # A debug build: it checks a graph of some hundred crates, and builds in a third of the time.
        echo "deny: building cargo-deny $version once, into $cache"
        cargo install --quiet --locked --debug --root "$cache" --version "$version" cargo-deny
    fi
    PATH=$cache/bin:$PATH
fi
cargo-deny --all-features check --hide-inclusion-graph licenses bans sources
