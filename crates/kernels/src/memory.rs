//! Memory between the passes of a training.

use std::sync::Once;

/// Blocks above this are mapped by themselves and given back when they are freed, whatever is asked: the largest value that
/// the allocator takes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED: libc::c_int = 32 << 20;

/// Asks the allocator to keep what is freed from now on, for the whole process.
///
/// Each training step frees about a gigabyte and takes it again; given back to the system in between, every page of it has
/// to be cleared by the system once more, which is a tenth of a step. Where the allocator has no such setting nothing
/// happens.
pub fn keep_freed_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        #[expect(unsafe_code, reason = "a setting of the C library's allocator")]
        // SAFETY: the function takes two numbers, changes how memory is reused, and may be called at any time.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
            libc::mallopt(libc::M_TOP_PAD, MAPPED);
        }
    });
}
