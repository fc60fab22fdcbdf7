//! Makes running out of memory an error. Rust itself would abort, which restarts every session of the server.
//!
//! Buffers that an event fills reserve their bytes with [`reserve`] or [`zeroed`]. Before code that allocates by itself,
//! [`ensure`] checks that the bound of its allocation is available. The bound includes a buffer that doubles as it grows,
//! together with the old buffer.

use std::collections::TryReserveError;
use std::fmt;
use std::hint::black_box;

use smallvec::{CollectionAllocErr, SmallVec};

/// The memory that an event needs is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl From<TryReserveError> for OutOfMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

impl From<CollectionAllocErr> for OutOfMemory {
    fn from(_: CollectionAllocErr) -> Self {
        Self
    }
}

/// Bytes, on the stack for a value of a usual length, on the heap for a longer one.
pub(crate) type Bytes = SmallVec<[u8; 256]>;

/// Checks that `bytes` can be allocated, for code that aborts if they cannot.
///
/// Small sizes pass unchecked: the check would take longer than the work.
#[inline]
pub fn ensure(bytes: usize) -> Result<(), OutOfMemory> {
    const SMALL: usize = 16 << 10;
    if bytes <= SMALL { Ok(()) } else { allocate(bytes) }
}

#[cold]
#[inline(never)]
fn allocate(bytes: usize) -> Result<(), OutOfMemory> {
    /// Bytes for the small allocations made besides the large ones, such as an error.
    const BESIDE: usize = 64 << 10;
    let mut room = Vec::<u8>::new();
    room.try_reserve_exact(bytes.saturating_add(BESIDE))?;
    // Keeps the compiler from removing an allocation that nothing uses.
    black_box(&mut room);
    Ok(())
}

/// Checks the memory that `serde_json` needs to read `json`: a copy of an escaped text, or a byte for each open bracket.
#[inline]
pub(crate) fn ensure_parsing(json: &str) -> Result<(), OutOfMemory> {
    // The buffer has up to twice the size of the text. To this adds half of it while it grows, or finally the text in it.
    ensure(json.len().saturating_mul(3))
}

/// Makes room for `more` elements. Reserves only these if there is no memory to grow ahead.
#[inline]
pub(crate) fn reserve<T>(buffer: &mut Vec<T>, more: usize) -> Result<(), OutOfMemory> {
    if buffer.capacity() - buffer.len() >= more { Ok(()) } else { grow(buffer, more) }
}

#[cold]
#[inline(never)]
fn grow<T>(buffer: &mut Vec<T>, more: usize) -> Result<(), OutOfMemory> {
    if buffer.try_reserve(more).is_err() {
        buffer.try_reserve_exact(more)?;
    }
    Ok(())
}

/// Returns zeros, on the stack if there are few.
#[inline]
pub(crate) fn zeroed(length: usize) -> Result<Bytes, OutOfMemory> {
    if length <= Bytes::new().inline_size() {
        return Ok(Bytes::from_elem(0, length));
    }
    zeroed_on_heap(length).map(Bytes::from_vec)
}

/// Returns zeros in a buffer of exactly their size.
pub fn zeroed_on_heap(length: usize) -> Result<Vec<u8>, OutOfMemory> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length)?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// Copies a text.
pub fn copied(text: &str) -> Result<String, OutOfMemory> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len())?;
    copy.push_str(text);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More bytes than any machine has.
    const TOO_MUCH: usize = isize::MAX.unsigned_abs() - (1 << 20);

    #[test]
    fn an_allocation_that_fails_is_an_error() {
        assert_eq!(ensure(TOO_MUCH), Err(OutOfMemory));
        assert_eq!(ensure(usize::MAX), Err(OutOfMemory));
        assert_eq!(zeroed(TOO_MUCH).err(), Some(OutOfMemory));
        let mut buffer = vec![1_u8];
        assert_eq!(reserve(&mut buffer, TOO_MUCH), Err(OutOfMemory));
        assert_eq!(buffer, [1]);
    }

    #[test]
    fn an_allocation_that_succeeds_returns_memory() {
        for length in [0, 1, 256, 257, 1 << 20] {
            assert_eq!(ensure(length), Ok(()));
            assert_eq!(zeroed(length).map(|bytes| bytes.to_vec()), Ok(vec![0; length]));
            let mut buffer = vec![1_u8];
            assert_eq!(reserve(&mut buffer, length), Ok(()));
            assert!(buffer.capacity() > length);
        }
        assert_eq!(copied("text").as_deref(), Ok("text"));
    }
}
