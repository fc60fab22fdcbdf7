//! An inbox made ready for a session: its definition checked against the catalogs, its statements prepared.
//!
//! The definition is the argument of the inbox's row trigger, so that `pg_dump` carries it as it carries any trigger.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::mem::ManuallyDrop;
use std::rc::Rc;

use masking::{Column, Rule, Rules};
use pgrx::pg_sys;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};

use crate::batch::name_of;
use crate::error::{Error, quoted};
use crate::flush::{Conflict, Writer};
use crate::plan::Plan;
use crate::rows::Kind;

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
}

/// An inbox, ready.
pub(crate) struct Inbox {
    pub(crate) rules: Rules,
    /// The target's columns that the rules fill, in the rules' order.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) target: Writer,
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
    rejects_oid: pg_sys::Oid,
}

/// An inbox that this session has made ready.
struct Ready {
    inbox: Rc<Inbox>,
    /// The inbox's view: attached again, it has another definition, and its triggers keep their oids.
    view: pg_sys::Oid,
    /// Set when the view, the target or the rejects changed: the next statement makes the inbox ready anew.
    stale: Cell<bool>,
}

/// A column as the catalogs describe it.
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) type_oid: pg_sys::Oid,
    pub(crate) typmod: i32,
    /// The type as SQL names it, without its modifier.
    type_name: String,
    /// The type under any domains over it, and its modifier.
    base: pg_sys::Oid,
    base_typmod: i32,
    not_null: bool,
    /// NOT NULL, and nothing but a rule puts anything there.
    must_be_given: bool,
    generated: bool,
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
        let before = CHANGES.get();
        let inbox = Rc::new(Self::compile(&Definition::parse(argument)?)?);
        inbox.check_binding(view, argument)?;
        // What changed meanwhile, while it waited for a lock, may not be in it.
        let stale = Cell::new(CHANGES.get() != before);
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
            let kind = attribute.check(rule)?;
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
        let check_deferred = target.check_deferred()?;
        let rejects = Relation::open(&definition.rejects)?;
        let found = rejects.attributes()?;
        for (name, kind) in REJECT_COLUMNS {
            let fits = |attribute: &Attribute| {
                attribute.name == name && attribute.takes(kind) && attribute.limit().is_none()
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
            rules: Rules::new(columns),
            attributes,
            target: Writer::new(target.name, &written, &conflict)?,
            rejects: Writer::new(rejects.name, &reject_columns, &Conflict::On(vec![0]))?,
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

impl Definition {
    fn parse(argument: &str) -> Result<Self, Error> {
        serde_json::from_str(argument).map_err(Error::Definition)
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

/// A relation as the catalogs describe it.
pub(crate) struct Relation {
    oid: pg_sys::Oid,
    /// Schema-qualified, quoted as SQL needs it.
    pub(crate) name: String,
    kind: String,
    /// Whether a BEFORE INSERT row trigger may change what is inserted.
    before_row_trigger: bool,
    /// Whether an INSTEAD OF trigger takes what is inserted, which goes with no ON CONFLICT.
    instead_trigger: bool,
    /// Whether policies apply to the current user.
    row_security: bool,
}

impl Relation {
    /// The relation that `name` means under the current search path; an error of Postgres's own where there is none.
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let relations = select(
            "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::text,
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t
                            WHERE t.tgrelid = c.oid AND t.tgtype & 7 = 7 AND NOT t.tgisinternal),
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 68 = 68),
                    pg_catalog.row_security_active(c.oid)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = $1::pg_catalog.regclass",
            &[name.into()],
            |row| Ok(((row.get(1)?, row.get(2)?, row.get(3)?), (row.get(4)?, row.get(5)?, row.get(6)?))),
        )?;
        match relations.into_iter().next() {
            Some((
                (Some(oid), Some(name), Some(kind)),
                (Some(before), Some(instead), Some(row_security)),
            )) => Ok(Self {
                oid,
                name,
                kind,
                before_row_trigger: before,
                instead_trigger: instead,
                row_security,
            }),
            _ => Err(Error::Internal("a relation is not in the catalogs")),
        }
    }

    fn attributes(&self) -> Result<Vec<Attribute>, Error> {
        let attributes = select(
            "SELECT attname::text, atttypid, atttypmod, pg_catalog.format_type(atttypid, -1),
                    attnotnull, attgenerated <> '' OR attidentity = 'a',
                    attnotnull AND NOT atthasdef AND attidentity = ''
             FROM pg_catalog.pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[self.oid.into()],
            |row| {
                let (name, type_oid, typmod) = (row.get(1)?, row.get(2)?, row.get(3)?);
                let (type_name, not_null, generated) = (row.get(4)?, row.get(5)?, row.get(6)?);
                let must_be_given = row.get(7)?;
                Ok((|| {
                    let (type_oid, typmod): (pg_sys::Oid, i32) = (type_oid?, typmod?);
                    let mut base_typmod = typmod;
                    #[expect(unsafe_code, reason = "calls Postgres")]
                    // SAFETY: a pointer to a local; the type was just read from the catalogs.
                    let base = unsafe { pg_sys::getBaseTypeAndTypmod(type_oid, &raw mut base_typmod) };
                    Some(Attribute {
                        name: name?,
                        type_oid,
                        typmod,
                        type_name: type_name?,
                        base,
                        base_typmod,
                        not_null: not_null?,
                        must_be_given: must_be_given?,
                        generated: generated?,
                    })
                })())
            },
        )?;
        Ok(attributes.into_iter().flatten().collect())
    }

    /// A constraint that waits for COMMIT would refuse the whole transaction there, again at each redelivery. Checked
    /// within the flush it makes a reject of the culprit alone. It stays immediate until the transaction's end.
    fn check_deferred(&self) -> Result<Option<Plan>, Error> {
        let deferred = select(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.conname) FROM pg_catalog.pg_constraint c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace WHERE c.conrelid = $1 AND c.condeferred",
            &[self.oid.into()],
            |row| row.get::<String>(1),
        )?;
        let names: Vec<String> = deferred.into_iter().flatten().collect();
        if names.is_empty() {
            return Ok(None);
        }
        Plan::prepare(&format!("SET CONSTRAINTS {} IMMEDIATE", names.join(", ")), &[]).map(Some)
    }

    /// How a redelivered message is found again in this target.
    fn conflict(&self, columns: &[Column]) -> Result<Conflict, Error> {
        let index_of = |name: &String| columns.iter().position(|column| column.name == *name);
        let Some(id) = columns.iter().find(|column| column.rule == Rule::MessageId) else {
            return Ok(Conflict::Error);
        };
        // What the same message has again at each delivery may stand in the index beside the id: on a partitioned
        // table the partition key must.
        let same_again: Vec<String> = columns
            .iter()
            .filter(|column| column.rule.key().is_none())
            .map(|column| column.name.clone())
            .collect();
        let key = match self.kind.as_str() {
            "r" | "p" => self.unique_index(&id.name, &same_again)?.ok_or_else(|| Error::NoUniqueIndex {
                relation: self.name.clone(),
                columns: quoted(&[&id.name]),
            })?,
            // The index stands behind a foreign table or a view, where it cannot be named.
            _ => return Ok(Conflict::Any(index_of(&id.name).into_iter().collect())),
        };
        Ok(Conflict::On(key.iter().filter_map(index_of).collect()))
    }

    /// The columns of a unique index that has `column`, and besides it `others` at most.
    fn unique_index(&self, column: &str, others: &[String]) -> Result<Option<Vec<String>>, Error> {
        let indexes = select(
            "SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum), i.indimmediate
             FROM pg_catalog.pg_index i
             CROSS JOIN LATERAL pg_catalog.unnest(i.indkey) WITH ORDINALITY k(attnum, n)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid
               AND NOT i.indnullsnotdistinct
               AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
             GROUP BY i.indexrelid
             HAVING pg_catalog.array_agg(a.attname::text) @> ARRAY[$2] AND pg_catalog.array_agg(a.attname::text) <@ $3
             ORDER BY pg_catalog.count(*)",
            &[self.oid.into(), column.into(), others.to_vec().into()],
            |row| Ok((row.get::<Vec<String>>(1)?, row.get::<bool>(2)?)),
        )?;
        // ON CONFLICT (columns) takes all indexes on these columns, and fails when one of them is deferrable.
        let deferrable = |key: &Vec<String>| indexes.contains(&(Some(key.clone()), Some(false)));
        Ok(indexes.iter().filter_map(|(key, _)| key.as_ref()).find(|key| !deferrable(key)).cloned())
    }
}

impl Attribute {
    /// In which form `rule` fills this column; an error where it cannot.
    fn check(&self, rule: &Rule) -> Result<Kind, Error> {
        let (kind, name, allowed, fits) = match rule {
            // These two cut off what is too long, without an error.
            Rule::Copy(_) => (
                Kind::Text,
                "copy",
                "any but name and \"char\"",
                ![pg_sys::NAMEOID, pg_sys::CHAROID].contains(&self.base),
            ),
            Rule::Mask(_) => (
                Kind::Text,
                "mask",
                "text or character varying",
                [pg_sys::TEXTOID, pg_sys::VARCHAROID].contains(&self.base),
            ),
            Rule::Version(_) => (
                Kind::Integer,
                "version",
                "integer, bigint or numeric",
                [pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID].contains(&self.base),
            ),
            Rule::SentDate => (Kind::Date, "sent_date", "date", self.takes(Kind::Date)),
            Rule::SentAt => {
                (Kind::Timestamp, "sent_at", "timestamp with time zone", self.takes(Kind::Timestamp))
            }
            Rule::MessageId => (Kind::Uuid, "message_id", "uuid", self.takes(Kind::Uuid)),
        };
        if self.generated {
            return Err(Error::GeneratedColumn { column: self.name.clone() });
        }
        if !fits {
            let (column, found) = (self.name.clone(), self.type_name.clone());
            return Err(Error::ColumnType { column, found, rule: name, allowed });
        }
        Ok(kind)
    }

    /// Whether the column is of the very type of `kind`.
    fn takes(&self, kind: Kind) -> bool {
        let base = self.base;
        match kind {
            Kind::Text => base == pg_sys::TEXTOID || base == pg_sys::VARCHAROID,
            Kind::Integer => base == pg_sys::INT4OID,
            Kind::Date => base == pg_sys::DATEOID,
            Kind::Timestamp => base == pg_sys::TIMESTAMPTZOID,
            Kind::Uuid => base == pg_sys::UUIDOID,
        }
    }

    /// Whether Postgres takes a text as it is: then a cast would be wrong, since an explicit cast to `varchar(n)` cuts
    /// off what is too long where an assignment refuses it.
    pub(crate) fn is_text(&self) -> bool {
        [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID].contains(&self.base)
    }

    /// The type to cast a value to, where Postgres would not assign it by itself.
    fn cast(&self, kind: Kind) -> Option<String> {
        (kind == Kind::Text && !self.is_text()).then(|| self.type_name.clone())
    }

    /// The characters that the column takes.
    fn limit(&self) -> Option<usize> {
        // The modifier counts the length word of a varlena too (varchar.c).
        let length = usize::try_from(self.base_typmod).ok()?.checked_sub(pg_sys::VARHDRSZ)?;
        [pg_sys::VARCHAROID, pg_sys::BPCHAROID].contains(&self.base).then_some(length)
    }
}

/// The rows of a read-only query. Assigns no transaction id, as pgrx's own `Spi::get_one` would.
pub(crate) fn select<T>(
    sql: &str,
    arguments: &[pgrx::datum::DatumWithOid<'_>],
    read: impl Fn(pgrx::spi::SpiHeapTupleData<'_>) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    Spi::connect(|client| {
        let rows = client.select(sql, None, arguments)?;
        Ok(rows.map(read).collect::<Result<Vec<T>, _>>()?)
    })
}
