//! The reasons for having no key ring.

use std::ffi::CString;
use std::io;

use masking::keyring::{RingError, key_form};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The reason for having no key ring.
pub(crate) enum NoRing {
    /// No setting says where one is.
    NotConfigured,
    /// Two settings say where one is.
    BothConfigured,
    /// The file cannot be read.
    Unreadable(Origin, io::Error),
    /// The file isn't a regular file, or users other than the server's can read or change it.
    Exposed(Origin),
    /// The command could not be run, or exited with a failure.
    Failed(String),
    /// The ring's text is longer than any ring.
    TooLong(Origin),
    /// The text cannot be parsed as a ring.
    RingError(Origin, RingError),
}

/// The source of a ring, as errors name it. A file is named by its path. A command's text is never shown, because it may
/// hold a secret.
pub(crate) enum Origin {
    File(CString),
    Command,
}

impl NoRing {
    /// Returns the report. It names the file only if `path` says that its recipient may know it. The server's log always
    /// names it.
    pub(crate) fn report(&self, path: bool) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let name = |origin: &Origin| match origin {
            Origin::File(file) if path => format!("key ring {file:?}"),
            Origin::File(_) => "the key ring's file".into(),
            Origin::Command => "what pg_mask.keyring_command printed".into(),
        };
        let report = |code: Code, message: String| ErrorReport::new(code, message, "pg_mask");
        match self {
            Self::NotConfigured => {
                report(Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "there is no key ring".into()).set_hint(
                    "Set pg_mask.keyring_file or pg_mask.keyring_command in postgresql.conf, and reload.",
                )
            }
            Self::BothConfigured => report(
                Code::ERRCODE_CONFIG_FILE_ERROR,
                "pg_mask.keyring_file and pg_mask.keyring_command are both set".into(),
            )
            .set_hint("Only one of them can say where the key ring is."),
            Self::Unreadable(origin, error) => report(
                if error.kind() == std::io::ErrorKind::NotFound {
                    Code::ERRCODE_UNDEFINED_FILE
                } else {
                    Code::ERRCODE_IO_ERROR
                },
                format!("{} cannot be read: {error}", name(origin)),
            ),
            Self::Exposed(origin) => report(
                Code::ERRCODE_CONFIG_FILE_ERROR,
                format!("{} is not private", name(origin)),
            )
            .set_hint(
                "It must be a regular file with permissions u=rw (0600) or less if the server's user owns it, or \
                 u=rw,g=r (0640) or less if root does.",
            ),
            Self::Failed(why) => report(
                Code::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                format!("pg_mask.keyring_command failed: {why}"),
            )
            .set_hint("What it said of that itself is in the server's log."),
            Self::TooLong(origin) => {
                report(Code::ERRCODE_CONFIG_FILE_ERROR, format!("{} is longer than any key ring", name(origin)))
            }
            Self::RingError(origin, wrong) => {
                report(Code::ERRCODE_CONFIG_FILE_ERROR, format!("{}: {wrong}", name(origin))).set_hint(format!(
                    "A key ring is {{\"primary\": id, \"keys\": [{{\"id\": id, \"key\": {}, \"state\": \"active\" or \
                     \"retired\"}}]}}.",
                    key_form()
                ))
            }
        }
    }
}

/// Whether the current user may see settings that are hidden from ordinary users.
pub(crate) fn may_see_settings() -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call with a role that every cluster has.
    unsafe {
        pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_SETTINGS))
    }
}
