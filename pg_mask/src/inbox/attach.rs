//! `attach_inbox`: checks what it is given, and makes the view of an inbox with its three triggers.

mod view;

use std::ffi::CStr;

use masking::{NotAPointer, memory};
use pgrx::pg_sys;
use pgrx::{AnyElement, direct_function_call, varlena};

use crate::error::Error;
use crate::inbox::definition::{Definition, Inbox, JSON_BYTES, NotByCopy};
use crate::inbox::list;
use crate::inbox::problems::Problem;
use crate::pg::catalog::{Relation, look_up, select, unlogged};
use crate::pg::compat::letter;
use crate::pg::relcache::Watch;
use crate::pg::security::{
    as_owner, current_role, function, make_constraints_immediate, may_mask_under_a_key,
};
use crate::settings::default_scheme;
use view::View;

/// The arguments of `attach_inbox`, as the caller wrote them.
pub(crate) struct Wanted<'a> {
    pub(crate) inbox: &'a str,
    pub(crate) target: &'a str,
    pub(crate) rejects: &'a str,
    /// A jsonb.
    pub(crate) rules: AnyElement,
    pub(crate) flush: &'a str,
    pub(crate) envelope: &'a str,
    pub(crate) event: &'a str,
    pub(crate) allow_unlogged: bool,
}

/// Creates the inbox, or gives an existing one another definition. Acts as the caller. `owner_to_be` chooses the owner of a
/// new view. `schema` is the extension's.
///
/// The definition is checked first, including the future owner's privileges. So its errors show here, and not when the first
/// events arrive.
pub(crate) fn attach(wanted: &Wanted<'_>, schema: pg_sys::Oid) -> Result<(), Error> {
    wanted.ensure_memory()?;
    let (target, rejects) = (relation(wanted.target)?, relation(wanted.rejects)?);
    let definition = Definition {
        target: target.name.clone(),
        rejects: rejects.name.clone(),
        rules: serde_json::from_value(wanted.rules()?).map_err(Error::Definition)?,
        flush: serde_json::from_value(wanted.flush.into()).map_err(|_| Error::UnknownFlush)?,
        envelope: serde_json::from_value(wanted.envelope.into()).map_err(|_| Error::UnknownEnvelope)?,
        event: wanted.event.parse().map_err(|NotAPointer| Error::NotAPointer)?,
    };
    let trigger_function = function(schema, c"inbox_trigger", &[]);
    let is_temporary = is_temporary(target.oid) || is_temporary(rejects.oid);
    let owner = owner_to_be(&target, &rejects)?;
    let view = View::named(wanted.inbox, trigger_function, is_temporary, owner)?;
    view.must_suit([target.oid, rejects.oid])?;
    let mut relations = target.tree()?;
    relations.extend(rejects.tree()?);
    if !wanted.allow_unlogged
        && let Some(relation) = unlogged(&relations)?
    {
        return Err(Error::Unlogged { relation });
    }
    let watch = Watch::new(relations.clone());
    make_constraints_immediate();
    let copy_in = as_owner(view.owner, || {
        let inbox = Inbox::compile(&definition, &target, &rejects, &watch)?;
        if inbox.rules.need_keys(default_scheme()) {
            may_mask_under_a_key(view.owner, schema)?;
        }
        inbox.target.probe()?;
        inbox.rejects.probe()?;
        Ok::<_, Error>(inbox.copy_in)
    })?;
    view.make(&definition, schema)?;
    // The created view may have been replaced by another, or bound to relations that took over a name.
    let made = View::named(&view.name, trigger_function, is_temporary, owner)?;
    let bound =
        made.owner == view.owner && made.oid.is_some_and(|oid| view.oid.is_none_or(|before| before == oid));
    if !bound || !made.is_bound(&definition, [target.oid, rejects.oid])? {
        return Err(Error::Replaced);
    }
    for inbox in list::inboxes(trigger_function, made.oid)? {
        let told = |problem: &Problem| ["owner", "unique_index", "paths"].contains(&problem.item);
        inbox.problems(trigger_function)?.into_iter().filter(told).for_each(Problem::warn);
    }
    view.warn_of_stranger(owner)?;
    if let Err(NotByCopy::Obstacle(obstacle)) = copy_in {
        pgrx::notice!("rows go into {} by INSERT, which is slower than COPY: {obstacle}", definition.target);
    }
    Ok(())
}

impl Wanted<'_> {
    /// Checks that there is memory for copies of the texts, for example in an error that names one. Anyone can attach an
    /// inbox, and Rust aborts when memory runs out.
    fn ensure_memory(&self) -> Result<(), Error> {
        const COPIES: usize = 8;
        let texts = [self.inbox, self.target, self.rejects, self.flush, self.envelope, self.event];
        memory::ensure(texts.map(str::len).iter().sum::<usize>().saturating_mul(COPIES))?;
        Ok(())
    }

    /// Reads the rules.
    fn rules(&self) -> Result<serde_json::Value, Error> {
        #[expect(unsafe_code, reason = "calls functions of Postgres's by what they are in C")]
        // SAFETY: the functions take a jsonb, which the argument is. The text lives as long as the call of attach_inbox.
        let text = unsafe {
            let jsonb = pg_sys::pg_detoast_datum_packed(self.rules.datum().cast_mut_ptr());
            // This includes many small allocations: if one fails, its error is copied, and there must be room for the copy.
            memory::ensure(varlena::varsize_any(jsonb).saturating_mul(JSON_BYTES))?;
            direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(jsonb.into())])
        };
        let text = text.unwrap_or_default().to_bytes();
        memory::ensure(text.len().saturating_mul(JSON_BYTES))?;
        serde_json::from_slice(text).map_err(Error::Definition)
    }
}

fn relation(name: &str) -> Result<Relation, Error> {
    Relation::open(look_up(name)?.ok_or_else(|| Error::NoRelation { relation: name.to_owned() })?)
}

/// Returns the owner for a new inbox: the caller, unless the caller is a superuser.
///
/// The tables' triggers and types run code of their owners when a row is stored, and in the trial without a row. A superuser
/// who creates an inbox must not lend those owners all privileges. So the inbox gets the owner of the target. If a superuser
/// owns the target, it gets the owner of the rejects table.
fn owner_to_be(target: &Relation, rejects: &Relation) -> Result<pg_sys::Oid, Error> {
    let caller = current_role();
    let owners = select(
        "SELECT CASE WHEN caller.rolsuper THEN c.relowner ELSE caller.oid END
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles o ON o.oid = c.relowner, pg_catalog.pg_roles caller
         WHERE caller.oid = $1 AND c.oid IN ($2, $3)
         ORDER BY o.rolsuper, c.oid = $2 DESC",
        &[caller.into(), target.oid.into(), rejects.oid.into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    owners.into_iter().flatten().next().ok_or(Error::Replaced)
}

/// Whether a relation is temporary.
fn is_temporary(relation: pg_sys::Oid) -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call; the relation was just read from the catalogs.
    let persistence = unsafe { pg_sys::get_rel_persistence(relation) };
    letter(persistence) == pg_sys::RELPERSISTENCE_TEMP
}
