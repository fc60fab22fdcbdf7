//! Wipes the traces that the use of keys leaves in a backend.

use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;

use masking::keyring::KeyRing;
use pgrx::prelude::*;

use crate::pg::message_end::at_end_of_message;

thread_local! {
    /// Whether keys were used during the client's current message, so that traces of them may be left.
    static TO_WIPE: Cell<bool> = const { Cell::new(false) };
    /// A ring with nothing to hide, for `wipe`.
    static DECOY: ManuallyDrop<KeyRing> = ManuallyDrop::new(KeyRing::of_zeros());
}

/// Wipes traces of keys when Postgres is done with the client's current message.
pub(super) fn wipe_after_message() {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[pg_guard]
    unsafe extern "C-unwind" fn message_ends(_argument: *mut c_void) {
        TO_WIPE.set(false);
        wipe();
    }
    if !TO_WIPE.get() && at_end_of_message(message_ends) {
        TO_WIPE.set(true);
    }
}

/// Overwrites the traces of keys that returned functions left: on the stack, and in the registers that ciphers use. Registers
/// keep their contents until something else needs them, for hours in an idle backend. Core dumps hold both.
///
/// Its own frame is small, as are those between it and what it overwrites: a trace within one would stay.
#[inline(never)]
pub(super) fn wipe() {
    overwrite_stack();
    use_decoy();
}

/// Masks and unmasks under keys of zeros, which replaces the real key in the registers.
#[inline(never)]
fn use_decoy() {
    DECOY.with(|ring| {
        for value in [&[b'x'; 16][..], &[b'x'; 4096]] {
            for token in ring.tokens(value) {
                // Too small an amount to run out of memory.
                let token = token.unwrap_or_default();
                let unmasked = ring.unmask(token.as_bytes(), &mut vec![0; token.len()]);
                debug_assert_eq!(unmasked, Ok(value.len()));
            }
        }
    });
}

/// Bytes of the stack that [`overwrite_frames`] overwrites at a time.
const FRAME: usize = 16 << 10;

/// Overwrites the 256 kB of stack below this function, or as much of it as there is. Where the process has no more memory,
/// the kernel doesn't let its stack grow, and what was never there holds no key.
#[inline(never)]
fn overwrite_stack() {
    /// Bytes of a frame besides its array.
    const BESIDE: usize = 1 << 10;
    let here = 0_u8;
    let bottom = |frames| (&raw const here).wrapping_sub(frames * (FRAME + BESIDE));
    if let Some(frames) = (1..=16).rev().find(|&frames| is_stack(bottom(frames))) {
        overwrite_frames(frames);
        overwrite_between(frames - 1);
    }
}

/// Overwrites what is between the arrays of [`overwrite_frames`], such as saved registers: its arrays are half a frame lower.
#[inline(never)]
fn overwrite_between(frames: usize) {
    let mut stack = [0_u8; FRAME / 2];
    std::hint::black_box(&mut stack);
    if frames > 0 {
        overwrite_frames(frames);
    }
    std::hint::black_box(&mut stack);
}

#[inline(never)]
fn overwrite_frames(frames: usize) {
    let mut stack = [0_u8; FRAME];
    // Nobody reads it, but the compiler must assume that somebody does.
    std::hint::black_box(&mut stack);
    if frames > 1 {
        overwrite_frames(frames - 1);
    }
    // Keeps this frame while the next one is made.
    std::hint::black_box(&mut stack);
}

/// Whether the stack has a byte at this address, or can grow so far. The kernel answers a call that writes there with EFAULT
/// if it can't. A write of our own would end the process. Where the kernel refuses the call, it counts as stack.
fn is_stack(address: *const u8) -> bool {
    #[expect(unsafe_code, reason = "calls the kernel")]
    // SAFETY: it writes one byte, which belongs to no function that runs, since it is below the stack's end.
    let written = unsafe { libc::syscall(libc::SYS_getrandom, address, 1, 0) };
    written == 1 || io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT)
}
