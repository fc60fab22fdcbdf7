//! An inbox made ready for a session: its definition checked against the catalogs, its statements prepared.
//!
//! The definition is the argument of the inbox's row trigger, so that `pg_dump` carries it as it carries any trigger.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::mem::ManuallyDrop;
use std::rc::Rc;

use masking::{Column, Envelope, Kind, Pointer, Rule, Rules, memory};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::batch::name_of;
use crate::catalog::{Attribute, Relation, select};
use crate::copy_in::CopyIn;
use crate::error::{Error, quoted};
use crate::security::as_owner;
use crate::watch::Watch;
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

/// The most memory that parsed JSON takes for each byte of its text, also while an array of it grows.
pub(crate) const JSON_BYTES: usize = 64;

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
    /// Whether types other than texts read parts of an event. They can take many times its size.
    pub(crate) has_types: bool,
    /// Whether Postgres shows the index by which a redelivered message is found: not behind a foreign table or view.
    pub(crate) sees_index: bool,
    /// The names that a reject's reason may mention: the target's constraints, indexes and columns. Read at need.
    pub(crate) names: OnceCell<Vec<String>>,
    pub(crate) target_oid: pg_sys::Oid,
    pub(crate) rejects_oid: pg_sys::Oid,
}

/// An inbox that this session has made ready.
struct Ready {
    inbox: Rc<Inbox>,
    /// Watches the view, which has another definition when it is attached again although its triggers keep their oids; and
    /// all that rows and rejects go into.
    watch: Rc<Watch>,
    /// How many changes the watch had told of when this was made.
    made_at: u64,
}

impl Ready {
    fn is_current(&self) -> bool {
        self.watch.changes() == self.made_at
    }
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
    static READY: ManuallyDrop<RefCell<HashMap<pg_sys::Oid, Ready>>> = ManuallyDrop::default();
}

impl Inbox {
    /// Returns the inbox with this view and owner, whose row trigger is `trigger` with the argument `definition`.
    pub(crate) fn ready(
        view: pg_sys::Oid,
        owner: pg_sys::Oid,
        trigger: pg_sys::Oid,
        argument: &str,
    ) -> Result<Rc<Self>, Error> {
        let current = |ready: &&Ready| ready.is_current();
        if let Some(inbox) =
            READY.with(|all| all.borrow().get(&trigger).filter(current).map(|one| Rc::clone(&one.inbox)))
        {
            return Ok(inbox);
        }
        let ready = as_owner(owner, || Self::make_ready(view, argument))?;
        let inbox = Rc::clone(&ready.inbox);
        // Those that are out of date go too, as they would stay if their view is dropped. Outside of the borrow, since
        // freeing their statements calls Postgres.
        let old = READY.with(|all| {
            let mut all = all.borrow_mut();
            let mut old: Vec<Ready> =
                all.extract_if(|_, ready| !ready.is_current()).map(|(_, ready)| ready).collect();
            old.extend(all.insert(trigger, ready));
            old
        });
        drop(old);
        Ok(inbox)
    }

    fn make_ready(view: pg_sys::Oid, argument: &str) -> Result<Ready, Error> {
        let definition = Definition::parse(argument)?;
        let not_bound = || Error::NotBound { inbox: name_of(view) };
        let relations = definition.relations()?.ok_or_else(not_bound)?;
        if !is_bound(view, argument, relations)? {
            return Err(not_bound());
        }
        let (target, rejects) = (Relation::open(relations[0])?, Relation::open(relations[1])?);
        let mut relations = vec![view];
        relations.extend(target.tree()?);
        relations.extend(rejects.tree()?);
        // Before columns and indexes are read. What changes meanwhile, while it waits for a lock, may not be in it.
        let watch = Watch::new(relations);
        let made_at = watch.changes();
        if reads_old_catalogs() {
            // Good for this statement, and not for one that sees more.
            watch.outdate();
        }
        let inbox = Rc::new(Self::compile(&definition, &target, &rejects, &watch)?);
        Ok(Ready { inbox, watch, made_at })
    }

    /// Checks a definition against the catalogs and prepares its statements.
    pub(crate) fn compile(
        definition: &Definition,
        target: &Relation,
        rejects: &Relation,
        watch: &Rc<Watch>,
    ) -> Result<Self, Error> {
        if definition.rules.is_empty() {
            return Err(Error::NoRules);
        }
        let checked = watch.changes();
        if !["r", "p", "f", "v"].contains(&target.kind.as_str()) || target.instead_trigger {
            return Err(Error::TargetKind { target: target.name.clone() });
        }
        let mut columns = Vec::new();
        let mut attributes = Vec::new();
        let mut available = target.attributes()?;
        for (name, rule) in &definition.rules {
            let Some(index) = available.iter().position(|attribute| attribute.name == *name) else {
                let columns = target.attributes()?.into_iter().map(|attribute| attribute.name).collect();
                let target = target.name.clone();
                return Err(Error::UnknownColumn { column: name.clone(), target, columns });
            };
            let attribute = available.swap_remove(index);
            attribute.check(rule)?;
            columns.push(Column {
                name: name.clone(),
                rule: rule.clone(),
                limit: attribute.limit(),
                // A BEFORE trigger may still put something where there is NULL: then Postgres decides.
                not_null: attribute.not_null && !target.before_row_trigger,
                json: [pg_sys::JSONOID, pg_sys::JSONBOID].contains(&attribute.base),
            });
            attributes.push(attribute);
        }
        if !target.before_row_trigger
            && let Some(missed) = available.iter().find(|attribute| attribute.must_be_given)
        {
            return Err(Error::ColumnWithoutRule { column: missed.name.clone() });
        }
        let conflict = target.conflict(&columns)?;
        let copy_in =
            definition.flush.copy_in(target, &attributes, &columns, conflict.key(), watch, checked)?;
        let kinds = columns.iter().map(|column: &Column| column.rule.kind()).collect();
        let reads_type = |(column, attribute): (&Column, &Attribute)| {
            matches!(column.rule, Rule::Copy(_)) && !attribute.is_text()
        };
        let has_types = columns.iter().zip(&attributes).any(reads_type);
        Ok(Self {
            has_types,
            rules: Rules::new(columns).of_events_at(definition.envelope, definition.event.clone()),
            target: Writer::new(target, attributes.clone(), kinds, &conflict)?,
            attributes,
            copy_in,
            rejects: writer_of_rejects(rejects)?,
            sees_index: ["r", "p"].contains(&target.kind.as_str()),
            names: OnceCell::new(),
            target_oid: target.oid,
            rejects_oid: rejects.oid,
        })
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

/// Whether the transaction sees the catalogs as they were when it began.
fn reads_old_catalogs() -> bool {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: it is the backend's own.
    unsafe {
        pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ.cast_signed()
    }
}

/// Checks a rejects table, and returns its writer.
fn writer_of_rejects(rejects: &Relation) -> Result<Writer, Error> {
    let wrong = || Error::RejectsColumns { rejects: rejects.name.clone() };
    let mut found = rejects.attributes()?;
    let mut columns = Vec::new();
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
        let index = found.iter().position(fits).ok_or_else(wrong)?;
        columns.push(found.swap_remove(index));
    }
    if found.iter().any(|attribute| attribute.must_be_given) {
        return Err(wrong());
    }
    let message_id = &[String::from("message_id")];
    if rejects.unique_index(&message_id[0], message_id)?.is_none() {
        return Err(Error::NoUniqueIndex { relation: rejects.name.clone(), columns: quoted(message_id) });
    }
    let kinds = REJECT_COLUMNS.map(|(_, kind)| kind).to_vec();
    Writer::new(rejects, columns, kinds, &Conflict::On(vec![0]))
}

/// Whether the view's owner made this definition, and of these relations.
///
/// The definition is a trigger's argument and names its relations; but a trigger can be replaced by anyone who was
/// granted TRIGGER, and a name can come to mean another table. As the flush has the owner's rights, either would
/// lend them to somebody else. So the view, which its owner alone can change, has the definition's hash in it and
/// depends on the very relations.
pub(crate) fn is_bound(
    view: pg_sys::Oid,
    argument: &str,
    relations: [pg_sys::Oid; 2],
) -> Result<bool, Error> {
    let bound = select(
        "SELECT pg_catalog.strpos(v.definition, pg_catalog.quote_literal($2)) > 0
            -- Which of the two is which. The definition is made from OIDs, with the names of now.
            AND pg_catalog.strpos(v.definition, pg_catalog.format('FROM %s target,', $3[1]::pg_catalog.regclass)) > 0
            AND (SELECT pg_catalog.array_agg(d.refobjid) FROM pg_catalog.pg_depend d
                 JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
                 WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.ev_class = $1
                   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) @> $3
         FROM pg_catalog.pg_get_viewdef($1) AS v(definition)",
        &[view.into(), hash(argument)?.into(), relations.to_vec().into()],
        |row| row.get::<bool>(1),
    )?;
    Ok(bound == [Some(true)])
}

impl Flush {
    fn copy_in(
        self,
        target: &Relation,
        attributes: &[Attribute],
        columns: &[Column],
        key: &[usize],
        watch: &Rc<Watch>,
        checked: u64,
    ) -> Result<Result<CopyIn, NotByCopy>, Error> {
        if self == Self::Insert {
            return Ok(Err(NotByCopy::Defined));
        }
        let filled: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let kinds: Vec<Kind> = columns.iter().map(|column| column.rule.kind()).collect();
        let obstacle = if let Some(obstacle) = target.copy_obstacle(&target.tree()?, &filled, &[])? {
            obstacle
        } else if let Some(copy_in) = CopyIn::new(target, attributes, &kinds, key, Rc::clone(watch), checked)?
        {
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
        // Anyone can make a trigger with an argument of any size.
        memory::ensure(argument.len().saturating_mul(JSON_BYTES))?;
        serde_json::from_str(argument).map_err(Error::Definition)
    }

    /// Returns the relations that its names mean; none where they mean nothing, as after a renaming.
    fn relations(&self) -> Result<Option<[pg_sys::Oid; 2]>, Error> {
        let found = select(
            "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid, pg_catalog.to_regclass($2)::pg_catalog.oid",
            &[self.target.as_str().into(), self.rejects.as_str().into()],
            |row| Ok(row.get::<pg_sys::Oid>(1)?.zip(row.get::<pg_sys::Oid>(2)?)),
        )?;
        Ok(found.into_iter().flatten().next().map(|(target, rejects)| [target, rejects]))
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
