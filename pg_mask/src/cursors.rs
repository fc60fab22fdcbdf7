//! The session's cursors, while code runs that somebody else may have written.
//!
//! PL/pgSQL finds each cursor of a session by its name, whatever role opened it. It can read on in it, close it, and open
//! another one under its name, also in a security-restricted operation. So what a flush calls could take rows that the
//! session was about to read, or have the session run a query of its own. And what it opens itself would go on, after the
//! flush, with the rights of the inbox's owner.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::error::Error;
use crate::plan::{Bound, Plan};

thread_local! {
    /// Never dropped: at the end of the process Postgres has no more plans to free.
    static NAMES: Cell<Option<&'static Plan>> = const { Cell::new(None) };
}

/// The cursors that there were. Nobody can read or close them until this is dropped.
pub(crate) struct Shut(Vec<(pg_sys::Portal, pg_sys::PortalStatus::Type)>);

impl Shut {
    /// Shuts all cursors of the session.
    pub(crate) fn all() -> Result<Self, Error> {
        let mut shut = Self(Vec::new());
        for portal in portals()? {
            #[expect(unsafe_code, reason = "writes to a struct of Postgres's")]
            // SAFETY: the portal is there. Postgres neither runs nor drops one that it takes for running.
            unsafe {
                shut.0.push((portal, (*portal).status));
                (*portal).status = pg_sys::PortalStatus::PORTAL_ACTIVE;
            }
        }
        Ok(shut)
    }

    /// Closes the cursors that were opened since.
    pub(crate) fn close_others(&self) -> Result<(), Error> {
        for portal in portals()? {
            if !self.0.iter().any(|(shut, _)| *shut == portal) {
                #[expect(unsafe_code, reason = "calls Postgres")]
                // SAFETY: the portal is there, since closing one closes no other.
                unsafe {
                    pg_sys::SPI_cursor_close(portal);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        for (portal, status) in &self.0 {
            #[expect(unsafe_code, reason = "writes to a struct of Postgres's")]
            // SAFETY: it is still there. An error comes here before the transaction ends, and with it the portal.
            unsafe {
                (**portal).status = *status;
            }
        }
    }
}

/// Returns the portals that have a name by which SQL finds them.
fn portals() -> Result<Vec<pg_sys::Portal>, Error> {
    let names = if let Some(names) = NAMES.get() {
        names
    } else {
        let sql = "SELECT name FROM pg_catalog.pg_cursor()";
        let names: &Plan = Box::leak(Box::new(Plan::prepare(&Bound::default(), sql, &[])?));
        NAMES.set(Some(names));
        names
    };
    let mut portals = Vec::new();
    names.run(&[], true, |row| {
        let Some(name) = row.text(1) else { return Ok(()) };
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: a C string.
        let portal = unsafe { pg_sys::GetPortalByName(name.as_ptr()) };
        if !portal.is_null() {
            portals.push(portal);
        }
        Ok(())
    })?;
    Ok(portals)
}
