//! What replicas have learnt of cold tables, where all of them look.
//!
//! Coverage only grows, so it takes no lock: what a replica learns becomes a page of its own, before anything is planned by
//! it, and a book is the union of its pages. Pages are files below `<shared_dir>/coverage/<table UUID>/<topic id>/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::ServiceError;
use crate::coverage_book::BookTitle;
use crate::metadata_store::unique;
use crate::shared_names::{failed, first};

/// What pages are called, so that nothing else is taken for one.
const PAGE: &str = "page";
/// The folder beside the pages with a file for each field that is in both tables.
const FIELDS: &str = "fields";
/// The file that names the topic whose rows a table holds.
const OWNER: &str = "owner";
/// Pages beyond these become one.
const MOST_PAGES: usize = 32;

/// Something that was learnt of a cold table with respect to a topic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<BookTitle>,
    /// Sets of offsets by Kafka partition, as the local store has them.
    #[serde(default)]
    pub offsets: BTreeMap<i32, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    #[serde(default)]
    pub seen: Vec<String>,
    /// Whether an operator has taken coverage back.
    #[serde(default)]
    pub anew: bool,
}

/// The folder of all books.
#[derive(Debug, Clone)]
pub(crate) struct SharedBooks {
    root: PathBuf,
}

impl SharedBooks {
    /// Opens the books below a folder that all replicas have.
    pub(crate) fn open(shared_dir: &Path) -> Result<Self, ServiceError> {
        let root = shared_dir.join("coverage");
        std::fs::create_dir_all(&root).map_err(|e| failed(&root, &e))?;
        Ok(Self { root })
    }

    /// The pages that are not among those taken in already, by their names.
    pub(crate) fn news(
        &self,
        book: &str,
        taken: &BTreeSet<String>,
    ) -> Result<Vec<(String, Page)>, ServiceError> {
        let folder = self.folder(book)?;
        loop {
            let mut news = Vec::new();
            let mut gone = false;
            for name in names(&folder)?.into_iter().filter(|name| is_page(name)) {
                if taken.contains(&name) {
                    continue;
                }
                match read(&folder.join(&name))? {
                    Some(page) => news.push((name, page)),
                    None => gone = true,
                }
            }
            // A page that went has become part of one that this list may not have yet.
            if !gone {
                return Ok(news);
            }
        }
    }

    /// Adds a page; its name.
    pub(crate) fn add(&self, book: &str, page: &Page) -> Result<String, ServiceError> {
        let folder = self.folder(book)?;
        std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, &e))?;
        let name = format!("{PAGE}-{:016x}.json", unique());
        let part = folder.join(format!(".{name}.part"));
        let text = serde_json::to_vec(page)
            .map_err(|e| ServiceError::Internal(format!("a page of {book} has no JSON: {e}")))?;
        let written = std::fs::File::create(&part)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_data()))
            .and_then(|()| std::fs::rename(&part, folder.join(&name)));
        written.map_err(|e| failed(&part, &e))?;
        Ok(name)
    }

    /// Puts one page in the place of all these; its name. Whoever has read them has read it.
    pub(crate) fn rewrite(
        &self,
        book: &str,
        pages: &BTreeSet<String>,
        whole: &Page,
    ) -> Result<String, ServiceError> {
        let name = self.add(book, whole)?;
        let folder = self.folder(book)?;
        for page in pages {
            let path = folder.join(page);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(&path, &e)),
                _ => {}
            }
        }
        Ok(name)
    }

    /// Whether so many pages are better one.
    pub(crate) fn are_many(pages: &BTreeSet<String>) -> bool {
        pages.len() > MOST_PAGES
    }

    /// The topic whose rows a table holds, if somebody said so; `topic` says so first where it is given.
    pub(crate) fn owner(
        &self,
        table: Uuid,
        topic: Option<&str>,
    ) -> Result<Option<String>, ServiceError> {
        let path = self.root.join(table.to_string()).join(OWNER);
        let text = match topic {
            Some(topic) => Some(first(&path, topic.as_bytes())?),
            None => match std::fs::read(&path) {
                Ok(bytes) => Some(bytes),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => return Err(failed(&path, &e)),
            },
        };
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Which cold fields a topic's fields are, by id.
    pub(crate) fn fields(&self, book: &str) -> Result<BTreeMap<i32, i32>, ServiceError> {
        let folder = self.folder(book)?.join(FIELDS);
        let mut fields = BTreeMap::new();
        for name in names(&folder)? {
            let Ok(hot) = name.parse() else { continue };
            fields.extend(number(&folder.join(&name))?.map(|cold| (hot, cold)));
        }
        Ok(fields)
    }

    /// Says which cold field a topic's field is; what was said first holds.
    pub(crate) fn match_field(&self, book: &str, hot: i32, cold: i32) -> Result<(), ServiceError> {
        let path = self.folder(book)?.join(FIELDS).join(hot.to_string());
        first(&path, cold.to_string().as_bytes()).map(|_| ())
    }

    /// The books that there are.
    pub(crate) fn all(&self) -> Result<Vec<String>, ServiceError> {
        let mut all = Vec::new();
        for table in names(&self.root)? {
            for topic in names(&self.root.join(&table))? {
                if topic != OWNER && !topic.starts_with('.') {
                    all.push(format!("{topic}/{table}"));
                }
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// A book's name is the topic's id and the table's UUID.
    fn folder(&self, book: &str) -> Result<PathBuf, ServiceError> {
        let named = book.split_once('/').filter(|(topic, table)| {
            let plain = |text: &str| !text.is_empty() && !text.contains(['/', '.']);
            plain(topic) && plain(table)
        });
        let (topic, table) =
            named.ok_or_else(|| ServiceError::Internal(format!("{book} is no name of a book")))?;
        Ok(self.root.join(table).join(topic))
    }
}

fn is_page(name: &str) -> bool {
    name.starts_with(PAGE) && name.ends_with(".json")
}

/// The names in a folder; none where there is no such folder.
fn names(folder: &Path) -> Result<Vec<String>, ServiceError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(folder, &e)),
    };
    let name = |entry: DirEntry| entry.file_name().to_str().map(str::to_owned);
    entries.filter_map(|e| e.map(name).map_err(|e| failed(folder, &e)).transpose()).collect()
}

fn read(path: &Path) -> Result<Option<Page>, ServiceError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(path, &e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| damaged(path, &e.to_string()))
}

fn number(path: &Path) -> Result<Option<i32>, ServiceError> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| damaged(path, "it is no number")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, &e)),
    }
}

fn damaged(path: &Path, reason: &str) -> ServiceError {
    ServiceError::Internal(format!(
        "what cold tables cover is damaged, at {}: {reason}; move the folder aside, and it is learnt again",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: &str = "topic-id/0000-uuid";

    fn page(seen: &str) -> Page {
        Page { seen: vec![seen.into()], ..Page::default() }
    }

    #[test]
    fn pages_are_read_once_and_become_one() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) =
            (SharedBooks::open(dir.path()).unwrap(), SharedBooks::open(dir.path()).unwrap());
        assert_eq!(one.news(BOOK, &BTreeSet::new()).unwrap(), []);
        let first = one.add(BOOK, &page("a")).unwrap();
        let second = other.add(BOOK, &page("b")).unwrap();
        assert_ne!(first, second);
        assert_eq!(
            other.news(BOOK, &[second.clone()].into()).unwrap(),
            [(first.clone(), page("a"))]
        );
        let pages = BTreeSet::from([first, second.clone()]);
        let whole = Page { seen: vec!["a".into(), "b".into()], ..Page::default() };
        let name = one.rewrite(BOOK, &pages, &whole).unwrap();
        assert_eq!(other.news(BOOK, &[second].into()).unwrap(), [(name, whole)]);
        assert_eq!(one.all().unwrap(), [BOOK]);
        assert!(one.news("..", &BTreeSet::new()).is_err());
    }

    #[test]
    fn what_is_said_first_holds() {
        let dir = tempfile::tempdir().unwrap();
        let books = SharedBooks::open(dir.path()).unwrap();
        let table = Uuid::from_u128(9);
        assert_eq!(books.owner(table, None).unwrap(), None);
        assert_eq!(books.owner(table, Some("one")).unwrap().as_deref(), Some("one"));
        assert_eq!(books.owner(table, Some("two")).unwrap().as_deref(), Some("one"));
        books.match_field(BOOK, 3, 1).unwrap();
        books.match_field(BOOK, 3, 2).unwrap();
        books.match_field(BOOK, 4, 2).unwrap();
        assert_eq!(books.fields(BOOK).unwrap(), [(3, 1), (4, 2)].into());
    }

    #[test]
    fn a_damaged_page_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let books = SharedBooks::open(dir.path()).unwrap();
        let name = books.add(BOOK, &page("a")).unwrap();
        let path = books.folder(BOOK).unwrap().join(&name);
        std::fs::write(path, "{").unwrap();
        let error = books.news(BOOK, &BTreeSet::new()).unwrap_err().to_string();
        assert!(error.contains(&name), "{error}");
    }
}
