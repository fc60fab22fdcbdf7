//! Memory held back for the moment when there is no more.
//!
//! pgrx copies an error that it catches into the current memory context, and Rust allocates strings for it. Where `malloc`
//! fails, the copy of "out of memory" raises the same error, until Postgres gives up with PANIC. A failed allocation of
//! Rust's aborts. Both restart every session of the server. So this library returns memory to `malloc` when Postgres raises
//! that error, and when a small allocation of Rust's fails.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::PgTryBuilder;

use crate::pg::transaction::{SubtransactionEnd, at_subtransaction_end};
use crate::pg::unguarded::{OUT_OF_MEMORY, geterrcode, raise_out_of_memory};

/// A memory context tries for blocks of down to 1 MB (`AllocSetAlloc`).
static RESERVE: Reserve = Reserve::of(2 << 20);

/// Memory that is allocated and not touched, so that it takes address space only.
struct Reserve {
    layout: Layout,
    memory: AtomicPtr<u8>,
    /// Whether it was returned and is not held again.
    is_released: AtomicBool,
}

#[expect(unsafe_code, reason = "allocates")]
impl Reserve {
    const fn of(bytes: usize) -> Self {
        let Ok(layout) = Layout::from_size_align(bytes, 16) else { panic!("the size is out of range") };
        Self { layout, memory: AtomicPtr::new(ptr::null_mut()), is_released: AtomicBool::new(false) }
    }

    /// Allocates the memory if it isn't held. Returns whether it is held now.
    fn hold(&self) -> bool {
        if !self.memory.load(Relaxed).is_null() {
            return true;
        }
        // SAFETY: the size is not zero.
        let memory = unsafe { System.alloc(self.layout) };
        self.memory.store(memory, Relaxed);
        self.is_released.store(memory.is_null(), Relaxed);
        !memory.is_null()
    }

    /// Returns the memory to `malloc`, for what is allocated next. Returns whether it was held.
    fn release(&self) -> bool {
        let memory = self.memory.swap(ptr::null_mut(), Relaxed);
        if memory.is_null() {
            return false;
        }
        self.is_released.store(true, Relaxed);
        // SAFETY: `hold` allocated it with this layout, and the swap above hands it out only once.
        unsafe { System.dealloc(memory, self.layout) };
        true
    }
}

/// Has the reserve held again whenever a subtransaction is rolled back. A trigger of a target can catch the error, and must
/// not get the memory for itself.
pub(crate) fn register() {
    fn ends(_: pg_sys::SubTransactionId, end: SubtransactionEnd) {
        if end == SubtransactionEnd::RolledBack && RESERVE.is_released.load(Relaxed) {
            RESERVE.hold();
        }
    }
    at_subtransaction_end(ends);
}

/// The allocator of this library. A small allocation that fails is tried again with the reserved memory. Larger ones are
/// made by code that takes a failure as an error (`masking::memory`).
pub(crate) struct Allocator;

impl Allocator {
    fn again(size: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
        // As much as a list with a number for each row of a chunk.
        const SMALL: usize = 512 << 10;
        let memory = allocate();
        if memory.is_null() && size <= SMALL && RESERVE.release() { allocate() } else { memory }
    }
}

#[expect(unsafe_code, reason = "the trait's functions are unsafe")]
// SAFETY: each call goes to the system's allocator, once or twice.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        Self::again(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        Self::again(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise. A failed attempt leaves the memory as it is.
        Self::again(size, || unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }
}

/// Holds the reserve while a function that SQL calls runs. It is the function's first parameter, so that memory is held
/// before pgrx reads the other arguments; SQL does not see it.
pub(crate) struct ReserveGuard(());

impl ReserveGuard {
    /// Holds the reserve, or raises "out of memory". Nothing that needs dropping may be on the stack.
    #[inline]
    pub(crate) fn hold() -> Self {
        if !RESERVE.hold() {
            raise_out_of_memory();
        }
        watch_errors();
        Self(())
    }
}

impl Drop for ReserveGuard {
    /// Lets the error that ends the function be reported from Postgres's `ErrorContext`, which always has some memory. The
    /// report begins after this, and the function's own context may be full.
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(unsafe_code, reason = "sets a variable of the backend")]
            // SAFETY: as `errfinish` does; the code that catches an error chooses its context.
            unsafe {
                pg_sys::CurrentMemoryContext = pg_sys::ErrorContext;
            }
        }
    }
}

/// Ends the chain of error contexts with [`release_at_out_of_memory`], which Postgres calls before it throws an error.
///
/// The entry is static, so it may stay in the chain. The chain is short: an entry for each function and statement that runs.
#[expect(unsafe_code, reason = "follows Postgres's list")]
fn watch_errors() {
    // SAFETY: an entry of the chain lives on the stack of a function that runs, and only this thread follows the chain.
    unsafe {
        let mut link = &raw mut pg_sys::error_context_stack;
        while !(*link).is_null() {
            if *link == watcher() {
                return;
            }
            link = &raw mut (**link).previous;
        }
        *link = watcher();
    }
}

/// Returns a chain of error contexts with nothing but the watcher for "out of memory".
pub(crate) fn watcher() -> *mut pg_sys::ErrorContextCallback {
    static mut WATCHER: pg_sys::ErrorContextCallback = pg_sys::ErrorContextCallback {
        previous: ptr::null_mut(),
        callback: Some(release_at_out_of_memory),
        arg: ptr::null_mut(),
    };
    &raw mut WATCHER
}

/// Not guarded by pgrx: it does not panic, and has nothing to drop when it raises an error.
#[expect(unsafe_code, reason = "called by Postgres")]
unsafe extern "C-unwind" fn release_at_out_of_memory(_argument: *mut c_void) {
    match geterrcode() {
        OUT_OF_MEMORY => _ = RESERVE.release(),
        code if is_error(code) => ensure_copy_of_report(),
        _ => {}
    }
}

/// Whether a SQLSTATE is an error's. Notices and warnings have the classes 00 to 02.
pub(crate) fn is_error(code: i32) -> bool {
    /// The first two characters of a SQLSTATE: six bits each (`MAKE_SQLSTATE` in elog.h).
    const CLASS: i32 = 0xFFF;
    !(0..=2).any(|second| code & CLASS == second << 6)
}

/// Raises "out of memory" in place of an error whose texts are too long for pgrx to copy: it aborts where it can't.
fn ensure_copy_of_report() {
    /// Texts of this length have room in the reserve.
    const SHORT: usize = 64 << 10;
    #[expect(unsafe_code, reason = "reads a variable of the backend")]
    // SAFETY: the context lives as long as the process. The report that Postgres makes has its texts there (elog.c).
    let bytes = unsafe { (*pg_sys::ErrorContext).mem_allocated };
    // pgrx copies each text twice.
    if bytes > SHORT && masking::memory::ensure(bytes.saturating_mul(4)).is_err() {
        raise_out_of_memory();
    }
}

/// Uses what allocates at its first use, and where that fails ends the process: a thread-local of pgrx's, in which it notes
/// where an error was raised.
pub(crate) fn prepare() {
    let _reserve = ReserveGuard::hold();
    // What is held is there to be allocated now.
    RESERVE.release();
    PgTryBuilder::new(|| pgrx::error!("pg_mask prepares for errors")).catch_others(|_| ()).execute();
    ReserveGuard::hold();
}

#[expect(unsafe_code, reason = "pgrx asks how a function takes it")]
// SAFETY: it reads no argument.
unsafe impl<'fcx> ArgAbi<'fcx> for ReserveGuard {
    unsafe fn unbox_arg_unchecked(_: Arg<'_, 'fcx>) -> Self {
        Self::hold()
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

#[expect(unsafe_code, reason = "pgrx asks for the SQL type of a parameter")]
// SAFETY: SQL does not see it.
unsafe impl SqlTranslatable for ReserveGuard {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(ReserveGuard);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}
