//! Choices that follow from a seed.

/// A generator of numbers (SplitMix64): the same seed gives the same requests.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below another, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all.get(self.below(all.len())).copied().unwrap_or("")
    }

    /// A number as a client may send it: small, at a power of two, beyond all bounds, or none.
    pub(crate) fn number(&mut self) -> String {
        match self.below(6) {
            0 => self.below(100).to_string(),
            1 => (1u128 << self.below(70)).to_string(),
            2 => ((1u128 << self.below(70)) - 1).to_string(),
            3 => format!("-{}", self.below(100)),
            4 => self.pick(&["", "+1", "0x10", "1e3", "01", " 1", "١", "NaN", "1.5"]).to_owned(),
            _ => "9".repeat(1 + self.below(40)),
        }
    }

    /// Any bytes, mostly printable.
    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let printable = !self.once_in(3);
        let count = self.below(most + 1);
        let byte = |n: u64| if printable { 0x20 + (n % 95) as u8 } else { n as u8 };
        (0..count).map(|_| byte(self.next())).collect()
    }

    /// Changes some bytes of a text: flips, cuts, doubles, and puts in what means something.
    pub(crate) fn mutate(&mut self, text: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(text.len() + 1);
            match self.below(6) {
                0 => {
                    let bit = 1 << self.below(8);
                    if let Some(byte) = text.get_mut(at) {
                        *byte ^= bit;
                    }
                }
                1 => text.truncate(at),
                2 => {
                    let part = text.get(at..).unwrap_or_default().to_vec();
                    text.extend(part.into_iter().take(200));
                }
                3 => drop(text.drain(at..text.len().min(at + 1 + self.below(8)))),
                _ => {
                    let put = self.pick(&[
                        "/",
                        "..",
                        "%2e%2e",
                        "%2F",
                        "//",
                        "\0",
                        "%00",
                        "?",
                        "#",
                        "&",
                        "=",
                        "%",
                        "%zz",
                        "\u{1f600}",
                        "%1F",
                        "$",
                        "~",
                        "$raw",
                        "~json",
                        "$unmoved",
                        "\"",
                        "'",
                        "<",
                        ">",
                        "&amp;",
                        "]]>",
                        "{",
                        "}",
                        "[",
                        "\\",
                        ",",
                        "-",
                        ":",
                        ";",
                        "\r",
                        "\n",
                        "\r\n",
                        " ",
                        "\t",
                        "18446744073709551616",
                        "-1",
                        "null",
                        "é",
                        "%c3%28",
                        "+",
                    ]);
                    text.splice(at..at, put.bytes());
                }
            }
        }
    }
}
