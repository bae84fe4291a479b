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

/// Stable Rust has no such hint for other processors.
#[cfg(not(target_arch = "x86_64"))]
pub fn soon<T>(_place: &[T]) {}
