//! What happens to files on disk: restarts, damage, pressure.

use std::io::Write;

use super::*;
use crate::facts::tests::key;
use crate::facts::{FactBook, recipe};
use crate::store::Store;

/// A cache over a folder, and the facts of what was put into it.
struct Fixture {
    dir: tempfile::TempDir,
    book: FactBook,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("isk.redb")).unwrap();
        Self { dir, book: FactBook::new(Arc::new(store)) }
    }

    fn open(&self, capacity: u64) -> FileCache {
        FileCache::open(&self.root(), capacity, |recipe| self.book.get(recipe)).unwrap()
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// A file of 100 bytes, eight of them its footer.
    fn keep(&self, cache: &FileCache, name: &str, fill: u8, claim: Claim) -> EncodedFile {
        let mut bytes = vec![fill; 100];
        bytes[92..].copy_from_slice(b"\0\0\0\0PAR1");
        let (mut file, path) = cache.begin().unwrap().into_parts();
        file.write_all(&bytes).unwrap();
        let encoding = Encoding {
            rows: 3,
            errors: 0,
            file_size: 100,
            digest: blake3::hash(&bytes).into(),
            columns: BTreeMap::new(),
        };
        self.book.prove(&key(name), &encoding, true).unwrap();
        cache.keep(&recipe(&key(name)), file, path, (92, 8, encoding), claim).unwrap()
    }

    fn find(&self, cache: &FileCache, name: &str) -> Option<EncodedFile> {
        let recipe = recipe(&key(name));
        cache.find(&recipe, &*self.book.get(&recipe)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(recipe(&key(name)))
    }

    /// The names of the topics of all files below the folder.
    fn on_disk(&self) -> Vec<String> {
        let mut found = Vec::new();
        let cache = FileCache { root: self.root(), capacity: 0, index: Mutex::default() };
        cache.walk(&self.root(), &mut found).unwrap();
        let topic = |recipe: String| recipe.split('/').next().unwrap_or_default().to_owned();
        let mut names: Vec<String> = found.into_iter().map(|(recipe, _)| topic(recipe)).collect();
        names.sort();
        names
    }
}

#[test]
fn files_outlive_the_process_and_what_nobody_knows_goes() {
    let fixture = Fixture::new();
    let cache = fixture.open(1000);
    fixture.keep(&cache, "a", 1, Claim::Oldest);
    let unfinished = cache.begin().unwrap().into_temp_path().keep().unwrap();
    std::fs::write(fixture.root().join("a/data/unknown"), b"no facts").unwrap();
    std::fs::write(fixture.root().join("unknown"), b"no facts").unwrap();
    let again = fixture.open(1000);
    assert_eq!(fixture.on_disk(), ["a"]);
    assert!(!unfinished.exists());
    let file = fixture.find(&again, "a").unwrap();
    assert_eq!((file.body_len, file.footer_len, file.encoding.rows), (92, 8, 3));
    assert_eq!(file.read(90..94).unwrap(), [1, 1, 0, 0]);
    assert_eq!(again.bytes(), 100);
}

#[test]
fn a_file_that_is_not_what_the_facts_say_is_not_served() {
    let fixture = Fixture::new();
    for damage in ["truncated", "other bytes", "other bytes, while in use", "missing"] {
        let mut cache = fixture.open(1000);
        fixture.keep(&cache, "a", 1, Claim::Oldest);
        let path = fixture.path("a");
        if damage == "other bytes, while in use" {
            assert!(fixture.find(&cache, "a").is_some(), "{damage}");
        } else {
            cache = fixture.open(1000);
        }
        match damage {
            "truncated" => File::options().write(true).open(&path).unwrap().set_len(50).unwrap(),
            "missing" => std::fs::remove_dir_all(fixture.root()).unwrap(),
            _ => {
                // Longer than a file system's clock ticks.
                std::thread::sleep(std::time::Duration::from_millis(30));
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[40] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        assert!(fixture.find(&cache, "a").is_none(), "{damage}");
        assert!(!path.exists() && cache.bytes() == 0, "{damage}");
        // It is made again, even where its folder is gone.
        fixture.keep(&cache, "a", 1, Claim::Oldest);
        assert!(fixture.find(&cache, "a").is_some(), "{damage}");
    }
}

#[test]
fn a_reader_notices_that_its_file_was_written_to() {
    let fixture = Fixture::new();
    let cache = fixture.open(1000);
    let file = fixture.keep(&cache, "a", 1, Claim::Oldest);
    assert!(file.is_untouched());
    File::options().write(true).open(fixture.path("a")).unwrap().set_len(50).unwrap();
    assert!(!file.is_untouched());
    assert!(file.read(60..70).is_err());
    assert!(file.read(0..10).is_err(), "its beginning is not trusted either");
}

#[test]
fn the_file_used_longest_ago_goes_first_and_stays_readable_for_who_has_it() {
    let fixture = Fixture::new();
    let cache = fixture.open(250);
    let a = fixture.keep(&cache, "a", 1, Claim::Oldest);
    fixture.keep(&cache, "b", 2, Claim::Oldest);
    cache.touch(&recipe(&key("a")));
    fixture.keep(&cache, "c", 3, Claim::Oldest);
    assert_eq!(fixture.on_disk(), ["a", "c"]);
    assert_eq!(cache.bytes(), 200);
    assert_eq!(cache.make_room(1), 100);
    assert_eq!(fixture.on_disk(), ["c"]);
    assert_eq!(a.read(0..2).unwrap(), [1, 1]);
    assert!(fixture.find(&cache, "a").is_none());
    // A smaller bound holds for what an earlier run left, too.
    fixture.keep(&cache, "d", 4, Claim::Oldest);
    fixture.open(150);
    assert_eq!(fixture.on_disk(), ["d"]);
}

#[test]
fn what_claims_free_room_only_pushes_nothing_out() {
    let fixture = Fixture::new();
    let cache = fixture.open(250);
    fixture.keep(&cache, "read", 1, Claim::Oldest);
    fixture.keep(&cache, "proven", 2, Claim::FreeRoom);
    let unkept = fixture.keep(&cache, "unkept", 3, Claim::FreeRoom);
    assert_eq!(fixture.on_disk(), ["proven", "read"]);
    assert_eq!(unkept.read(0..1).unwrap(), [3]);
    fixture.keep(&cache, "read2", 4, Claim::Oldest);
    assert_eq!(fixture.on_disk(), ["read", "read2"]);
}

#[test]
fn a_file_larger_than_the_cache_is_served_and_not_kept() {
    let fixture = Fixture::new();
    let cache = fixture.open(99);
    let file = fixture.keep(&cache, "a", 1, Claim::Oldest);
    assert_eq!(file.read(0..1).unwrap(), [1]);
    assert_eq!((fixture.on_disk().len(), cache.bytes()), (0, 0));
}
