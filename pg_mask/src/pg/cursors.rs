//! Protects the session's cursors while code runs that somebody else may have written.
//!
//! PL/pgSQL finds every cursor of a session by its name, whichever role opened it. It can fetch from it, close it, and open
//! another one under its name, even in a security-restricted operation. So code called by a flush could take rows that the
//! session was about to read. It could also make the session run a query of the code's choice. And a cursor that this code
//! opens would continue after the flush, with the privileges of the inbox's owner.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::plan::{Bound, Plan};

thread_local! {
    /// Never dropped: at the end of the process, Postgres has no plans left to free.
    static NAMES: Cell<Option<&'static Plan>> = const { Cell::new(None) };
}

/// The cursors that there were. Nobody can read, close or list them until this is dropped.
pub(crate) struct Shut(Vec<(pg_sys::Portal, pg_sys::PortalStatus::Type)>);

impl Shut {
    /// Shuts all cursors of the session.
    pub(crate) fn all() -> Result<Self, Error> {
        let mut shut = Self(Vec::new());
        for portal in portals()? {
            #[expect(unsafe_code, reason = "writes to a struct of Postgres's")]
            // SAFETY: the portal exists. Postgres neither runs nor drops a portal that it considers running.
            unsafe {
                shut.0.push((portal, (*portal).status));
                (*portal).status = pg_sys::PortalStatus::PORTAL_ACTIVE;
                // The view pg_cursors shows the statement of a visible one, which can hold raw events.
                (*portal).visible = false;
            }
        }
        Ok(shut)
    }

    /// Closes the cursors that were opened since `all`.
    pub(crate) fn close_others(&self) -> Result<(), Error> {
        for portal in portals()? {
            if !self.0.iter().any(|(shut, _)| *shut == portal) {
                #[expect(unsafe_code, reason = "calls Postgres")]
                // SAFETY: the portal exists, because closing one closes no other.
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
            // SAFETY: the portal still exists. An error drops this before the transaction ends, and with it the portal.
            unsafe {
                (**portal).status = *status;
                (**portal).visible = true;
            }
        }
    }
}

/// Returns the portals with a name that SQL can find.
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
