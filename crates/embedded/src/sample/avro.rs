//! Avro binary encoding, as little of it as the sample data needs (Avro 1.12, "Binary Encoding").

use bytes::{BufMut, Bytes, BytesMut};
use isk_model::RegistrySchemaId;

/// One value in the Confluent wire format: a zero byte, the schema id, the Avro body.
#[derive(Debug)]
pub(crate) struct Writer(BytesMut);

impl Writer {
    pub(crate) fn new(schema: RegistrySchemaId) -> Self {
        let mut out = BytesMut::with_capacity(96);
        out.put_u8(0);
        out.put_i32(schema.0);
        Self(out)
    }

    /// An int, a long, an enum's index, a date or a timestamp.
    pub(crate) fn long(&mut self, value: i64) -> &mut Self {
        let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while zigzag >= 0x80 {
            self.0.put_u8((zigzag & 0x7f) as u8 | 0x80);
            zigzag >>= 7;
        }
        self.0.put_u8(zigzag as u8);
        self
    }

    pub(crate) fn boolean(&mut self, value: bool) -> &mut Self {
        self.0.put_u8(value.into());
        self
    }

    pub(crate) fn string(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.long(value.len() as i64);
        self.0.put_slice(value);
        self
    }

    /// A decimal on bytes, given as its unscaled value: the shortest two's complement, big-endian.
    pub(crate) fn decimal(&mut self, unscaled: i64) -> &mut Self {
        let bytes = unscaled.to_be_bytes();
        let sign = if unscaled < 0 { 0xff } else { 0 };
        let spare = |pair: &[u8]| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0;
        let skip = bytes.windows(2).take_while(|pair| spare(pair)).count();
        self.bytes(&bytes[skip..])
    }

    /// A string in a union whose branches are null and string.
    pub(crate) fn optional_string(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            None => self.long(0),
            Some(text) => self.long(1).string(text),
        }
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}
