//! Records per second, next to raw arrow-avro.
fn main() {}
