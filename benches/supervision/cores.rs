//! The core on which launches run that time how threads hand over to one another.

/// Runs `f` with the current thread, and all threads that start in it, on one core.
///
/// On two cores the kernel decides which threads share one, for the whole launch: they hand over in
/// 4 µs, or in 50 if each has to wake the other on a core that has fallen asleep. That is decided
/// by chance, for both sides, and tells nothing of their work. Elsewhere than on Linux it only runs
/// `f`.
pub(crate) fn on_one_core<R>(f: impl FnOnce() -> R) -> R {
    let _pinned = Pinned::new();
    f()
}

#[cfg(target_os = "linux")]
use pinned::Pinned;

#[cfg(target_os = "linux")]
mod pinned {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// Holds the current thread on one core; as it is dropped, the thread may use those it could
    /// use before.
    pub(super) struct Pinned {
        before: CpuSet,
    }

    impl Pinned {
        pub(super) fn new() -> Self {
            let before = sched_getaffinity(None).expect("a thread may ask for its own cores");
            let last = (0..CpuSet::MAX_CPU).rev().find(|core| before.is_set(*core));
            let mut one = CpuSet::new();
            // The first one has more interrupts to serve.
            one.set(last.expect("it runs on one of them"));
            sched_setaffinity(None, &one).expect("it is one that the thread may use");
            Self { before }
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            sched_setaffinity(None, &self.before).expect("it could use them before");
        }
    }
}

#[cfg(not(target_os = "linux"))]
struct Pinned;

#[cfg(not(target_os = "linux"))]
impl Pinned {
    fn new() -> Self {
        Self
    }
}
