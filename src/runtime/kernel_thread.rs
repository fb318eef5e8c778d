//! State of a thread, as `/proc` shows it.
//!
//! Whatever cannot be read is unknown: `/proc` may be missing or restricted. Other systems than
//! Linux and Android have nothing like it that is to be had without unsafe code.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{sync::clock::system_now, thread_info::ThreadState};

/// The kernel's id of a thread of this process. It may be used again once that thread is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelThread(pub(crate) u32);

/// A thread at one moment.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) state: ThreadState,
    pub(crate) wait_channel: Option<Arc<str>>,
    /// How much CPU time it has used since it began, at `at`.
    pub(crate) cpu: Option<Duration>,
    pub(crate) at: Instant,
}

/// How often a look is repeated if the thread wakes up or falls asleep meanwhile.
const TRIES: u32 = 4;

impl KernelThread {
    /// The current thread, if its id can be learnt.
    pub(crate) fn current() -> Option<Self> {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return None;
        }
        // It leads to a folder that has the id as its name. To open a file there would take less
        // memory, since a thread keeps what it has allocated and freed, but much longer: for a new
        // thread, the kernel would have to make that folder first.
        let link = fs::read_link("/proc/thread-self").ok()?;
        link.file_name()?.to_str()?.parse().ok().map(Self)
    }

    /// Looks at the thread.
    pub(crate) fn sample(self) -> Option<Sample> {
        let (cpu, at) = (self.read("schedstat").as_deref().and_then(cpu_of), system_now());
        let sample = |state, wait_channel| Sample { state, wait_channel, cpu, at };
        let mut state = self.state()?;
        for _ in 0..TRIES {
            if !matches!(state, ThreadState::Sleeping | ThreadState::Uninterruptible) {
                break;
            }
            let wait_channel = self.read("wchan").as_deref().and_then(wait_channel_of);
            let before = std::mem::replace(&mut state, self.state()?);
            if state == before && wait_channel.is_some() {
                return Some(sample(state, wait_channel));
            }
        }
        // It does not sleep, sleeps too shortly to tell where, or the kernel hides that.
        Some(sample(state, None))
    }

    fn state(self) -> Option<ThreadState> {
        state_of(&self.read("stat")?)
    }

    /// The kernel cuts the names of threads, also within a character.
    fn read(self, name: &str) -> Option<String> {
        let bytes = fs::read(format!("/proc/self/task/{}/{name}", self.0)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The first number is the time on a CPU, in nanoseconds; the third, how often it was there. Some
/// kernels count neither.
fn cpu_of(schedstat: &str) -> Option<Duration> {
    let numbers: Vec<u64> =
        schedstat.split_whitespace().map_while(|number| number.parse().ok()).collect();
    match numbers[..] {
        [time, _, times, ..] if times > 0 => Some(Duration::from_nanos(time)),
        _ => None,
    }
}

/// The letter behind the thread's name, which stands in brackets and may hold anything.
fn state_of(stat: &str) -> Option<ThreadState> {
    let (_, behind) = stat.rsplit_once(')')?;
    Some(match behind.trim_start().chars().next()? {
        'R' => ThreadState::Running,
        'S' => ThreadState::Sleeping,
        'D' => ThreadState::Uninterruptible,
        'T' | 't' => ThreadState::Stopped,
        _ => ThreadState::Unknown,
    })
}

/// The name of a function of the kernel. `0` stands for none, and for one that is hidden.
fn wait_channel_of(wchan: &str) -> Option<Arc<str>> {
    let is_name = |name: &&str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        !name.is_empty() && *name != "0" && name.len() <= 100 && name.chars().all(is_part)
    };
    Some(wchan.trim()).filter(is_name).map(Arc::from)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_or_strange_is_unknown() {
        assert_eq!(state_of("12 (a) S) R (b) S 1 2"), Some(ThreadState::Sleeping));
        assert_eq!(state_of("12 (reader) t 1 2"), Some(ThreadState::Stopped));
        assert_eq!(state_of("12 (reader) Q 1 2"), Some(ThreadState::Unknown));
        assert_eq!((state_of("12 (reader)"), state_of("")), (None, None));
        assert_eq!(wait_channel_of("0"), None);
        assert_eq!(wait_channel_of(""), None);
        assert_eq!(wait_channel_of("two words"), None);
        assert_eq!(wait_channel_of("pipe_read.part.0\n").as_deref(), Some("pipe_read.part.0"));
        assert_eq!(cpu_of("1500 20 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!((cpu_of(""), cpu_of("x 1"), cpu_of("0 0 0")), (None, None, None));
    }

    #[test]
    fn current_thread_runs_where_that_can_be_seen() {
        let Some(thread) = KernelThread::current() else { return };
        let sample = thread.sample().unwrap();
        assert_eq!((sample.state, sample.wait_channel), (ThreadState::Running, None));
        assert!(KernelThread(u32::MAX).sample().is_none(), "there is no such thread");
    }
}
