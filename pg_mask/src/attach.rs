//! `attach_inbox`: the view of an inbox and its three triggers.

use std::ffi::CStr;

use masking::{NotAPointer, Rule, memory};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use pgrx::{AnyElement, direct_function_call, varlena};

use crate::catalog::{Relation, look_up, select, unlogged};
use crate::error::Error;
use crate::inbox::{Definition, Inbox, JSON_BYTES, NotByCopy, hash, is_bound};
use crate::security::{
    as_owner, current_role, function, make_constraints_immediate, may_mask_under_a_key, must_have_rights_of,
    name_of_schema, with_catalog_path,
};
use crate::settings::default_scheme;
use crate::trial::random;
use crate::watch::Watch;

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

/// Makes the inbox, or gives an inbox another definition. Acts as the caller. `owner_to_be` says who owns a new view. `schema` is
/// the extension's.
///
/// The definition is checked first, down to the rights of the owner-to-be, so that what is wrong with it shows here
/// and not when the first events come.
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
    let mut relations = target.tree()?;
    relations.extend(rejects.tree()?);
    if !wanted.allow_unlogged
        && let Some(relation) = unlogged(&relations)?
    {
        return Err(Error::Unlogged { relation });
    }
    let watch = Watch::new(relations.clone());
    make_constraints_immediate();
    let (sees_index, copy_in) = as_owner(view.owner, || {
        let inbox = Inbox::compile(&definition, &target, &rejects, &watch)?;
        if inbox.rules.need_keys(default_scheme()) {
            may_mask_under_a_key(view.owner, schema)?;
        }
        inbox.target.probe()?;
        inbox.rejects.probe()?;
        Ok::<_, Error>((inbox.sees_index, inbox.copy_in))
    })?;
    view.make(&definition, schema)?;
    // What was made may be another one's by now, or bound to what has come to have a name.
    let made = View::named(&view.name, trigger_function, is_temporary, owner)?;
    let bound =
        made.owner == view.owner && made.oid.is_some_and(|oid| view.oid.is_none_or(|before| before == oid));
    if !bound || !made.is_bound(&definition, [target.oid, rejects.oid])? {
        return Err(Error::Replaced);
    }
    view.warn_of_owner()?;
    view.warn_of_stranger(owner)?;
    warn_of_paths(&relations)?;
    if !definition.rules.values().any(|rule| *rule == Rule::MessageId) {
        pgrx::warning!("no rule fills a column with message_id: a redelivered message will be stored again");
    } else if !sees_index {
        pgrx::warning!(
            "what stands behind {} must have a unique index on the message id: else a redelivered message will be \
             stored again",
            definition.target
        );
    }
    if let Err(NotByCopy::Obstacle(obstacle)) = copy_in {
        pgrx::notice!("rows go into {} by INSERT, which is slower than COPY: {obstacle}", definition.target);
    }
    Ok(())
}

/// Warns of functions in PL/pgSQL that triggers, CHECKs and defaults of these relations call, and that have no search path of their
/// own. A session compiles such a function once, under the path that it then has. So a role that inserts can choose what types
/// it names, and the code of a type's CHECK would run with the rights of the inbox's owner.
fn warn_of_paths(relations: &[pg_sys::Oid]) -> Result<(), Error> {
    let functions = select(
        "WITH callers AS (
             SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass AS class, oid FROM pg_catalog.pg_trigger WHERE tgrelid = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, oid FROM pg_catalog.pg_attrdef WHERE adrelid = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid FROM pg_catalog.pg_constraint
             WHERE conrelid = ANY ($1)
                OR contypid IN (SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = ANY ($1) AND NOT attisdropped)
         )
         SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, p.proname) COLLATE pg_catalog.\"C\"
         FROM callers c
         JOIN pg_catalog.pg_depend d ON d.classid = c.class AND d.objid = c.oid
              AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
         JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         JOIN pg_catalog.pg_language l ON l.oid = p.prolang
         WHERE l.lanname = 'plpgsql'
           AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) s (setting) WHERE s.setting LIKE 'search_path=%')
         ORDER BY 1",
        &[relations.to_vec().into()],
        |row| row.get::<String>(1),
    )?;
    let functions: Vec<_> = functions.into_iter().flatten().collect();
    if !functions.is_empty() {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("PL/pgSQL functions without a search path of their own run for each row: {}", functions.join(", ")),
            "pg_mask",
        )
        .set_hint(
            "A role that inserts can choose what their types mean, with the rights of the inbox's owner. ALTER FUNCTION ... SET \
             search_path = pg_catalog, pg_temp prevents that.",
        )
        .report(PgLogLevel::WARNING);
    }
    Ok(())
}

impl Wanted<'_> {
    /// Checks that there is memory for copies of the texts, as in an error that names one. Anyone can attach an inbox, and Rust
    /// aborts where memory runs out.
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
            // Many small allocations too: the error of one that fails is copied to where there is no room for it.
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

/// The view of an inbox.
struct View {
    /// Schema-qualified and quoted as SQL needs it.
    name: String,
    /// The name under which a new one is made, and the one that it gets last, both as SQL needs them. See `make`.
    to_be: Option<[String; 2]>,
    /// None where it is still to be made.
    oid: Option<pg_sys::Oid>,
    /// Its owner, now or once it is made.
    owner: pg_sys::Oid,
}

impl View {
    /// Looks for the view of this name, and decides where it will be made if there is none.
    ///
    /// Replacing somebody's own view by an inbox would lose it. Taking over a view that somebody prepared would be worse:
    /// its owner and any other trigger of it would see raw events. So what exists is an error unless it is an inbox with
    /// nothing else to it, of an owner whose rights the caller has.
    fn named(
        name: &str,
        trigger_function: pg_sys::Oid,
        is_temporary: bool,
        owner_to_be: pg_sys::Oid,
    ) -> Result<Self, Error> {
        let Some(oid) = look_up(name)? else {
            let [schema, view] = name_to_be(name, is_temporary)?.map(quote_identifier);
            let name = format!("{schema}.{view}");
            let made_as = format!("{schema}.{}", quote_identifier(random().as_text()));
            return Ok(Self { name, to_be: Some([made_as, view]), oid: None, owner: owner_to_be });
        };
        let existing = select(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner,
                    c.relkind = 'v'
                    AND NOT EXISTS (
                        SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid
                        AND (t.tgfoid <> $2 OR t.tgname <> ALL (ARRAY['pg_mask_open', 'pg_mask_row', 'pg_mask_close'])))
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN')
                    -- Its triggers are gone where the extension was dropped.
                    AND (EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid)
                         OR pg_catalog.pg_get_viewdef(c.oid) ~ 'WHERE \\(false AND \\(''[0-9a-f]{64}''(::text)? IS NULL\\)\\);$')
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[oid.into(), trigger_function.into()],
            |row| Ok((row.get::<String>(1)?, row.get::<pg_sys::Oid>(2)?, row.get::<bool>(3)?)),
        )?;
        match existing.into_iter().next() {
            Some((Some(name), Some(owner), Some(true))) => {
                must_have_rights_of(owner, oid);
                Ok(Self { name, to_be: None, oid: Some(oid), owner })
            }
            _ => Err(Error::NotAnInbox { inbox: name.to_owned() }),
        }
    }

    /// Makes the view and its triggers, with the caller's rights, and gives a new view to its owner.
    ///
    /// Each statement looks the name up again. The owner of the schema could rename it in between, and put a view of theirs in
    /// the place of ours. A superuser would then give that view to another role, whose tables it could read. So a new view
    /// has a name that nobody can guess until all is done.
    fn make(&self, definition: &Definition, schema: pg_sys::Oid) -> Result<(), Error> {
        let argument = serde_json::to_string(definition).map_err(Error::Definition)?;
        let function = format!("{}.inbox_trigger", quote_identifier(name_of_schema(schema)?));
        let inbox = self.to_be.as_ref().map_or(&self.name, |[made_as, _]| made_as);
        let kind = match &self.to_be {
            None => "OR REPLACE",
            // It would be one anyway, with a notice that tells the name.
            Some(_) if inbox.starts_with("pg_temp.") => "TEMPORARY",
            Some(_) => "",
        };
        let mut statements = vec![
            // The tables stand there so that the inbox is bound to them and not to their names, and the hash so that only
            // the view's owner can change the definition: see `inbox::is_bound`. From two tables, so that Postgres cannot
            // take it for an updatable view and write rows anywhere by itself.
            format!(
                "CREATE {kind} VIEW {inbox} (message_id, sent_at, body) AS
                 SELECT NULL::pg_catalog.uuid, NULL::pg_catalog.timestamptz, NULL::pg_catalog.text
                 FROM {} AS target, {} AS rejects WHERE false AND {} IS NULL",
                definition.target,
                definition.rejects,
                quote_literal(hash(&argument)?)
            ),
            format!("COMMENT ON VIEW {inbox} IS 'inbox of pg_mask: takes raw events, stores none'"),
        ];
        for (name, moment, each, argument) in [
            ("pg_mask_open", "BEFORE", "STATEMENT", String::new()),
            ("pg_mask_row", "INSTEAD OF", "ROW", quote_literal(&argument)),
            ("pg_mask_close", "AFTER", "STATEMENT", String::new()),
        ] {
            statements.push(format!(
                "CREATE OR REPLACE TRIGGER {name} {moment} INSERT ON {inbox}
                 FOR EACH {each} EXECUTE FUNCTION {function}({argument})"
            ));
        }
        with_catalog_path(|| {
            if let Some([_, view]) = &self.to_be {
                statements.push(format!("ALTER VIEW {inbox} RENAME TO {view}"));
                // Before there are triggers, so that nobody can insert or make one of their own in between.
                Spi::run(&statements.remove(0))?;
                for grantee in grantees(inbox)? {
                    Spi::run(&format!("REVOKE ALL ON {inbox} FROM {grantee}"))?;
                }
                if self.owner != current_role() {
                    Spi::run(&format!("ALTER VIEW {inbox} OWNER TO {}", self.owner_name()?))?;
                }
            }
            statements.iter().try_for_each(|statement| Spi::run(statement))?;
            Ok(())
        })
    }

    /// Returns the owner as SQL names it.
    fn owner_name(&self) -> Result<String, Error> {
        let names = select(
            "SELECT pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles r WHERE r.oid = $1",
            &[self.owner.into()],
            |row| row.get::<String>(1),
        )?;
        names.into_iter().flatten().next().ok_or(Error::Replaced)
    }

    /// Whether the view has this definition, of these relations.
    fn is_bound(&self, definition: &Definition, relations: [pg_sys::Oid; 2]) -> Result<bool, Error> {
        let argument = serde_json::to_string(definition).map_err(Error::Definition)?;
        self.oid.map_or(Ok(false), |oid| is_bound(oid, &argument, relations))
    }

    /// Warns a superuser who takes over an inbox that another role made than the tables' owner: it sees raw events.
    fn warn_of_stranger(&self, owner_to_be: pg_sys::Oid) -> Result<(), Error> {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: a plain call.
        let superuser = unsafe { pg_sys::superuser() };
        if superuser && self.owner != owner_to_be {
            let names = select(
                "SELECT pg_catalog.quote_ident(pg_catalog.pg_get_userbyid($1)), pg_catalog.quote_ident(pg_catalog.pg_get_userbyid($2))",
                &[self.owner.into(), owner_to_be.into()],
                |row| Ok((row.get::<String>(1)?, row.get::<String>(2)?)),
            )?;
            let (owner, owner_to_be) = names.into_iter().next().unwrap_or_default();
            let [owner, owner_to_be] = [owner, owner_to_be].map(Option::unwrap_or_default);
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!("inbox {} belongs to {owner}, who can see raw events", self.name),
                "pg_mask",
            )
            .set_hint(format!("If that is not meant: ALTER VIEW {} OWNER TO {owner_to_be}.", self.name))
            .report(PgLogLevel::WARNING);
        }
        Ok(())
    }

    /// Warns where events are written with more rights than a flush needs.
    fn warn_of_owner(&self) -> Result<(), Error> {
        let superuser = select(
            "SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.oid = $1 AND r.rolsuper",
            &[self.owner.into()],
            |row| row.get::<String>(1),
        )?;
        if let Some(Some(owner)) = superuser.first() {
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!("inbox {} is owned by {owner}, a superuser, with whose rights events are written", self.name),
                "pg_mask",
            )
            .set_hint(format!(
                "Make a role that can only write its tables the owner: ALTER VIEW {} OWNER TO ..., and the tables too.",
                self.name
            ))
            .report(PgLogLevel::WARNING);
        }
        Ok(())
    }
}

/// Returns the owner that a new inbox gets: the caller, unless that is a superuser.
///
/// Triggers and types of the tables run code of their owners when a row is stored, and in the trial without a row. A superuser
/// who makes an inbox must not lend them all rights. So the inbox gets the owner of the target. Where a superuser owns the
/// target, it gets the owner of the rejects table.
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

/// Returns those to whom default privileges gave rights on a view that was just made, as SQL names them.
fn grantees(view: &str) -> Result<Vec<String>, Error> {
    let grantees = select(
        "SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END
         FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
         LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
         WHERE c.oid = pg_catalog.to_regclass($1) AND a.grantee <> c.relowner",
        &[view.into()],
        |row| row.get::<String>(1),
    )?;
    Ok(grantees.into_iter().flatten().collect())
}

/// Whether a relation is a temporary one.
fn is_temporary(relation: pg_sys::Oid) -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call; the relation was just read from the catalogs.
    let persistence = unsafe { pg_sys::get_rel_persistence(relation) };
    persistence.cast_unsigned() == pg_sys::RELPERSISTENCE_TEMP
}

/// Returns the schema and the name of a view that does not exist yet, as the caller wrote it. The schema is the one that CREATE
/// VIEW would choose.
fn name_to_be(name: &str, is_temporary: bool) -> Result<[String; 2], Error> {
    // Outside of `select`, which would choose pg_catalog. Only what is qualified stands in it.
    let chosen = Spi::connect(|client| {
        let rows = client.select("SELECT pg_catalog.current_schema()::pg_catalog.text", None, &[])?;
        rows.first().get::<String>(1)
    })?;
    // CREATE VIEW makes a view on a temporary table a temporary one.
    let chosen = if is_temporary { Some("pg_temp".to_owned()) } else { chosen };
    let parts = select("SELECT pg_catalog.parse_ident($1)", &[name.into()], |row| row.get::<Vec<String>>(1))?;
    match (parts.into_iter().flatten().next().as_deref(), chosen) {
        (Some([view]), Some(schema)) => Ok([schema, view.clone()]),
        (Some([schema, view]), _) => Ok([schema.clone(), view.clone()]),
        _ => Err(Error::NoSchema { inbox: name.to_owned() }),
    }
}
