#!/usr/bin/env bash
# Installs the system packages that a build needs (with --tests: the tests too), where they are missing.
set -euo pipefail

missing=()
need() { # need <test command> <Debian package>
    eval "$1" >/dev/null 2>&1 || missing+=("$2")
}
need 'command -v cc' gcc
need 'command -v c++' g++
need 'command -v make' make
need 'command -v perl' perl
need 'command -v pkg-config' pkg-config
need 'pkg-config --exists openssl' libssl-dev
need 'test -e /usr/include/zlib.h' zlib1g-dev
if [ "${1:-}" = --tests ]; then
    need 'command -v mvn' maven
    need 'command -v kcat' kcat
    need 'test -n "$(ls -d /usr/lib/jvm/*17* 2>/dev/null)"' openjdk-17-jdk-headless
    need 'python3 -c "import ensurepip, venv"' python3-venv
    need 'ls /usr/lib/*/faketime/libfaketimeMT.so.1' faketime
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: cargo is missing; install Rust 1.94 or newer (rustup, or your distribution)" >&2
    exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: install these (Debian names) with your package manager: ${missing[*]}" >&2
    exit 1
fi
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
echo "setup: installing ${missing[*]}"
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
