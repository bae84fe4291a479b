//! A thread's place among those that want the processor.

/// While it lives, the thread that made it is given the processor soon after it wakes up, for a short while at a time, and so
/// are threads that it starts meanwhile.
///
/// A thread that waits, does a little and waits again otherwise finds itself behind whatever computes on a busy machine,
/// for the rest of that one's turn, each time: milliseconds, where the work takes a tenth of one. Its share stays the same.
///
/// Linux since 6.12 knows of this (`sched_setattr(2)`, `sched_runtime` of a usual thread); elsewhere nothing changes.
#[derive(Debug)]
pub struct ShortTurns {
    #[cfg(target_os = "linux")]
    before: Option<libc::sched_attr>,
}

impl ShortTurns {
    /// See the type. What the kernel refuses stays as it was.
    #[must_use]
    pub fn begin() -> Self {
        #[cfg(target_os = "linux")]
        {
            Self { before: linux::begin() }
        }
        #[cfg(not(target_os = "linux"))]
        {
            Self {}
        }
    }
}

impl Drop for ShortTurns {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(before) = &self.before {
            linux::set(before);
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use libc::{SYS_sched_getattr, SYS_sched_setattr, sched_attr};

    /// The kernel's least.
    const TURN_NS: u64 = 100_000;

    const BYTES: u32 = size_of::<sched_attr>() as u32;

    /// Returns what was; `None` if nothing was changed.
    pub fn begin() -> Option<sched_attr> {
        let before = get()?;
        // Who was given a class of its own, real-time or batch, keeps it.
        if before.sched_policy != libc::SCHED_OTHER as u32 {
            return None;
        }
        set(&sched_attr { sched_runtime: TURN_NS, ..before }).then_some(before)
    }

    /// Those of this thread.
    #[expect(unsafe_code, reason = "there is no safe call for it")]
    pub fn get() -> Option<sched_attr> {
        let mut attr = sched_attr {
            size: 0,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the kernel writes at most the given size into `attr`, any bytes make one, and keeps no pointer to it.
        let result = unsafe { libc::syscall(SYS_sched_getattr, 0, &raw mut attr, BYTES, 0) };
        (result == 0).then_some(attr)
    }

    /// True if the kernel took it.
    #[expect(unsafe_code, reason = "there is no safe call for it")]
    pub fn set(attr: &sched_attr) -> bool {
        let attr = sched_attr { size: BYTES, ..*attr };
        // SAFETY: the kernel reads `attr`, whose size it is told, and keeps no pointer to it.
        unsafe { libc::syscall(SYS_sched_setattr, 0, &raw const attr, 0) == 0 }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Older kernels take the wish and forget it.
    #[test]
    fn turns_are_short_until_it_ends_and_nothing_else_changes() {
        let before = linux::get().expect("attributes");
        let short = ShortTurns::begin();
        let now = linux::get().expect("attributes");
        assert_eq!((now.sched_policy, now.sched_nice), (before.sched_policy, before.sched_nice));
        if before.sched_policy == libc::SCHED_OTHER as u32 {
            assert!(short.before.is_some());
            assert!(now.sched_runtime == 100_000 || now.sched_runtime == before.sched_runtime, "{now:?}");
        }
        let inherited = std::thread::spawn(|| linux::get().expect("attributes").sched_runtime).join().expect("it ends");
        assert_eq!(inherited, now.sched_runtime);
        drop(short);
        assert_eq!(linux::get().expect("attributes").sched_runtime, before.sched_runtime);
    }
}
