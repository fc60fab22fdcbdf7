//! Forms in which a secret can leak.

use std::collections::BTreeSet;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Byte strings to search for. Each one reveals a secret, and comes with the name of its form.
#[derive(Clone, Default)]
pub(crate) struct Traces(Vec<(&'static str, Vec<u8>)>);

impl Traces {
    /// Returns the trace of a text as it is.
    pub(crate) fn of_text(text: &str) -> Self {
        Self::default().add("text", text)
    }

    /// Returns the traces of a text in base64, at any offset within the encoded data.
    pub(crate) fn of_text_in_base64(text: &str) -> Self {
        Self::default().add_all("text in base64", in_base64(text.as_bytes()))
    }

    /// Returns the traces of each quarter of a key. A leaked quarter is as bad as the whole key, and wherever the key is,
    /// its quarters are.
    pub(crate) fn of_key(key: &[u8]) -> Self {
        key.chunks_exact(16).fold(Self::default(), |traces, quarter| {
            traces
                .add("key", quarter)
                .add("key in hex", hex(quarter))
                .add("key in hex", hex(quarter).to_uppercase())
                .add_all("key in base64", in_base64(quarter))
        })
    }

    /// Returns the traces of the AES-256 round keys of a key's two halves. Two consecutive round keys are as good as the
    /// half itself.
    pub(crate) fn of_round_keys(key: &[u8]) -> Self {
        // The first two round keys are the key itself.
        key.chunks(32)
            .fold(Self::default(), |traces, half| traces.add_all("round key", &round_keys(half)[2..]))
    }

    /// Adds other traces.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    fn add(self, form: &'static str, bytes: impl AsRef<[u8]>) -> Self {
        self.add_all(form, [bytes])
    }

    fn add_all(mut self, form: &'static str, all: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        self.0.extend(all.into_iter().map(|bytes| (form, bytes.as_ref().to_vec())));
        self
    }

    /// Returns the forms that occur in `bytes`.
    ///
    /// There are dozens of traces, so one pass looks for all of them: it compares traces only at two bytes that start one.
    /// Tests aren't optimized and each iterator step would be a call, so the loop does without iterators.
    pub(crate) fn forms_in(&self, bytes: &[u8]) -> BTreeSet<&'static str> {
        let mut starts = vec![false; 1 << 16];
        let starts = starts.as_mut_slice();
        for (_, trace) in &self.0 {
            starts[(trace[0] as usize) << 8 | trace[1] as usize] = true;
        }
        let mut forms = BTreeSet::new();
        let mut n = 1;
        while n < bytes.len() {
            if starts[(bytes[n - 1] as usize) << 8 | bytes[n] as usize] {
                let rest = &bytes[n - 1..];
                let here = self.0.iter().filter(|(_, trace)| rest.starts_with(trace));
                forms.extend(here.map(|(form, _)| *form));
            }
            n += 1;
        }
        forms
    }

    /// Returns the length of the longest trace, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.0.iter().map(|(_, trace)| trace.len()).max().unwrap()
    }
}

/// Encodes bytes in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from_digit(digit.into(), 16).unwrap()).collect()
}

/// Encodes bytes in standard base64, without padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    encoded(bytes, STANDARD)
}

/// Decodes standard base64.
pub(crate) fn from_base64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = STANDARD.iter().position(|&known| known == digit).expect("base64");
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

fn encoded(bytes: &[u8], digits: &[u8; 64]) -> String {
    let bit = |n: usize| bytes.get(n / 8).is_some_and(|byte| byte >> (7 - n % 8) & 1 == 1);
    let digit = |n: usize| digits[(6 * n..6 * n + 6).fold(0, |value, n| value << 1 | usize::from(bit(n)))];
    (0..(bytes.len() * 8).div_ceil(6)).map(|n| char::from(digit(n))).collect()
}

/// Returns the digits that are in every base64 encoding of data that contains `bytes`, for each alignment and alphabet.
fn in_base64(bytes: &[u8]) -> BTreeSet<String> {
    let part = |(before, digits): (usize, &[u8; 64])| {
        let text = encoded(&[&[0].repeat(before), bytes].concat(), digits);
        // The first and the last digits also encode bits of the neighbours.
        text[(before * 8).div_ceil(6)..(before + bytes.len()) * 8 / 6].to_owned()
    };
    (0..3).flat_map(|before| [(before, STANDARD), (before, URL_SAFE)]).map(part).collect()
}

/// Expands an AES-256 key (FIPS 197, section 5.2).
fn round_keys(key: &[u8]) -> Vec<Vec<u8>> {
    let (s_box, mut constant) = (s_box(), 1);
    let mut words: Vec<Vec<u8>> = key.chunks(4).map(<[u8]>::to_vec).collect();
    for n in 8..60 {
        let mut word = words[n - 1].clone();
        if n % 8 == 0 {
            word.rotate_left(1);
        }
        if n % 4 == 0 {
            word = word.iter().map(|&byte| s_box[usize::from(byte)]).collect();
        }
        if n % 8 == 0 {
            word[0] ^= constant;
            constant <<= 1;
        }
        words.push(word.iter().zip(&words[n - 8]).map(|(a, b)| a ^ b).collect());
    }
    words.chunks(4).map(<[Vec<u8>]>::concat).collect()
}

/// Computes the S-box of AES: the inverse in its field, then an affine map.
fn s_box() -> [u8; 256] {
    let mut s_box = [0x63; 256];
    // Powers of 3, which are all elements but 0, and powers of the inverse of 3.
    let (mut power, mut inverse) = (1_u8, 1_u8);
    for _ in 0..255 {
        power ^= power << 1 ^ if power & 0x80 == 0 { 0 } else { 0x1b };
        inverse ^= inverse << 1;
        inverse ^= inverse << 2;
        inverse ^= inverse << 4;
        inverse ^= if inverse & 0x80 == 0 { 0 } else { 0x09 };
        s_box[usize::from(power)] = (0..5).fold(0x63, |sum, n| sum ^ inverse.rotate_left(n));
    }
    s_box
}

#[test]
fn a_secret_is_found_in_each_of_its_forms() {
    let key: Vec<u8> = (0..64).map(|n: u8| n.wrapping_mul(151) ^ 0xa5).collect();
    assert_eq!(from_base64(&base64(&key)), key);
    assert_eq!((base64(b"~~~?"), encoded(b"~~~?", URL_SAFE)), ("fn5+Pw".to_owned(), "fn5-Pw".to_owned()));
    let traces = Traces::of_text("secret").and(Traces::of_text_in_base64("secret")).and(Traces::of_key(&key));
    for before in 0..4 {
        let mut text = [&[b'x'].repeat(before), b"secret".as_slice(), b"xyz"].concat();
        assert_eq!(traces.forms_in(&text), BTreeSet::from(["text"]));
        text = base64(&text).into();
        assert_eq!(traces.forms_in(&text), BTreeSet::from(["text in base64"]));
    }
    for quarter in key.chunks(16) {
        assert_eq!(traces.forms_in(quarter), BTreeSet::from(["key"]));
        assert_eq!(traces.forms_in(hex(quarter).as_bytes()), BTreeSet::from(["key in hex"]));
        assert_eq!(traces.forms_in(hex(quarter).to_uppercase().as_bytes()), BTreeSet::from(["key in hex"]));
    }
    for digits in [STANDARD, URL_SAFE] {
        assert_eq!(traces.forms_in(encoded(&key, digits).as_bytes()), BTreeSet::from(["key in base64"]));
    }
    assert!(traces.forms_in(b"secre").is_empty());
}

#[test]
fn round_keys_are_those_of_the_standard() {
    // FIPS 197, appendix A.3.
    let key: Vec<u8> = [
        0x603d_eb10_u32,
        0x15ca_71be,
        0x2b73_aef0,
        0x857d_7781,
        0x1f35_2c07,
        0x3b61_08d7,
        0x2d98_10a3,
        0x0914_dff4,
    ]
    .into_iter()
    .flat_map(u32::to_be_bytes)
    .collect();
    let keys = round_keys(&key);
    assert_eq!(keys[..2].concat(), key);
    assert_eq!(hex(&keys[2]), "9ba354118e6925afa51a8b5f2067fcde");
    assert_eq!(hex(&keys[14]), "fe4890d1e6188d0b046df344706c631e");
}
