//! Requests of clients, as far as others make some too: signing them.

pub mod sign;
