//! What comes in over HTTP: heads, requests to both ports, signatures.

pub(crate) mod asked;
pub(crate) mod catalog;
pub(crate) mod connection;
pub(crate) mod filters;
pub(crate) mod gateway;
pub(crate) mod heads;
pub(crate) mod objects;
pub(crate) mod signatures;
pub(crate) mod xml;
