//! Safe access to what Postgres passes to the trigger function.
//!
//! Uses Postgres's own structs. pgrx's trigger support copies the row and looks columns up by name for each row, which takes
//! longer than masking it.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Raise};
use crate::inbox::batch::{self, BatchContext};
use crate::inbox::definition::Inbox;
use crate::inbox::messages::InboxRow;
use crate::pg::compat::letter;
use crate::pg::names::name_of;
use crate::pg::reserve::{ReserveGuard, watcher};
use crate::pg::text::text;

/// Tells Postgres how `inbox_trigger` is called.
#[expect(unsafe_code, reason = "Postgres calls it by its symbol")]
#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn pg_finfo_inbox_trigger() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// Implements an inbox's three triggers.
///
/// # Safety
/// Only Postgres may call it.
#[expect(unsafe_code, reason = "Postgres calls it by its symbol")]
#[unsafe(no_mangle)]
#[pg_guard]
pub(crate) unsafe extern "C-unwind" fn inbox_trigger(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // During a text COPY, Postgres adds the raw line to the context of every error, and so to the server's log. So from here
    // on, only Postgres's own functions below us add context. An error is raised on our way out. After it, this lasts until
    // the code that catches the error restores the context that it saved itself.
    // SAFETY: the variable is this backend's own.
    unsafe {
        let context = pg_sys::error_context_stack;
        pg_sys::error_context_stack = watcher();
        // After that, since it can raise an error.
        let _room = ReserveGuard::hold();
        let result = Call::new(fcinfo).and_then(|call| call.run()).or_raise();
        pg_sys::error_context_stack = context;
        result
    }
}

/// One call of an inbox's trigger.
struct Call<'a> {
    data: &'a pg_sys::TriggerData,
    relation: &'a pg_sys::RelationData,
    trigger: &'a pg_sys::Trigger,
}

#[expect(unsafe_code, reason = "reads Postgres's structs")]
impl<'a> Call<'a> {
    /// # Safety
    /// `fcinfo` is the argument that Postgres called the trigger function with.
    unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self, Error> {
        // SAFETY: a function called as a trigger has a TriggerData as its context (CALLED_AS_TRIGGER in trigger.h). It
        // points to a relation and a trigger; all of these live through the call.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Error::NotAnInboxTrigger);
            }
            #[expect(clippy::cast_ptr_alignment, reason = "the node tag says what was allocated")]
            let data = &*context.cast::<pg_sys::TriggerData>();
            Ok(Self { data, relation: &*data.tg_relation, trigger: &*data.tg_trigger })
        }
    }

    fn run(&self) -> Result<pg_sys::Datum, Error> {
        const BEFORE_STATEMENT: u32 = pg_sys::TRIGGER_EVENT_INSERT | pg_sys::TRIGGER_EVENT_BEFORE;
        const INSTEAD_OF_ROW: u32 =
            pg_sys::TRIGGER_EVENT_INSERT | pg_sys::TRIGGER_EVENT_INSTEAD | pg_sys::TRIGGER_EVENT_ROW;
        const AFTER_STATEMENT: u32 = pg_sys::TRIGGER_EVENT_INSERT | pg_sys::TRIGGER_EVENT_AFTER;
        const WHICH: u32 =
            pg_sys::TRIGGER_EVENT_OPMASK | pg_sys::TRIGGER_EVENT_TIMINGMASK | pg_sys::TRIGGER_EVENT_ROW;
        let view = self.relation.rd_id;
        if letter(self.class().relkind) != pg_sys::RELKIND_VIEW {
            return Err(Error::NotAnInboxTrigger);
        }
        match self.data.tg_event & WHICH {
            BEFORE_STATEMENT => {
                check_columns(self.relation)?;
                batch::open(view);
            }
            INSTEAD_OF_ROW => {
                let ready = || {
                    let argument = argument_of(self.trigger);
                    let inbox = Inbox::ready(view, self.owner(), self.trigger.tgoid, argument)?;
                    BatchContext::new(inbox, self.owner(), self.trigger.tgfoid)
                };
                batch::append(view, self.owner(), ready, || self.message())?;
                return Ok(self.without_body());
            }
            AFTER_STATEMENT => drop(batch::close(view, self.owner())?),
            _ => return Err(Error::NotAnInboxTrigger),
        }
        Ok(pg_sys::Datum::null())
    }

    /// Returns the row without its body, so that RETURNING cannot keep the body in a temporary file.
    ///
    /// NULL would remove the row from the count that the client sees. The very tuple that Postgres passed would stay
    /// allocated until the statement ends (`ExecIRInsertTriggers` in trigger.c), so memory would grow with every row.
    fn without_body(&self) -> pg_sys::Datum {
        const BODY: i32 = 3;
        // SAFETY: the tuple matches this descriptor, in which `check_columns` has found the column. The pointers to locals
        // are only read.
        unsafe {
            let (tuple, description) = (self.data.tg_trigtuple, self.relation.rd_att);
            let (mut number, mut value, mut null) = (BODY, pg_sys::Datum::null(), true);
            let (number, value, null) = (&raw mut number, &raw mut value, &raw mut null);
            pg_sys::heap_modify_tuple_by_cols(tuple, description, 1, number, value, null).into()
        }
    }

    fn class(&self) -> &'a pg_sys::FormData_pg_class {
        // SAFETY: an open relation has its row of pg_class.
        unsafe { &*self.relation.rd_rel }
    }

    fn owner(&self) -> pg_sys::Oid {
        self.class().relowner
    }

    /// Returns the row that is being inserted.
    fn message(&self) -> Result<InboxRow<'a>, Error> {
        // SAFETY: a batch is open, so `check_columns` has found these types at these positions.
        unsafe {
            Ok(InboxRow {
                id: self.column(1).map(|datum| *datum.cast_mut_ptr::<[u8; 16]>()),
                sent_at: self.column(2).map(|datum| datum.value().cast_signed() as i64),
                body: self.column(3).map(|datum| text(datum)).transpose()?,
            })
        }
    }

    fn column(&self, number: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        // SAFETY: the tuple matches this descriptor.
        let datum =
            unsafe { pg_sys::heap_getattr(self.data.tg_trigtuple, number, self.relation.rd_att, &mut null) };
        (!null).then_some(datum)
    }
}

/// Fails if a view does not have the columns of an inbox: `message` reads them by position and type. A default would run with
/// the rights of the role that inserts, although the view's owner made it.
pub(crate) fn check_columns(view: &pg_sys::RelationData) -> Result<(), Error> {
    #[expect(unsafe_code, reason = "reads Postgres's structs")]
    // SAFETY: an open relation has a descriptor; a number past its end gives no type. There are no constraints, or they are
    // what is pointed to.
    let (types, has_defaults) = unsafe {
        let constraints = (*view.rd_att).constr;
        (
            [1, 2, 3, 4].map(|number| pg_sys::SPI_gettypeid(view.rd_att, number)),
            !constraints.is_null() && (*constraints).num_defval > 0,
        )
    };
    if !has_defaults
        && types == [pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::TEXTOID, pg_sys::InvalidOid]
    {
        Ok(())
    } else {
        Err(Error::InboxColumns { inbox: name_of(view.rd_id) })
    }
}

/// Returns the definition: the argument of an inbox's row trigger. Without an argument it returns an empty text, which is
/// refused as a definition.
pub(crate) fn argument_of(trigger: &pg_sys::Trigger) -> &str {
    if trigger.tgnargs != 1 {
        return "";
    }
    #[expect(unsafe_code, reason = "reads Postgres's structs")]
    // SAFETY: there is one argument, a C string in the database's encoding, which is UTF-8.
    unsafe {
        CStr::from_ptr(*trigger.tgargs).to_str().unwrap_or_default()
    }
}
