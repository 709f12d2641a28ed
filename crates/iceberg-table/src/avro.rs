//! The Avro that manifests need: data encoding and the object container file (Avro 1.11
//! specification). Written by hand so that the bytes hang on nothing but their input: no random sync
//! marker, and no library between the schema's text (with Iceberg's field ids) and the header.

use crate::digest::sha256;

/// Appends data in Avro's binary encoding.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An `int` or a `long`.
    pub(crate) fn long(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.bytes.push(u8::from(value));
    }

    /// `bytes` or a `string`.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        // A slice is never longer than isize::MAX.
        self.long(value.len() as i64);
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// The branch of a union `["null", T]`; the value follows unless it is null.
    pub(crate) fn present(&mut self, present: bool) {
        self.long(i64::from(present));
    }

    /// The null of a union `["null", T]`.
    pub(crate) fn null(&mut self) {
        self.present(false);
    }

    /// An array: `each` encodes one item.
    pub(crate) fn array<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        if items.len() > 0 {
            self.long(items.len() as i64);
            items.for_each(|item| each(self, item));
        }
        self.long(0);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// An object container file without compression, holding `count` objects encoded in `data`.
pub(crate) fn container(
    schema: &str,
    metadata: &[(&str, &str)],
    count: usize,
    data: Encoder,
) -> Vec<u8> {
    let data = data.bytes;
    let mut out = Encoder { bytes: Vec::with_capacity(data.len() + schema.len() + 4096) };
    out.raw(b"Obj\x01");
    let header = [("avro.schema", schema), ("avro.codec", "null")];
    let entries: Vec<_> = header.iter().chain(metadata).collect();
    out.array(entries.into_iter(), |out, (key, value)| {
        out.string(key);
        out.string(value);
    });
    // The marker has to be fixed and unlikely among the data, no more: readers take blocks by length.
    let digest = sha256(&out.bytes);
    let marker = &digest[..16];
    out.raw(marker);
    if count > 0 {
        out.long(count as i64);
        out.bytes(&data);
        out.raw(marker);
    }
    out.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: i64) -> Vec<u8> {
        let mut out = Encoder::default();
        out.long(value);
        out.bytes
    }

    #[test]
    fn longs_are_zigzag_varints() {
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(-1), [1]);
        assert_eq!(encoded(1), [2]);
        assert_eq!(encoded(-64), [0x7f]);
        assert_eq!(encoded(64), [0x80, 0x01]);
        assert_eq!(encoded(i64::MAX), [0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert_eq!(encoded(i64::MIN), [0xff, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }

    #[test]
    fn an_empty_array_is_one_zero() {
        let mut out = Encoder::default();
        out.array(std::iter::empty::<i64>(), Encoder::long);
        assert_eq!(out.bytes, [0]);
    }
}
