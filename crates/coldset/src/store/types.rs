//! What the store says of objects.

use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::ColdsetError;

/// The bytes of an object, as they come.
pub type ByteStream = BoxStream<'static, Result<Bytes, ColdsetError>>;

/// What a store says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdObject {
    /// The whole object's length in bytes.
    pub size: u64,
    /// The entity tag, quoted as the store sent it.
    pub etag: Option<String>,
    /// When it was written.
    pub last_modified: SystemTime,
    /// Its media type.
    pub content_type: Option<String>,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdListed {
    /// The key.
    pub key: String,
    /// The object's length in bytes.
    pub size: u64,
    /// The entity tag, quoted as the store sent it.
    pub etag: Option<String>,
    /// When it was written.
    pub last_modified: SystemTime,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColdListing {
    /// The objects, in the order of their keys.
    pub objects: Vec<ColdListed>,
    /// What keys have in common up to the delimiter, which is included.
    pub prefixes: Vec<String>,
    /// Where the next page begins, for [`ListAfter::Page`]; `None` at the end.
    pub next: Option<String>,
}

/// Where a listing begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListAfter<'a> {
    /// At the beginning.
    Start,
    /// Behind a key (S3's `start-after`).
    Key(&'a str),
    /// At [`ColdListing::next`] of the page before, which is the store's own token.
    Page(&'a str),
}
