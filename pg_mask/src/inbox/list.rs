//! The one definition of an inbox: a view with the extension's row trigger. Reads all inboxes, each with its definition.
//!
//! All of it comes from catalogs that every role can read. Nothing runs with the rights of the inbox's owner, except for the
//! question whether COPY is possible, which depends on that role.

use masking::{Column, Rule, memory};
use pgrx::{JsonB, pg_sys};
use serde::Serialize;

use crate::error::Error;
use crate::inbox::definition::{Definition, JSON_BYTES, is_bound};
use crate::pg::catalog::{Conflict, Relation, in_one_snapshot, select};
use crate::pg::security::{as_owner, function};
use crate::store::copy::no_binary_form;

/// An inbox as the catalogs describe it.
pub(crate) struct InboxRecord {
    pub(crate) view: pg_sys::Oid,
    /// Schema-qualified, quoted as SQL needs it.
    pub(crate) name: String,
    pub(crate) owner: pg_sys::Oid,
    pub(crate) owner_name: String,
    /// Everything that events or rejects go into, whatever it is called by now.
    pub(crate) relations: Vec<pg_sys::Oid>,
    /// None if the definition isn't what the view's owner attached, or one of its relations is gone.
    pub(crate) attached: Option<Attached>,
    /// Length of the definition as JSON.
    bytes: usize,
}

/// A definition and the relations in it.
pub(crate) struct Attached {
    pub(crate) definition: Definition,
    pub(crate) target: pg_sys::Oid,
    pub(crate) rejects: pg_sys::Oid,
}

/// A row of the view `inboxes`.
type Row = (
    pg_sys::Oid,
    pg_sys::Oid,
    Option<pg_sys::Oid>,
    Option<pg_sys::Oid>,
    Option<JsonB>,
    Option<String>,
    Option<String>,
    Option<Vec<String>>,
    Option<String>,
    Option<String>,
);

/// Returns the rows of the view `inboxes`. `schema` is the extension's.
pub(crate) fn rows(schema: pg_sys::Oid) -> Result<Vec<Row>, Error> {
    in_one_snapshot(|| {
        inboxes(function(schema, c"inbox_trigger", &[]), None)?.into_iter().map(InboxRecord::row).collect()
    })
}

/// Returns all inboxes of the database, or the one with this view: views with the row trigger of this extension. `trigger`
/// is the extension's trigger function.
pub(crate) fn inboxes(trigger: pg_sys::Oid, view: Option<pg_sys::Oid>) -> Result<Vec<InboxRecord>, Error> {
    let found = select(
        "SELECT c.oid, c.relowner,
                pg_catalog.format('%I.%I', CASE n.oid WHEN pg_catalog.pg_my_temp_schema() THEN 'pg_temp' ELSE n.nspname END, c.relname),
                pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)),
                t.oid,
                ARRAY(SELECT d.refobjid FROM pg_catalog.pg_rewrite r
                      JOIN pg_catalog.pg_depend d ON d.objid = r.oid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                      WHERE r.ev_class = c.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.refobjid <> c.oid)
         FROM pg_catalog.pg_trigger t
         JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid AND c.relkind = 'v'
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         -- INSTEAD OF, for each row.
         WHERE t.tgfoid = $1 AND t.tgtype::integer & 65 = 65 AND ($2 IS NULL OR c.oid = $2)
         ORDER BY n.nspname, c.relname, t.tgname <> 'pg_mask_row', t.tgname",
        &[trigger.into(), view.into()],
        |row| {
            let (view, owner, name) = (row.get::<pg_sys::Oid>(1)?, row.get::<pg_sys::Oid>(2)?, row.text(3)?);
            let (owner_name, trigger) = (row.text(4)?, row.get::<pg_sys::Oid>(5)?.unwrap_or_default());
            let relations = row.get::<Vec<pg_sys::Oid>>(6)?.unwrap_or_default();
            Ok(((view.zip(name), owner.zip(owner_name)), trigger, relations))
        },
    )?;
    let mut inboxes: Vec<InboxRecord> = Vec::new();
    for inbox in found {
        let ((Some((view, name)), Some((owner, owner_name))), trigger, read) = inbox else { continue };
        // Somebody with the right TRIGGER can put a second such trigger on the view. The extension's own comes first.
        if inboxes.iter().any(|known| known.view == view) {
            continue;
        }
        let mut relations = Vec::new();
        for relation in read {
            relations.extend(Relation::open(relation)?.tree()?);
        }
        let argument = argument(trigger)?;
        let attached = attached(view, &argument)?;
        inboxes.push(InboxRecord {
            view,
            name,
            owner,
            owner_name,
            relations,
            attached,
            bytes: argument.len(),
        });
    }
    Ok(inboxes)
}

/// Returns the argument of a row trigger, or an empty text if it has not exactly one, or one that is too long for a definition.
/// Anybody can make such a trigger, with an argument of any length.
fn argument(trigger: pg_sys::Oid) -> Result<String, Error> {
    /// A definition of 1,600 columns is smaller.
    const LONGEST: usize = 1 << 20;
    let bytes = select(
        "SELECT pg_catalog.octet_length(tgargs) FROM pg_catalog.pg_trigger WHERE oid = $1 AND tgnargs = 1",
        &[trigger.into()],
        |row| row.get::<i32>(1),
    )?;
    let bytes = bytes.first().copied().flatten().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes.filter(|&bytes| bytes <= LONGEST) else { return Ok(String::new()) };
    // The text, and the copies that Postgres makes of it.
    memory::ensure(bytes.saturating_mul(4))?;
    let argument = select(
        "SELECT pg_catalog.rtrim(tgargs, '\\x00'::bytea) FROM pg_catalog.pg_trigger WHERE oid = $1",
        &[trigger.into()],
        |row| row.get::<Vec<u8>>(1),
    )?;
    // A definition is UTF-8.
    let argument = argument.into_iter().flatten().next().and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(argument.unwrap_or_default())
}

fn attached(view: pg_sys::Oid, argument: &str) -> Result<Option<Attached>, Error> {
    let definition = match Definition::parse(argument) {
        Ok(definition) => definition,
        Err(Error::OutOfMemory) => return Err(Error::OutOfMemory),
        Err(_) => return Ok(None),
    };
    let Some([target, rejects]) = definition.relations(view)? else { return Ok(None) };
    let bound = is_bound(view, argument, [target, rejects])?;
    Ok(bound.then_some(Attached { definition, target, rejects }))
}

impl Attached {
    /// Returns the relation that events are stored in, and how a redelivered message is found in it.
    pub(crate) fn target(&self) -> Result<(Relation, Result<Conflict, Error>), Error> {
        let target = Relation::open(self.target)?;
        let conflict = target.conflict(&self.columns());
        Ok((target, conflict))
    }

    /// Returns the columns that a redelivered message is found by.
    pub(crate) fn found_by(&self) -> Result<Vec<String>, Error> {
        let (target, conflict) = self.target()?;
        let names: Vec<&String> = self.definition.rules.keys().collect();
        Ok(match conflict {
            Ok(conflict) if target.is_table() => {
                conflict.key().iter().map(|&column| names[column].clone()).collect()
            }
            Ok(_) | Err(_) => Vec::new(),
        })
    }

    /// Returns what stands in the way of COPY, if anything does. `owner` is the inbox's.
    pub(crate) fn copy_obstacle(&self, owner: pg_sys::Oid) -> Result<Option<String>, Error> {
        as_owner(owner, || {
            let (target, conflict) = self.target()?;
            let columns = self.columns();
            let filled: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            let key: Vec<String> = match &conflict {
                Ok(conflict) => conflict.key().iter().map(|&column| columns[column].name.clone()).collect(),
                Err(_) => Vec::new(),
            };
            let obstacle = target.copy_obstacle(&target.tree()?, &filled, &key)?;
            let attributes = target.attributes()?;
            let of_column = |column: &Column| {
                let attribute = attributes.iter().find(|attribute| attribute.name == column.name)?;
                Some((attribute.clone(), column.rule.kind()))
            };
            let (attributes, kinds): (Vec<_>, Vec<_>) = columns.iter().filter_map(of_column).unzip();
            Ok(obstacle.or_else(|| no_binary_form(&attributes, &kinds)))
        })
    }

    fn columns(&self) -> Vec<Column> {
        let column = |(name, rule): (&String, &Rule)| Column {
            name: name.clone(),
            rule: rule.clone(),
            limit: None,
            not_null: false,
            json: false,
        };
        self.definition.rules.iter().map(column).collect()
    }
}

impl InboxRecord {
    fn row(self) -> Result<Row, Error> {
        let Some(attached) = self.attached else {
            return Ok((self.view, self.owner, None, None, None, None, None, None, None, None));
        };
        let (found_by, obstacle) = (attached.found_by()?, attached.copy_obstacle(self.owner)?);
        memory::ensure(self.bytes.saturating_mul(JSON_BYTES))?;
        let Definition { rules, envelope, event, flush, .. } = attached.definition;
        let word = |value| match value {
            serde_json::Value::String(word) => Some(word),
            _ => None,
        };
        Ok((
            self.view,
            self.owner,
            Some(attached.target),
            Some(attached.rejects),
            Some(JsonB(json(rules)?)),
            word(json(envelope)?),
            word(json(event)?),
            Some(found_by),
            word(json(flush)?),
            obstacle,
        ))
    }
}

fn json(value: impl Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(value).map_err(Error::Definition)
}
