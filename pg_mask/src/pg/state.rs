//! The state of a session: thread-locals that are never dropped. A backend is one thread, and exits as a whole.
//!
//! A thread-local with a destructor allocates at its first use. Where memory has run out, glibc ends the process then, and
//! Postgres restarts every session.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::thread::LocalKey;

/// A value of the session.
pub(crate) type SessionCell<T> = ManuallyDrop<RefCell<T>>;

/// Returns a value of the session.
pub(crate) const fn session_cell<T>(value: T) -> SessionCell<T> {
    ManuallyDrop::new(RefCell::new(value))
}

/// Access to a value of the session, by the names that the standard library has for a `RefCell`.
pub(crate) trait SessionState<T> {
    /// Calls `act` with the value.
    fn with_borrow<R>(&'static self, act: impl FnOnce(&T) -> R) -> R;
    /// Calls `act` with the value, which it can change.
    fn with_borrow_mut<R>(&'static self, act: impl FnOnce(&mut T) -> R) -> R;

    /// Replaces the value.
    fn set(&'static self, value: T) {
        drop(self.with_borrow_mut(|current| std::mem::replace(current, value)));
    }

    /// Takes the value, and leaves the default.
    fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with_borrow_mut(std::mem::take)
    }
}

impl<T: 'static> SessionState<T> for LocalKey<SessionCell<T>> {
    fn with_borrow<R>(&'static self, act: impl FnOnce(&T) -> R) -> R {
        self.with(|state| act(&state.borrow()))
    }

    fn with_borrow_mut<R>(&'static self, act: impl FnOnce(&mut T) -> R) -> R {
        self.with(|state| act(&mut state.borrow_mut()))
    }
}
