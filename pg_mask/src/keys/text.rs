//! The text of a ring, in memory that is wiped.

use std::io;

use zeroize::Zeroizing;

/// Maximum size of a ring's text, in bytes. It is read into a buffer of this size, because a buffer that grows would leave
/// copies of parts of it behind.
const MOST_BYTES: usize = 64 << 10;

/// Reads all that `read` gives. Returns none if that is more than a ring may have.
pub(super) fn whole(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(vec![0; MOST_BYTES]);
    let mut length = 0;
    while length < MOST_BYTES {
        match read(&mut bytes[length..])? {
            0 => {
                bytes.truncate(length);
                return Ok(Some(bytes));
            }
            more => length += more,
        }
    }
    Ok(None)
}
