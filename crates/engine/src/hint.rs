//! Memory that will be needed soon.

/// Bytes that come from memory together.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Has `place` come from memory while other work goes on. A hint, and no read: a read would have to be over before anything
/// behind it that waits for what was just written, as compiled code does at every turn.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "telling the processor what will be needed")]
pub fn soon<T>(place: &[T]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let start = place.as_ptr().cast::<i8>();
    for at in (0..size_of_val(place)).step_by(LINE_BYTES) {
        // SAFETY: nothing is read, a hint never fails, and `at` lies inside `place`.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at)) };
    }
}

/// As [`soon`], for what will be written: no other processor keeps a copy of it that would have to be called back then.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "telling the processor what will be written")]
pub fn soon_written<T>(place: &[T]) {
    let start = place.as_ptr().cast::<u8>();
    for at in (0..size_of_val(place)).step_by(LINE_BYTES) {
        // The compiler's own hint becomes that for reading, unless it is told that every processor has both. Those that
        // do not know this one do nothing.
        // SAFETY: nothing is read or written, a hint never fails, and `at` lies inside `place`.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) start.add(at), options(nostack, preserves_flags, readonly));
        }
    }
}

/// Stable Rust has no such hints for other processors.
#[cfg(not(target_arch = "x86_64"))]
pub fn soon<T>(_place: &[T]) {}

/// See [`soon`].
#[cfg(not(target_arch = "x86_64"))]
pub fn soon_written<T>(_place: &[T]) {}
