//! An inbox looked up by its view, for functions that are called with one.

use masking::memory;
use pgrx::pg_sys;

use crate::error::Error;
use crate::inbox::trigger::{argument_of, check_columns};
use crate::pg::compat::letter;
use crate::pg::names::name_of;
use crate::pg::security::function;

/// An inbox as it is attached. It stays so until the transaction ends.
pub(crate) struct Attached {
    pub(crate) owner: pg_sys::Oid,
    /// The OID of its row trigger.
    pub(crate) trigger: pg_sys::Oid,
    /// The OID of the row trigger's function.
    pub(crate) function: pg_sys::Oid,
    /// Its definition, as it is in the trigger.
    pub(crate) argument: String,
}

impl Attached {
    /// Locks the view as an INSERT does, and reads what is attached to it. Its row trigger can run without the trigger that
    /// opens a batch and checks the columns, so the columns are checked here too.
    pub(crate) fn lock(view: pg_sys::Oid, schema: pg_sys::Oid) -> Result<Self, Error> {
        let inbox_trigger = function(schema, c"inbox_trigger", &[]);
        #[expect(unsafe_code, reason = "reads Postgres's structs")]
        // SAFETY: an open relation has its row of pg_class, and a list of its triggers if it has any. Data from them is
        // copied before the relation is closed.
        unsafe {
            let relation = pg_sys::relation_open(view, pg_sys::RowExclusiveLock.cast_signed());
            let class = &*(*relation).rd_rel;
            let triggers = match (*relation).trigdesc.as_ref() {
                Some(list) if letter(class.relkind) == pg_sys::RELKIND_VIEW => std::slice::from_raw_parts(
                    list.triggers,
                    usize::try_from(list.numtriggers).unwrap_or_default(),
                ),
                _ => &[],
            };
            let is_of_rows = |trigger: &&pg_sys::Trigger| {
                trigger.tgfoid == inbox_trigger
                    && u32::from(trigger.tgtype.cast_unsigned()) & pg_sys::TRIGGER_TYPE_INSTEAD != 0
            };
            let attached = triggers.iter().find(is_of_rows).map(|trigger| {
                Ok::<_, Error>(Self {
                    owner: class.relowner,
                    trigger: trigger.tgoid,
                    function: trigger.tgfoid,
                    argument: memory::copied(argument_of(trigger))?,
                })
            });
            let columns = check_columns(&*relation);
            pg_sys::relation_close(relation, pg_sys::NoLock.cast_signed());
            let attached = attached.ok_or_else(|| Error::NoInbox { relation: name_of(view) })?;
            columns.and(attached)
        }
    }
}
