//! Safe wrappers around Postgres's C functions, for the other modules.
//!
//! | module | holds |
//! |---|---|
//! | `catalog`, `names` | relations, columns and their names, from the catalogs |
//! | `security`, `cursors`, `utility` | the rights and settings that code runs with, and what it must not reach |
//! | `plan`, `relcache` | statements bound to their relations, and changes of relations |
//! | `transaction`, `subtransaction` | the ends of both, and errors caught in one |
//! | `process`, `message_end` | the process, and the end of the client's message |
//! | `text`, `values`, `arrays`, `random` | values as Postgres keeps them |
//! | `log` | lines for the server's log, and what must stay out of it |
//! | `reserve` | memory held back for errors |
//! | `state` | state of the session |
//! | `unguarded` | functions that pgrx's guard would slow down |
//! | `compat` | everything that differs between versions of Postgres |

pub(crate) mod arrays;
pub(crate) mod catalog;
pub(crate) mod compat;
pub(crate) mod cursors;
pub(crate) mod log;
pub(crate) mod message_end;
pub(crate) mod names;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod relcache;
pub(crate) mod reserve;
pub(crate) mod security;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod subtransaction;
pub(crate) mod text;
pub(crate) mod transaction;
pub(crate) mod unguarded;
pub(crate) mod utility;
pub(crate) mod values;
