//! An inbox made ready for a session: its definition checked against the catalogs, its statements prepared.
//!
//! The definition is the argument of the inbox's row trigger, so that `pg_dump` carries it as it carries any trigger.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::mem::ManuallyDrop;
use std::rc::Rc;

use masking::{Column, Envelope, Kind, Pointer, Rule, Rules};
use pgrx::pg_sys;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};

use crate::batch::name_of;
use crate::catalog::{Attribute, Relation, select};
use crate::copy_in::CopyIn;
use crate::error::{Error, quoted};
use crate::plan::Plan;
use crate::writer::{Conflict, Writer};

/// What an inbox is, in the words of `attach_inbox`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    /// The target, schema-qualified and quoted as SQL needs it.
    pub(crate) target: String,
    /// The rejects table, likewise.
    pub(crate) rejects: String,
    /// How each column of the target is filled.
    pub(crate) rules: BTreeMap<String, Rule>,
    /// How rows get into the target.
    #[serde(default)]
    pub(crate) flush: Flush,
    /// What is round the text that was published. Not written where there is nothing, nor is the next: so inboxes from
    /// before these two existed keep their definitions, and the hashes of them.
    #[serde(default, skip_serializing_if = "Envelope::is_none")]
    pub(crate) envelope: Envelope,
    /// Where the event stands in that text.
    #[serde(default, skip_serializing_if = "Pointer::is_whole")]
    pub(crate) event: Pointer,
}

/// How a flush writes the rows of a chunk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flush {
    /// By COPY where nothing speaks against it.
    #[default]
    Auto,
    /// By COPY; a target that it is not for is an error. What COPY leaves to INSERT (a row alone, what met another
    /// session's) is left to it here too.
    Copy,
    /// By INSERT.
    Insert,
}

/// Why an inbox does not flush by COPY.
pub(crate) enum NotByCopy {
    /// Its definition says so.
    Defined,
    /// Something about its target.
    Obstacle(String),
}

/// An inbox, ready.
pub(crate) struct Inbox {
    pub(crate) rules: Rules,
    /// The target's columns that the rules fill, in the rules' order.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) target: Writer,
    /// The quicker way into the target, or what keeps it from being one.
    pub(crate) copy_in: Result<CopyIn, NotByCopy>,
    pub(crate) rejects: Writer,
    /// Makes the target's deferred constraints immediate, where it has any.
    pub(crate) check_deferred: Option<Plan>,
    /// Whether Postgres shows the index by which a redelivered message is found: not behind a foreign table or view.
    pub(crate) sees_index: bool,
    /// Whether the owner is under policies on the target, so that rights may be missing for some rows alone.
    pub(crate) row_security: bool,
    /// The names that a reject's reason may mention: the target's constraints, indexes and columns. Read at need.
    pub(crate) names: OnceCell<Vec<String>>,
    target_oid: pg_sys::Oid,
    pub(crate) rejects_oid: pg_sys::Oid,
}

/// An inbox that this session has made ready.
struct Ready {
    inbox: Rc<Inbox>,
    /// The inbox's view: attached again, it has another definition, and its triggers keep their oids.
    view: pg_sys::Oid,
    /// Set when the view, the target or the rejects changed: the next statement makes the inbox ready anew.
    stale: Cell<bool>,
}

/// The columns of a rejects table, in the order in which the flush writes them.
pub(crate) const REJECT_COLUMNS: [(&str, Kind); 5] = [
    ("message_id", Kind::Uuid),
    ("sent_at", Kind::Timestamp),
    ("reason", Kind::Text),
    ("masked_body", Kind::Text),
    ("rejected_at", Kind::Timestamp),
];

thread_local! {
    /// The inboxes of this session by the oid of their row trigger.
    ///
    /// A backend is one thread, so this is the session's. Never dropped: at exit Postgres is no longer there to free
    /// the prepared statements.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static READY: ManuallyDrop<RefCell<HashMap<pg_sys::Oid, Ready>>> = ManuallyDrop::default();
}

/// Asks Postgres to tell of changed relations.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(crate) fn register() {
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
    }
}

/// Only marks: it is called at odd moments, when nothing may be freed or looked up.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    CHANGES.set(CHANGES.get() + 1);
    READY.with(|ready| {
        for ready in ready.borrow().values() {
            let relations = [ready.view, ready.inbox.target_oid, ready.inbox.rejects_oid];
            if relation == pg_sys::InvalidOid || relations.contains(&relation) {
                ready.stale.set(true);
            }
        }
    });
}

/// How many changes of relations this session has been told of.
pub(crate) fn changes() -> u64 {
    CHANGES.get()
}

impl Inbox {
    /// The inbox with this view, whose row trigger is `trigger` with the argument `definition`. Acts as the effective
    /// user, who must be the inbox's owner.
    pub(crate) fn ready(view: pg_sys::Oid, trigger: pg_sys::Oid, argument: &str) -> Result<Rc<Self>, Error> {
        let current = |ready: &&Ready| !ready.stale.get();
        if let Some(inbox) =
            READY.with(|all| all.borrow().get(&trigger).filter(current).map(|one| Rc::clone(&one.inbox)))
        {
            return Ok(inbox);
        }
        let before = changes();
        let definition = Definition::parse(argument)?;
        if !definition.is_of_relations()? {
            return Err(Error::NotBound { inbox: name_of(view) });
        }
        let inbox = Rc::new(Self::compile(&definition)?);
        inbox.check_binding(view, argument)?;
        // What changed meanwhile, while it waited for a lock, may not be in it.
        let stale = Cell::new(changes() != before);
        let ready = Ready { inbox: Rc::clone(&inbox), view, stale };
        // The old one is dropped after the borrow: freeing its statements calls Postgres.
        let old = READY.with(|all| all.borrow_mut().insert(trigger, ready));
        drop(old);
        Ok(inbox)
    }

    /// Checks a definition against the catalogs and prepares its statements.
    pub(crate) fn compile(definition: &Definition) -> Result<Self, Error> {
        if definition.rules.is_empty() {
            return Err(Error::NoRules);
        }
        let target = Relation::open(&definition.target)?;
        if !["r", "p", "f", "v"].contains(&target.kind.as_str()) || target.instead_trigger {
            return Err(Error::TargetKind { target: target.name });
        }
        let mut columns = Vec::new();
        let mut attributes = Vec::new();
        let mut written = Vec::new();
        let mut available = target.attributes()?;
        for (name, rule) in &definition.rules {
            let Some(index) = available.iter().position(|attribute| attribute.name == *name) else {
                let columns = target.attributes()?.into_iter().map(|attribute| attribute.name).collect();
                return Err(Error::UnknownColumn { column: name.clone(), target: target.name, columns });
            };
            let attribute = available.swap_remove(index);
            attribute.check(rule)?;
            let kind = rule.kind();
            columns.push(Column {
                name: name.clone(),
                rule: rule.clone(),
                limit: attribute.limit(),
                // A BEFORE trigger may still put something where there is NULL: then Postgres decides.
                not_null: attribute.not_null && !target.before_row_trigger,
                json: [pg_sys::JSONOID, pg_sys::JSONBOID].contains(&attribute.base),
            });
            written.push((name.clone(), kind, attribute.cast(kind)));
            attributes.push(attribute);
        }
        if !target.before_row_trigger
            && let Some(missed) = available.iter().find(|attribute| attribute.must_be_given)
        {
            return Err(Error::ColumnWithoutRule { column: missed.name.clone() });
        }
        let conflict = target.conflict(&columns)?;
        let copy_in = definition.flush.copy_in(&target, &attributes, &columns, conflict.key())?;
        let check_deferred = target.check_deferred()?;
        let rejects = Relation::open(&definition.rejects)?;
        let found = rejects.attributes()?;
        for (name, kind) in REJECT_COLUMNS {
            let takes_null = |attribute: &Attribute| {
                !attribute.not_null || rejects.before_row_trigger || ["reason", "rejected_at"].contains(&name)
            };
            let fits = |attribute: &Attribute| {
                attribute.name == name
                    && attribute.takes(kind)
                    && attribute.limit().is_none()
                    && takes_null(attribute)
            };
            if !found.iter().any(fits) {
                return Err(Error::RejectsColumns { rejects: rejects.name });
            }
        }
        let given = |name: &str| REJECT_COLUMNS.iter().any(|(column, _)| *column == name);
        if found.iter().any(|attribute| attribute.must_be_given && !given(&attribute.name)) {
            return Err(Error::RejectsColumns { rejects: rejects.name });
        }
        let reject_columns = REJECT_COLUMNS.map(|(name, kind)| (name.to_owned(), kind, None));
        let message_id = &[String::from("message_id")];
        if rejects.unique_index(&message_id[0], message_id)?.is_none() {
            return Err(Error::NoUniqueIndex { relation: rejects.name, columns: quoted(message_id) });
        }
        Ok(Self {
            rules: Rules::new(columns).of_events_at(definition.envelope, definition.event.clone()),
            attributes,
            target: Writer::new(target.name, target.oid, &written, &conflict)?,
            copy_in,
            rejects: Writer::new(rejects.name, rejects.oid, &reject_columns, &Conflict::On(vec![0]))?,
            check_deferred,
            sees_index: ["r", "p"].contains(&target.kind.as_str()),
            row_security: target.row_security,
            names: OnceCell::new(),
            target_oid: target.oid,
            rejects_oid: rejects.oid,
        })
    }

    /// Whether the view's owner made this definition, and of these relations.
    ///
    /// The definition is a trigger's argument and names its relations; but a trigger can be replaced by whoever was
    /// granted TRIGGER, and a name can come to mean another table. As the flush has the owner's rights, either would
    /// lend them to somebody else. So the view, which its owner alone can change, has the definition's hash in it and
    /// depends on the very relations.
    fn check_binding(&self, view: pg_sys::Oid, argument: &str) -> Result<(), Error> {
        let bound = select(
            "SELECT pg_catalog.strpos(pg_catalog.pg_get_viewdef($1), pg_catalog.quote_literal($2)) > 0
                AND (SELECT pg_catalog.array_agg(d.refobjid) FROM pg_catalog.pg_depend d
                     JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
                     WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.ev_class = $1
                       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) @> ARRAY[$3, $4]",
            &[view.into(), hash(argument)?.into(), self.target_oid.into(), self.rejects_oid.into()],
            |row| row.get::<bool>(1),
        )?;
        if bound == [Some(true)] { Ok(()) } else { Err(Error::NotBound { inbox: name_of(view) }) }
    }

    /// The names that a reject's reason may mention.
    pub(crate) fn names(&self) -> Result<&[String], Error> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let names = select(
            "SELECT conname::text FROM pg_catalog.pg_constraint WHERE conrelid = $1
             UNION SELECT indexrelid::pg_catalog.regclass::text FROM pg_catalog.pg_index WHERE indrelid = $1
             UNION SELECT c.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                 WHERE i.indrelid = $1
             UNION SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0",
            &[self.target_oid.into()],
            |row| row.get::<String>(1),
        )?;
        Ok(self.names.get_or_init(|| names.into_iter().flatten().collect()))
    }
}

impl Flush {
    fn copy_in(
        self,
        target: &Relation,
        attributes: &[Attribute],
        columns: &[Column],
        key: &[usize],
    ) -> Result<Result<CopyIn, NotByCopy>, Error> {
        if self == Self::Insert {
            return Ok(Err(NotByCopy::Defined));
        }
        let before = changes();
        let filled: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let kinds: Vec<Kind> = columns.iter().map(|column| column.rule.kind()).collect();
        let obstacle = if let Some(obstacle) = target.copy_obstacle(&filled)? {
            obstacle
        } else if let Some(copy_in) = CopyIn::new(target, attributes, &kinds, key, before)? {
            return Ok(Ok(copy_in));
        } else {
            "a column's type has no binary form".into()
        };
        if self == Self::Copy {
            return Err(Error::NoCopy { target: target.name.clone(), obstacle });
        }
        Ok(Err(NotByCopy::Obstacle(obstacle)))
    }
}

impl Definition {
    fn parse(argument: &str) -> Result<Self, Error> {
        serde_json::from_str(argument).map_err(Error::Definition)
    }

    /// Whether its names still mean something: after a renaming they do not.
    fn is_of_relations(&self) -> Result<bool, Error> {
        let found = select(
            "SELECT pg_catalog.to_regclass($1) IS NOT NULL AND pg_catalog.to_regclass($2) IS NOT NULL",
            &[self.target.as_str().into(), self.rejects.as_str().into()],
            |row| row.get::<bool>(1),
        )?;
        Ok(found == [Some(true)])
    }
}

/// What the view says of its definition.
pub(crate) fn hash(argument: &str) -> Result<String, Error> {
    let hash = select(
        "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')), 'hex')",
        &[argument.into()],
        |row| row.get::<String>(1),
    )?;
    hash.into_iter().flatten().next().ok_or(Error::Internal("no hash"))
}
