#!/usr/bin/env bash
# Checks all dependencies against deny.toml with cargo-deny: licences, bans and sources, or what the arguments name
# (`advisories`, which asks RustSec's database and the registry for what is known against them: `make audit`).
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
if ! command -v cargo-deny >/dev/null 2>&1; then
    cache=${ISK_TEST_CACHE:-$HOME/.cache/isk-tests}/cargo-deny-$version
    if [ ! -x "$cache/bin/cargo-deny" ]; then
        # A debug build, without debug information: it checks a graph of some hundred crates, and builds in a third of the time.
        echo "deny: building cargo-deny $version once, into $cache"
        CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$cache" --version "$version" cargo-deny
    fi
    PATH=$cache/bin:$PATH
fi
[ $# -gt 0 ] || set -- licenses bans sources
cargo-deny --all-features check --hide-inclusion-graph "$@"
