//! Kafka's own protocol, as far as fetching needs it: record batches straight from the socket, read in place.
//!
//! librdkafka makes an object of every record; here a record is a few slices of its batch until it is copied
//! into its block. Whatever a cluster is configured with that is not understood here is read by librdkafka
//! ([`settings`] decides), and so are batches of the formats 0 and 1.

mod aborted;
mod answer;
mod batch;
mod connection;
mod cursor;
mod hub;
mod login;
mod pace;
mod question;
mod reader;
mod records;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod unpack;

pub(crate) use hub::Hub;
pub(crate) use pace::Ended;
pub(crate) use reader::WireReader;
pub(crate) use tls::certificates;
