//! The shared memory that holds the statistics.

use std::cell::{Cell, OnceCell};
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::inboxes::Inbox;
use super::roles::Role;
use super::slots::Slots;
use crate::pg::compat::ADDIN_SHMEM_INIT_LOCK;

/// All statistics in shared memory. All zeros is a valid value without any counts. They take 27 kB of the 100 kB that
/// Postgres reserves for libraries that are not preloaded.
#[repr(C)]
pub(super) struct Statistics {
    pub(super) inboxes: Slots<Inbox>,
    pub(super) roles: Slots<Role>,
}

thread_local! {
    /// None if there is no room in shared memory.
    static SHARED: OnceCell<Option<&'static Statistics>> = const { OnceCell::new() };
    static NEXT_HOOK: Cell<pg_sys::shmem_request_hook_type> = const { Cell::new(None) };
}

/// Returns the shared memory, created by the first session that uses it.
pub(super) fn shared() -> Option<&'static Statistics> {
    SHARED.with(|shared| {
        *shared.get_or_init(|| {
            let found = attach();
            if found.is_none() {
                pgrx::warning!(
                    "no statistics are kept: there is no room for them in shared memory; with pg_mask in \
                     shared_preload_libraries there is"
                );
            }
            found
        })
    })
}

/// Finds or creates the memory. No subtransaction catches the error if there is no room, because none can begin while a
/// parallel query runs.
#[expect(unsafe_code, reason = "calls Postgres")]
fn attach() -> Option<&'static Statistics> {
    // Other sessions may have loaded another version of the library, with other classes.
    let size = size_of::<Statistics>();
    let name = format!("pg_mask statistics {} {size}\0", env!("CARGO_PKG_VERSION"));
    // SAFETY: the name ends in a NUL, and is copied. Before ShmemInitStruct (shmem.c) raises an error, it has released its
    // own lock and made nothing. So only our lock is left to release. The error has let interrupts in again (errfinish,
    // elog.c). The release expects them to be held, so they are held again, as in LWLockReleaseAll (lwlock.c).
    //
    // The memory has the size asked for, is aligned to more than a counter is, and stays until the process ends. Nobody else
    // looks at it before it is zeroed, because they need the lock for that. Zeros are a valid value, and from then on all
    // access is atomic.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        locked(|| {
            let mut found = false;
            let memory = PgTryBuilder::new(AssertUnwindSafe(|| {
                pg_sys::ShmemInitStruct(name.as_ptr().cast(), size, &raw mut found).cast::<Statistics>()
            }))
            .catch_others(|_| std::ptr::null_mut())
            .execute();
            if memory.is_null() {
                pg_sys::MemoryContextSwitchTo(context);
                pg_sys::InterruptHoldoffCount += 1;
            } else if !found {
                memory.write_bytes(0, 1);
            }
            memory.as_ref()
        })
    }
}

/// Runs `act` with the lock under which libraries set up their shared memory.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(super) fn locked<R>(act: impl FnOnce() -> R) -> R {
    // SAFETY: the array has a lock for each of Postgres's own numbers. The acquired lock is released; after an error, the
    // end of the (sub)transaction releases it.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let result = act();
        pg_sys::LWLockRelease(lock);
        result
    }
}

/// Requests the space while the server starts.
pub(crate) fn preload() {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[expect(
        ffi_unwind_calls,
        reason = "an error of another library's goes through; it ends the server's start"
    )]
    #[pg_guard]
    unsafe extern "C-unwind" fn request() {
        // SAFETY: this hook is the place to request space. The hook before it is a function of another library.
        unsafe {
            if let Some(next) = NEXT_HOOK.get() {
                next();
            }
            pg_sys::RequestAddinShmemSpace(size_of::<Statistics>());
        }
    }
    #[expect(unsafe_code, reason = "sets a variable")]
    // SAFETY: libraries are loaded one after another.
    unsafe {
        NEXT_HOOK.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(request);
    }
}
