//! Memory that core dumps leave out.

use std::ops::Deref;
use std::ptr::NonNull;

use memmap2::{Advice, MmapMut};

/// A value in memory of its own. The kernel and debuggers leave it out of core dumps, in this process and in forked ones.
pub(crate) struct NoDump<T> {
    value: NonNull<T>,
    /// The memory that holds the value.
    _memory: MmapMut,
}

impl<T> NoDump<T> {
    pub(super) fn new(value: T) -> Self {
        let mut memory = MmapMut::map_anon(size_of::<T>()).expect("a few pages of memory");
        memory.advise(Advice::DontDump).expect("advice that every Linux takes");
        let place = NonNull::from(&mut *memory).cast::<T>();
        #[expect(unsafe_code, reason = "puts a value in its place")]
        // SAFETY: the memory is as large as asked for, aligned to a page, and nobody else's.
        unsafe {
            place.write(value);
        }
        Self { value: place, _memory: memory }
    }
}

impl<T> Deref for NoDump<T> {
    type Target = T;

    fn deref(&self) -> &T {
        #[expect(unsafe_code, reason = "lends out the value")]
        // SAFETY: the value lives as long as `self`, and is only changed through it.
        unsafe {
            self.value.as_ref()
        }
    }
}

impl<T> Drop for NoDump<T> {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "drops the value, which wipes it")]
        // SAFETY: the value is there and isn't used again. Its memory is released after this.
        unsafe {
            self.value.drop_in_place();
        }
    }
}
