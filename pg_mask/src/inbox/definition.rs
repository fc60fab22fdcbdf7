//! An inbox made ready for a session: its definition is checked against the catalogs and its statements are prepared.
//!
//! The definition is the argument of the inbox's row trigger, so `pg_dump` carries it like any trigger.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::mem::ManuallyDrop;
use std::rc::Rc;

use masking::{Column, Envelope, Kind, Pointer, Rule, Rules, memory};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::pg::catalog::{Attribute, Conflict, Relation, select};
use crate::pg::names::{name_of, quoted};
use crate::pg::relcache::Watch;
use crate::pg::security::as_owner;
use crate::store::copy::{CopyIn, no_binary_form};
use crate::store::insert::Writer;

/// The definition of an inbox, in the terms of `attach_inbox`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    /// The target, schema-qualified and quoted as SQL needs it.
    pub(crate) target: String,
    /// The rejects table, schema-qualified and quoted as SQL needs it.
    pub(crate) rejects: String,
    /// The rule that fills each column of the target.
    pub(crate) rules: BTreeMap<String, Rule>,
    /// The statement that writes rows to the target.
    #[serde(default)]
    pub(crate) flush: Flush,
    /// The wrapper around the published text. This field and `event` are not serialized at their defaults. So inboxes from
    /// before they existed keep their definitions, and the definitions' hashes.
    #[serde(default, skip_serializing_if = "Envelope::is_none")]
    pub(crate) envelope: Envelope,
    /// The location of the event in the published text.
    #[serde(default, skip_serializing_if = "Pointer::is_whole")]
    pub(crate) event: Pointer,
}

/// Maximum number of columns of a table (`MaxHeapAttributeNumber`).
const MOST_COLUMNS: usize = 1600;

/// Maximum memory in bytes that parsed JSON takes for each byte of its text, even while an array in it grows.
pub(crate) const JSON_BYTES: usize = 64;

/// The statement with which a flush writes the rows of a chunk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flush {
    /// COPY, if nothing prevents it.
    #[default]
    Auto,
    /// COPY. A target that COPY cannot write is an error. Rows that COPY leaves to INSERT are still inserted: a row alone,
    /// or rows that conflict with another session's.
    Copy,
    /// INSERT.
    Insert,
}

/// The reason for not flushing by COPY.
pub(crate) enum NotByCopy {
    /// The definition demands INSERT.
    Defined,
    /// A property of the target prevents it.
    Obstacle(String),
}

/// An inbox that is ready for use.
pub(crate) struct Inbox {
    pub(crate) rules: Rules,
    /// The target's columns that the rules fill, in the rules' order.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) target: Writer,
    /// The faster COPY into the target, or the reason for not using it.
    pub(crate) copy_in: Result<CopyIn, NotByCopy>,
    pub(crate) rejects: Writer,
    /// Whether types other than texts read parts of an event. Their values can take many times the event's size.
    pub(crate) has_types: bool,
    /// Whether Postgres shows the index that finds a redelivered message. It does not for a foreign table or a view.
    pub(crate) sees_index: bool,
    /// Names that a reject's reason may mention: the target's constraints, indexes and columns. Read when needed.
    pub(crate) names: OnceCell<Vec<String>>,
    pub(crate) target_oid: pg_sys::Oid,
    pub(crate) rejects_oid: pg_sys::Oid,
}

/// An inbox that this session has made ready.
struct Ready {
    inbox: Rc<Inbox>,
    /// Watches the view and all relations that rows and rejects go into. A view that is attached again has another
    /// definition, although its triggers keep their OIDs.
    watch: Rc<Watch>,
}

impl Ready {
    fn is_current(&self) -> bool {
        self.watch.changes() == 0
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
    /// The inboxes of this session by the OID of their row trigger.
    ///
    /// A backend is one thread, so a thread-local belongs to the session. Never dropped: at exit, Postgres can no longer
    /// free the prepared statements.
    static READY: ManuallyDrop<RefCell<HashMap<pg_sys::Oid, Ready>>> = ManuallyDrop::default();
}

impl Inbox {
    /// Returns the inbox with this view and owner, whose row trigger is `trigger` with the definition in `argument`.
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
        // Outdated inboxes are removed too, because they would otherwise stay if their view is dropped. They are dropped
        // outside of the borrow, because freeing their statements calls Postgres.
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
        let relations = definition.relations(view)?.ok_or_else(not_bound)?;
        let (watch, target, rejects) = watched(view, relations)?;
        if !is_bound(view, argument, relations)? {
            return Err(not_bound());
        }
        let inbox = Rc::new(Self::compile(&definition, &target, &rejects, &watch)?);
        Ok(Ready { inbox, watch })
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
                // A BEFORE trigger may still replace a NULL. Then Postgres decides.
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
        let copy_in = definition.flush.copy_in(target, &attributes, &columns, conflict.key(), watch)?;
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
            sees_index: target.is_table(),
            names: OnceCell::new(),
            target_oid: target.oid,
            rejects_oid: rejects.oid,
        })
    }

    /// Returns the names that a reject's reason may mention.
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
            |row| row.text(1),
        )?;
        Ok(self.names.get_or_init(|| names.into_iter().flatten().collect()))
    }
}

/// Watches target, rejects table, the view and everything that their rows may go into, and then opens the two. Changes count
/// from there: whatever is read from then on is as new as they are.
fn watched(
    view: pg_sys::Oid,
    [target, rejects]: [pg_sys::Oid; 2],
) -> Result<(Rc<Watch>, Relation, Relation), Error> {
    let open = || {
        let (target, rejects) = (Relation::open(target)?, Relation::open(rejects)?);
        let mut all = vec![view];
        all.extend(target.tree()?);
        all.extend(rejects.tree()?);
        all.sort_unstable_by_key(|relation| relation.to_u32());
        Ok::<_, Error>((all, target, rejects))
    };
    let (mut relations, ..) = open()?;
    loop {
        let watch = Watch::new(relations);
        let (now, target, rejects) = open()?;
        // A partition may have come before the watch began.
        if now == watch.relations() {
            return Ok((watch, target, rejects));
        }
        relations = now;
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

/// Whether the view's owner made this definition, for these relations.
///
/// The definition is a trigger's argument, and names its relations. But anyone who was granted TRIGGER can replace a
/// trigger, and a name can come to mean another table. The flush has the owner's privileges, so either would lend these to
/// somebody else. So the view, which only its owner can change, contains the definition's hash and reads exactly these
/// relations, the target first.
///
/// Reads the view's query as Postgres keeps it (`outfuncs.c`): a constant as the decimals of its bytes, a relation as its
/// OID. `pg_get_viewdef` would lock the relations.
pub(crate) fn is_bound(
    view: pg_sys::Oid,
    argument: &str,
    [target, rejects]: [pg_sys::Oid; 2],
) -> Result<bool, Error> {
    let bytes: Vec<String> = hash(argument)?.bytes().map(|byte| byte.to_string()).collect();
    let bound = select(
        "SELECT pg_catalog.strpos(q.tree, $2) > 0
            AND q.target > 0 AND q.rejects > q.target
            AND (SELECT pg_catalog.count(DISTINCT d.refobjid) FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = q.oid
                   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid IN ($3, $4)) = 2
         FROM (SELECT r.oid, r.ev_action::text AS tree,
                      pg_catalog.strpos(r.ev_action::text, pg_catalog.format(':relid %s ', $3)) AS target,
                      pg_catalog.strpos(r.ev_action::text, pg_catalog.format(':relid %s ', $4)) AS rejects
               FROM pg_catalog.pg_rewrite r WHERE r.ev_class = $1 AND r.rulename = '_RETURN') AS q",
        &[view.into(), bytes.join(" ").into(), target.into(), rejects.into()],
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
    ) -> Result<Result<CopyIn, NotByCopy>, Error> {
        if self == Self::Insert {
            return Ok(Err(NotByCopy::Defined));
        }
        let filled: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let kinds: Vec<Kind> = columns.iter().map(|column| column.rule.kind()).collect();
        let obstacle = target.copy_obstacle(&target.tree()?, &filled, &[])?;
        let obstacle = obstacle.or_else(|| no_binary_form(attributes, &kinds));
        let Some(obstacle) = obstacle else {
            return Ok(Ok(CopyIn::new(target, attributes, &kinds, key, Rc::clone(watch))?));
        };
        if self == Self::Copy {
            return Err(Error::NoCopy { target: target.name.clone(), obstacle });
        }
        Ok(Err(NotByCopy::Obstacle(obstacle)))
    }
}

impl Definition {
    pub(crate) fn parse(argument: &str) -> Result<Self, Error> {
        // Anyone can create a trigger with an argument of any size.
        memory::ensure(argument.len().saturating_mul(JSON_BYTES))?;
        let definition: Self = serde_json::from_str(argument).map_err(Error::Definition)?;
        // attach_inbox() makes no such definition, but anyone can create the trigger.
        if definition.rules.len() > MOST_COLUMNS || has_nul(argument) {
            return Err(Error::Definition(serde::de::Error::custom("not a definition of attach_inbox()")));
        }
        Ok(definition)
    }

    /// Returns the relations of these names among those that the view reads, or none if one is missing, as after a renaming.
    /// Needs no privileges, and takes any text for a name: anyone can give a view of their own such a trigger.
    pub(crate) fn relations(&self, view: pg_sys::Oid) -> Result<Option<[pg_sys::Oid; 2]>, Error> {
        let find = |name: &str| {
            let found = select(
                "SELECT c.oid FROM pg_catalog.pg_rewrite r
                 JOIN pg_catalog.pg_depend d ON d.objid = r.oid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                 JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE r.ev_class = $1 AND pg_catalog.format('%I.%I', n.nspname, c.relname) = $2",
                &[view.into(), name.into()],
                |row| row.get::<pg_sys::Oid>(1),
            )?;
            Ok::<_, Error>(found.into_iter().flatten().next())
        };
        Ok(find(&self.target)?.zip(find(&self.rejects)?).map(|(target, rejects)| [target, rejects]))
    }
}

/// Whether a text in JSON has U+0000, which Postgres's texts cannot have.
fn has_nul(json: &str) -> bool {
    let is_escape = |(at, _): (usize, &str)| {
        let before = json.as_bytes().iter().take(at).rev().take_while(|&&byte| byte == b'\\').count();
        before % 2 == 0
    };
    json.match_indices("\\u0000").any(is_escape)
}

/// Returns the hash of a definition, which is in the view.
pub(crate) fn hash(argument: &str) -> Result<String, Error> {
    let hash = select(
        "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')), 'hex')",
        &[argument.into()],
        |row| row.text(1),
    )?;
    hash.into_iter().flatten().next().ok_or(Error::Internal("no hash"))
}
