//! What is known of one cold table with respect to one topic, as the local store keeps it, or the folder that replicas share.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use isk_model::{Boundary, KafkaPartition, OffsetSet, TopicId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::ServiceError;
use crate::covered::{Covered, Offsets};
use crate::shared_books::{Page, SharedBooks};
use crate::store::{Changes, Kind, Store};

/// What a book is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BookName {
    pub topic: TopicId,
    pub table: Uuid,
}

impl fmt::Display for BookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.table)
    }
}

/// The names that topic and cold table had when they were last seen: for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BookTitle {
    pub topic: String,
    pub table: String,
}

/// Where books are kept.
pub(crate) enum Bookcase {
    /// In the local store of the only service.
    Own(Arc<Store>),
    /// Where all replicas look.
    Shared(SharedBooks),
}

/// Hot field id to cold field id.
pub(crate) type FieldIds = BTreeMap<i32, i32>;

impl Bookcase {
    /// The topic whose rows a table holds, if that is known.
    pub(crate) fn owner(&self, table: Uuid) -> Result<Option<String>, ServiceError> {
        match self {
            Self::Own(store) => store.get(Kind::ColdOwner, &table.to_string()),
            Self::Shared(books) => books.owner(table, None),
        }
    }

    /// Notes the topic whose rows a table holds; the one that was noted first is the answer.
    pub(crate) fn own(&self, table: Uuid, topic: &str) -> Result<String, ServiceError> {
        match self {
            Self::Own(store) => {
                store.put(Kind::ColdOwner, &table.to_string(), &topic)?;
                Ok(topic.to_owned())
            }
            Self::Shared(books) => {
                Ok(books.owner(table, Some(topic))?.unwrap_or_else(|| topic.to_owned()))
            }
        }
    }

    /// Which cold fields a topic's fields were found to be.
    pub(crate) fn fields(&self, name: BookName) -> Result<FieldIds, ServiceError> {
        match self {
            Self::Own(store) => {
                Ok(store.get(Kind::ColdFields, &name.to_string())?.unwrap_or_default())
            }
            Self::Shared(books) => books.fields(&name.to_string()),
        }
    }

    /// Notes which cold fields a topic's fields are. [`Self::fields`] says what holds now: another replica may have
    /// found others.
    pub(crate) fn keep_fields(
        &self,
        name: BookName,
        fields: &FieldIds,
    ) -> Result<(), ServiceError> {
        match self {
            Self::Own(store) => store.put(Kind::ColdFields, &name.to_string(), fields),
            Self::Shared(books) => fields
                .iter()
                .try_for_each(|(&hot, &cold)| books.match_field(&name.to_string(), hot, cold)),
        }
    }
}

/// What is known of one cold table with respect to one topic.
#[derive(Clone, Default)]
pub(crate) struct Book {
    pub covered: Arc<Covered>,
    /// Snapshots, manifests and data files that were looked at.
    pub seen: HashSet<String>,
    /// Whether an operator has taken coverage back: what the table holds now is to be looked at again.
    pub anew: bool,
    title: Option<BookTitle>,
    /// The pages that it is made of, where replicas share it.
    pages: BTreeSet<String>,
}

/// What was learnt.
pub(crate) struct Learnt {
    pub covered: Covered,
    /// The partitions of which more is covered than before.
    pub changed: BTreeSet<KafkaPartition>,
    pub seen: Vec<String>,
}

impl Learnt {
    /// Nothing yet, beyond what the book holds.
    pub(crate) fn of(book: &Book) -> Self {
        Self { covered: Covered::clone(&book.covered), changed: BTreeSet::new(), seen: Vec::new() }
    }
}

impl Book {
    /// The book as it was last kept.
    pub(crate) fn open(case: &Bookcase, name: BookName) -> Result<Self, ServiceError> {
        match case {
            Bookcase::Own(store) => Self::of_store(store, name),
            Bookcase::Shared(_) => {
                let mut book = Self::default();
                book.refresh(case, name)?;
                Ok(book)
            }
        }
    }

    fn of_store(store: &Store, name: BookName) -> Result<Self, ServiceError> {
        let before: Option<i64> = store.get(Kind::Boundary, &name.to_string())?;
        let covered = Covered::new(offsets(store, &name.to_string())?, before.map(Boundary));
        let prefix = format!("{name}/");
        let seen = store.scan::<()>(Kind::ColdSeen, &prefix)?;
        let seen = seen.into_iter().filter_map(|(k, ())| Some(k.strip_prefix(&prefix)?.to_owned()));
        Ok(Self {
            covered: Arc::new(covered),
            seen: seen.collect(),
            anew: store.get::<()>(Kind::ColdAnew, &name.to_string())?.is_some(),
            title: store.get(Kind::ColdTitle, &name.to_string())?,
            pages: BTreeSet::new(),
        })
    }

    /// Takes in what other replicas have learnt since.
    pub(crate) fn refresh(&mut self, case: &Bookcase, name: BookName) -> Result<(), ServiceError> {
        let Bookcase::Shared(books) = case else { return Ok(()) };
        let book = name.to_string();
        let news = books.news(&book, &self.pages)?;
        if news.is_empty() {
            return Ok(());
        }
        self.take_in(&book, news)?;
        if SharedBooks::are_many(&self.pages) {
            self.rewrite(books, &book)?;
        }
        Ok(())
    }

    /// A book that replicas share, by its name, and as nobody keeps it open.
    pub(crate) fn of_pages(books: &SharedBooks, book: &str) -> Result<Self, ServiceError> {
        let mut whole = Self::default();
        whole.take_in(book, books.news(book, &BTreeSet::new())?)?;
        Ok(whole)
    }

    /// The union of what is known and these pages.
    fn take_in(&mut self, book: &str, pages: Vec<(String, Page)>) -> Result<(), ServiceError> {
        let mut covered = Covered::clone(&self.covered);
        for (name, page) in pages {
            for (partition, text) in &page.offsets {
                let set = set_of(text).ok_or_else(|| damaged(&format!("{book}, page {name}")))?;
                covered.offsets.entry(KafkaPartition(*partition)).or_default().union_with(&set);
            }
            let before = page.before.map(Boundary);
            if before > covered.before {
                covered.before = before;
                covered.bounded.clear();
            }
            self.seen.extend(page.seen);
            self.anew |= page.anew;
            self.title = page.title.or(self.title.take());
            self.pages.insert(name);
        }
        self.covered = Arc::new(covered);
        Ok(())
    }

    /// What an operator has left of it takes the place of all its pages.
    pub(crate) fn cut_back(
        &self,
        books: &SharedBooks,
        book: &str,
        offsets: BTreeMap<i32, String>,
        before: Option<i64>,
    ) -> Result<(), ServiceError> {
        let left = Page { offsets, before, anew: true, ..self.page() };
        books.rewrite(book, &self.pages, &left).map(|_| ())
    }

    /// The names that topic and cold table had when they were last seen.
    pub(crate) fn title(&self) -> Option<&BookTitle> {
        self.title.as_ref()
    }

    /// All that is known, as one page.
    fn page(&self) -> Page {
        let offsets = self.covered.offsets.iter().map(|(p, set)| (p.0, text_of(set)));
        let mut seen: Vec<String> = self.seen.iter().cloned().collect();
        seen.sort_unstable();
        Page {
            title: self.title.clone(),
            offsets: offsets.collect(),
            before: self.covered.before.map(|Boundary(ms)| ms),
            seen,
            anew: self.anew,
        }
    }

    fn rewrite(&mut self, books: &SharedBooks, book: &str) -> Result<(), ServiceError> {
        let name = books.rewrite(book, &self.pages, &self.page())?;
        self.pages = BTreeSet::from([name]);
        Ok(())
    }

    /// Takes in what was learnt, all of it or nothing. In the local store, it is on disk after the next [`Store::settle`].
    pub(crate) fn keep(
        &mut self,
        case: &Bookcase,
        name: BookName,
        learnt: Learnt,
    ) -> Result<(), ServiceError> {
        let Learnt { covered, changed, seen } = learnt;
        let sets = changed.iter().filter_map(|p| Some((*p, covered.offsets.get(p)?)));
        let before = covered.before.filter(|_| covered.before != self.covered.before);
        match case {
            Bookcase::Own(store) => {
                let mut changes = Changes::default();
                for (partition, set) in sets {
                    let key = format!("{name}/{}", partition.0);
                    changes.put(Kind::Coverage, key, &text_of(set))?;
                }
                if let Some(Boundary(ms)) = before {
                    changes.put(Kind::Boundary, name.to_string(), &ms)?;
                }
                for key in &seen {
                    changes.put(Kind::ColdSeen, format!("{name}/{key}"), &())?;
                }
                store.apply_soon(&changes)?;
            }
            Bookcase::Shared(books) => {
                let page = Page {
                    title: None,
                    offsets: sets.map(|(partition, set)| (partition.0, text_of(set))).collect(),
                    before: before.map(|Boundary(ms)| ms),
                    seen: seen.clone(),
                    anew: false,
                };
                self.pages.insert(books.add(&name.to_string(), &page)?);
            }
        }
        self.covered = Arc::new(covered);
        self.seen.extend(seen);
        Ok(())
    }

    /// What the table holds now was looked at.
    pub(crate) fn looked_anew(
        &mut self,
        case: &Bookcase,
        name: BookName,
    ) -> Result<(), ServiceError> {
        self.anew = false;
        match case {
            Bookcase::Own(store) => store.remove(Kind::ColdAnew, &name.to_string()),
            Bookcase::Shared(books) => self.rewrite(books, &name.to_string()),
        }
    }

    /// Notes what people call the two.
    pub(crate) fn entitle(
        &mut self,
        case: &Bookcase,
        name: BookName,
        title: BookTitle,
    ) -> Result<(), ServiceError> {
        if self.title.as_ref() == Some(&title) {
            return Ok(());
        }
        match case {
            Bookcase::Own(store) => store.put(Kind::ColdTitle, &name.to_string(), &title)?,
            Bookcase::Shared(books) => {
                let page = Page { title: Some(title.clone()), ..Page::default() };
                self.pages.insert(books.add(&name.to_string(), &page)?);
            }
        }
        self.title = Some(title);
        Ok(())
    }
}

/// A set of offsets as it is kept.
pub(crate) fn text_of(set: &OffsetSet) -> String {
    BASE64.encode(set.to_bytes())
}

/// A set of offsets as it was kept, if it is one.
pub(crate) fn set_of(text: &str) -> Option<OffsetSet> {
    BASE64.decode(text).ok().and_then(|bytes| OffsetSet::from_bytes(&bytes).ok())
}

fn damaged(place: &str) -> ServiceError {
    ServiceError::Internal(format!(
        "what cold tables cover is damaged in the folder that replicas share, at {place}; move that page aside, and what \
         it says is learnt again as far as the cold table still has it"
    ))
}

/// The covered offsets of a book.
pub(crate) fn offsets(store: &Store, book: &str) -> Result<Offsets, ServiceError> {
    let prefix = format!("{book}/");
    let mut offsets = Offsets::new();
    for (key, text) in store.scan::<String>(Kind::Coverage, &prefix)? {
        let partition = key.strip_prefix(&prefix).and_then(|p| p.parse().ok());
        match (partition, set_of(&text)) {
            (Some(partition), Some(set)) => {
                offsets.insert(KafkaPartition(partition), set);
            }
            _ => {
                return Err(ServiceError::Internal(format!(
                    "what cold tables cover is damaged in the local store, at {key}; move \
                     isk.redb below data_dir aside, and it is learnt again"
                )));
            }
        }
    }
    Ok(offsets)
}
