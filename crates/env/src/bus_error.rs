//! When a mapped file cannot be read.
//!
//! The system has no return value for a page of a mapped file that the disk does not give, or that is no longer there
//! since somebody has cut the file: it sends SIGBUS, and the process is gone without a word. This says the word.

use std::io;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What to say; null before anything is mapped. Never freed: the handler may be reading it.
static SENTENCE: AtomicPtr<Box<str>> = AtomicPtr::new(std::ptr::null_mut());

/// From now on a page of a mapped file that cannot be read ends the process with `sentence` on standard error and exit
/// status 1. The newest sentence counts. Its memory is never given back: call this once per file, not per access.
///
/// # Errors
/// If the system refuses the handler.
pub fn tell_of_bus_errors(sentence: &str) -> io::Result<()> {
    let line: Box<str> = format!("{sentence}\n").into();
    let first = SENTENCE.swap(Box::into_raw(Box::new(line)), Ordering::SeqCst).is_null();
    if first { install() } else { Ok(()) }
}

#[expect(unsafe_code, reason = "signal handlers are installed by a call into C")]
fn install() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is one without handler, flags or mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    // On the stack that the runtime sets aside for this, if the thread has one; and once only, so that a fault in the
    // handler ends the process.
    action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND;
    // SAFETY: the handler has the signature that goes without SA_SIGINFO and does only what is allowed in one.
    let done = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "write and _exit are what a signal handler may call")]
extern "C" fn handler(_: libc::c_int) {
    let sentence = SENTENCE.load(Ordering::SeqCst);
    // SAFETY: once set, the sentence is there for good. write and _exit are safe in a signal handler.
    unsafe {
        if let Some(sentence) = sentence.as_ref() {
            let _ = libc::write(2, sentence.as_ptr().cast(), sentence.len());
        }
        libc::_exit(1);
    }
}
