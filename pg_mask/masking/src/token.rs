//! Tokens: the masks by schemes with keys. A token names its scheme and key: `$siv$k1$…`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::memory::{Bytes, OutOfMemory, zeroed};
use crate::scheme::{Kind, MAX_ID_BYTES, Scheme};

/// The parts of a token that can be read without its key.
pub struct Token<'t> {
    /// The scheme that it claims to be made by.
    pub(crate) scheme: Scheme,
    /// The id of the key that it claims to be made under.
    pub key: &'t str,
    /// The value's tag and ciphertext.
    pub(crate) sealed: Bytes,
}

impl<'t> Token<'t> {
    /// Reads a text that has the form of a token. Returns none for other texts.
    pub fn parse(text: &'t [u8]) -> Result<Option<Self>, OutOfMemory> {
        let Some(scheme) = Scheme::of_mask(text) else { return Ok(None) };
        let Kind::Cipher { tag_bytes, .. } = scheme.kind() else { return Ok(None) };
        let Some((key, body)) = parts(text, scheme) else { return Ok(None) };
        let mut sealed = zeroed(base64::decoded_len_estimate(body.len()))?;
        let length = URL_SAFE_NO_PAD.decode_slice(body, &mut sealed).unwrap_or_default();
        sealed.truncate(length);
        Ok((length >= tag_bytes).then_some(Self { scheme, key, sealed }))
    }
}

/// Returns the id of the token's key, and the text after it.
fn parts(text: &[u8], scheme: Scheme) -> Option<(&str, &[u8])> {
    let rest = text.strip_prefix(scheme.prefix().as_bytes())?;
    let end = rest.iter().position(|&byte| byte == b'$')?;
    let key = str::from_utf8(&rest[..end]).ok().filter(|id| is_id(id))?;
    Some((key, &rest[end + 1..]))
}

/// Returns the length of the token that [`write`] makes, in bytes.
pub(crate) fn len(scheme: Scheme, key: &str, sealed: usize) -> usize {
    scheme.prefix().len() + key.len() + 1 + (sealed * 4).div_ceil(3)
}

/// Writes the token of a sealed value into `out`, which must have [`len`] bytes. Returns the token's length.
pub(crate) fn write(scheme: Scheme, key: &str, sealed: &[u8], out: &mut [u8]) -> usize {
    let prefix = scheme.prefix().as_bytes();
    let start = prefix.len() + key.len() + 1;
    out[..prefix.len()].copy_from_slice(prefix);
    out[prefix.len()..start - 1].copy_from_slice(key.as_bytes());
    out[start - 1] = b'$';
    // The room has exactly this size.
    start + URL_SAFE_NO_PAD.encode_slice(sealed, &mut out[start..]).unwrap_or_default()
}

/// Whether a text can be the id of a key.
pub(crate) fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
