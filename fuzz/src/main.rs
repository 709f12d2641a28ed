//! One target under libFuzzer: `ISK_FUZZ_TARGET` names it, the arguments are libFuzzer's. See `fuzz/run`.
#![no_main]
#![allow(clippy::panic, reason = "to panic is what a fuzzer is told by")]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("ISK_FUZZ_TARGET").unwrap_or_default();
    match isk_fuzz::target(&name) {
        Some(target) => target,
        None => panic!("ISK_FUZZ_TARGET={name:?} is none of {:?}", isk_fuzz::NAMES),
    }
});

fuzz_target!(|data: &[u8]| TARGET(data));
