//! The key ring of this server: where and when it is read, and how long it is kept.

mod command;
mod no_dump;
mod source;
mod text;
mod wipe;

use std::rc::Rc;

use masking::keyring::KeyRing;
use pgrx::pg_sys;

use crate::error::Error;
use crate::error::no_ring::{NoRing, Origin, may_see_settings};
use crate::pg::log::log_alone;
use crate::pg::process::configured_at;
use crate::pg::state::{SessionCell, SessionState, session_cell};
pub(crate) use no_dump::NoDump;
use source::Source;
use wipe::{wipe, wipe_after_message};

/// A ring, and the configuration's load time for which it was read.
struct Loaded {
    ring: Rc<NoDump<KeyRing>>,
    configured: pg_sys::TimestampTz,
}

thread_local! {
    /// This backend's ring. With `shared_preload_libraries` the postmaster reads it, and backends inherit it.
    static LOADED: SessionCell<Option<Loaded>> = const { session_cell(None) };
}

/// Returns the ring. It is read at first use, and again after the configuration was reloaded.
pub(crate) fn ring() -> Result<Rc<NoDump<KeyRing>>, Error> {
    let configured = configured_at();
    let known = LOADED.with_borrow(|loaded| {
        loaded.as_ref().filter(|loaded| loaded.configured == configured).map(|loaded| Rc::clone(&loaded.ring))
    });
    if let Some(ring) = known {
        wipe_after_message();
        return Ok(ring);
    }
    // A ring read for an older configuration must no longer be used, even if there is nothing newer.
    drop(LOADED.take());
    let ring = load().map_err(|why| {
        // Not everyone may know where the file is. The log tells the administrator who must repair it.
        if !may_see_settings() && !matches!(why, NoRing::NotConfigured) {
            log_alone(&format!("pg_mask: {}", why.report(true).message()));
        }
        Error::NoRing(why)
    })?;
    wipe_after_message();
    let ring = Rc::new(ring);
    LOADED.set(Some(Loaded { ring: Rc::clone(&ring), configured }));
    Ok(ring)
}

/// Returns the ring, or none if none is configured.
pub(crate) fn ring_if_any() -> Result<Option<Rc<NoDump<KeyRing>>>, Error> {
    match ring() {
        Ok(ring) => Ok(Some(ring)),
        Err(Error::NoRing(NoRing::NotConfigured)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the ring in the postmaster, for all backends. If that fails, the server starts, and each use of a key fails.
pub(crate) fn preload() {
    match load() {
        Ok(ring) => LOADED.set(Some(Loaded { ring: Rc::new(ring), configured: configured_at() })),
        Err(NoRing::NotConfigured) => {}
        Err(why) => pgrx::warning!(
            "pg_mask: {}; until that is mended, whatever needs a key fails",
            why.report(true).message()
        ),
    }
}

fn load() -> Result<NoDump<KeyRing>, NoRing> {
    // Without a source, as with base64 alone, there is nothing to wipe either.
    let source = Source::configured()?;
    let loaded = read_ring(source);
    wipe();
    loaded
}

/// A separate function, so that everything it leaves on the stack is below the frame of its caller, which overwrites it.
#[inline(never)]
fn read_ring(source: Source) -> Result<NoDump<KeyRing>, NoRing> {
    let json = source.read()?;
    KeyRing::parse(&json).map(NoDump::new).map_err(|wrong| {
        let origin = match source {
            Source::File(path) => Origin::File(path),
            Source::Command(_) => Origin::Command,
        };
        NoRing::RingError(origin, wrong)
    })
}
