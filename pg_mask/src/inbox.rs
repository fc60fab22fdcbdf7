//! Inboxes: their definition, the trigger function, batches of rows, and redriving rejects.
//!
//! | module | holds |
//! |---|---|
//! | `attach` | `attach_inbox`: the view and its triggers |
//! | `definition` | the rules of an inbox, checked against the catalogs |
//! | `list`, `problems` | what an inbox is, and what is wrong with one, from the catalogs |
//! | `attached` | an inbox that a function is called with, locked |
//! | `trigger`, `messages` | the trigger function, and the rows that it gets |
//! | `batch`, `flush`, `rejects` | the rows of a statement, and writing them |
//! | `trial` | a row that is written and rolled back |
//! | `redrive` | rejects that go back into their inbox |

pub(crate) mod attach;
pub(crate) mod attached;
pub(crate) mod batch;
pub(crate) mod definition;
pub(crate) mod flush;
pub(crate) mod list;
pub(crate) mod messages;
pub(crate) mod problems;
pub(crate) mod redrive;
pub(crate) mod rejects;
pub(crate) mod trial;
pub(crate) mod trigger;
