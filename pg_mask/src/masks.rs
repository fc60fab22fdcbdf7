//! Masks and unmasks values, under the session's keys.

use masking::masker::{self, Masker};
use masking::scheme::Scheme;

use crate::error::Error;
use crate::pg::text::Text;
use crate::{audit, keys};

/// Returns the mask of a value under a scheme. A token made under a key of the ring is returned unchanged.
pub(crate) fn mask(value: &str, scheme: Scheme) -> Result<Text, Error> {
    let value = value.as_bytes();
    let ring = if scheme.needs_key() {
        Some(keys::ring()?)
    } else if masker::is_keyed(value) {
        keys::ring_if_any()?
    } else {
        None
    };
    let masker = Masker::new(scheme, ring.as_deref().map(|ring| &**ring));
    let masker = masker.ok_or(Error::OtherPrimary { scheme })?;
    Text::write(masker.masked_len(value), |out| Ok(masker.mask(value, out)?))
}

/// Returns the value that a mask was made from. Counts it first, and refuses it where the settings do.
pub(crate) fn unmask(mask: &[u8]) -> Result<Text, Error> {
    audit::count()?;
    let ring = if masker::is_keyed(mask) { Some(keys::ring()?) } else { None };
    let ring = ring.as_deref().map(|ring| &**ring);
    Ok(Text::write(masker::unmasked_len(mask), |out| masker::unmask(mask, ring, out))?)
}
