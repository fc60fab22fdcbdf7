//! Random values.

use pgrx::{Uuid, direct_function_call, pg_sys};

/// A random UUID, and its text.
pub(crate) struct RandomId(pub(crate) [u8; 16], String);

impl RandomId {
    pub(crate) fn as_text(&self) -> &str {
        &self.1
    }
}

/// Returns a random UUID, with its text.
pub(crate) fn random_id() -> RandomId {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the function takes no arguments and returns a UUID.
    let id = unsafe { direct_function_call::<Uuid>(pg_sys::gen_random_uuid, &[]) };
    let id = id.unwrap_or(Uuid::from_bytes([0; 16]));
    RandomId(*id, id.to_string())
}
