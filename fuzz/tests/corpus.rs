//! All that the fuzzer kept is still taken without a panic.
#![allow(clippy::unwrap_used, missing_docs)]

#[test]
fn kept_inputs_are_taken() {
    for name in isk_fuzz::NAMES {
        let target = isk_fuzz::target(name).unwrap();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
