//! What a thread that does not stop is doing, as far as the kernel tells.

use std::{fmt, sync::Arc, time::Duration};

use crate::{sync::one_line::OneLine, wording::Span};

/// What the thread of a child that is stuck is doing, as far as the kernel tells.
///
/// It is looked at when the child is found to hang, to be overdue or to be abandoned, and for the
/// report of a shutdown; never before. From then on, each further such event about the same run,
/// each [`ChildInfo`](crate::ChildInfo) and the report look again. There is one on Linux and
/// Android only, where the process can read `/proc`, and none in a
/// [`Simulation`](crate::Simulation).
///
/// Its `Display` is the end of a sentence that begins with "its thread": ``sleeps in
/// `anon_pipe_read` (a pipe), no CPU used for 3.2 s``, or `runs, 99 % of a core for 3.2 s`.
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
/// use std::time::Duration;
///
/// let (gate, closed) = crossbeam_channel::bounded::<()>(0);
/// let supervisor = Supervisor::builder()
///     // It looks at nothing but its channel.
///     .child(ChildSpec::new("deaf", move |_ctx| Ok(closed.recv()?)))
///     .start()?;
/// let report = supervisor.shutdown_within(Duration::from_millis(20));
/// if let Some(thread) = &report.unstopped[0].thread {
///     println!("its thread {thread}"); // sleeps in `futex_do_wait` (a lock, or another thread)
/// }
/// # drop(gate);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// Whether it runs or sleeps.
    pub state: ThreadState,
    /// The function of the kernel in which it sleeps, by the kernel's own name. `None` while it
    /// runs, and where the kernel hides this.
    pub wait_channel: Option<Arc<str>>,
    /// How much CPU time it has used since it was first looked at in this run. `None` if the kernel
    /// does not tell, or if that was less than a tenth of a second ago, which is too short a time
    /// to tell.
    pub cpu_used: Option<Duration>,
    /// How long ago it was first looked at; zero at the first look.
    pub observed_for: Duration,
}

/// Whether a thread runs or sleeps, as the kernel's scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ThreadState {
    /// It runs, or could run and waits for a CPU.
    Running,
    /// It sleeps until something happens, or until a signal comes.
    Sleeping,
    /// It sleeps in a way that ordinary signals do not end, as in some calls of a disk, a network
    /// file system or a driver; some such sleeps not even SIGKILL ends.
    Uninterruptible,
    /// It is stopped, by a signal or a debugger.
    Stopped,
    /// In a state that has no name here.
    Unknown,
}

impl ThreadState {
    /// The stable word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Uninterruptible => "uninterruptible",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

/// Shows the stable word that the `thread_state` key of a log line carries: `running`, `sleeping`,
/// and so on.
impl fmt::Display for ThreadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a thread waits for, by a word in the name of the kernel's function.
const MEANINGS: [(&str, &str); 13] = [
    ("futex", "a lock, or another thread"),
    ("poll", "a file, a socket or a timer"),
    ("select", "a file, a socket or a timer"),
    ("pipe", "a pipe"),
    ("nanosleep", "a sleep"),
    ("tty", "a terminal"),
    ("sk", "a socket"),
    ("skb", "a socket"),
    ("csk", "a socket"),
    ("tcp", "a socket"),
    ("inet", "a socket"),
    ("unix", "a socket"),
    ("flock", "the lock of a file"),
];

/// What a thread waits for that sleeps in this function of the kernel, if that is known.
fn meaning_of(channel: &str) -> Option<&'static str> {
    if channel == "do_wait" {
        return Some("a process");
    }
    let has = |word: &str| channel.split(['_', '.']).any(|part| part == word);
    MEANINGS.iter().find(|(word, _)| has(word)).map(|(_, meaning)| *meaning)
}

/// Shows where a run is stuck as a further part of a sentence, as far as it is known: what it was
/// doing by its last heartbeat, and what its thread is doing.
#[derive(Default)]
pub(crate) struct Whereabouts<'a> {
    pub(crate) doing: Option<&'a str>,
    pub(crate) thread: Option<&'a ThreadInfo>,
}

impl fmt::Display for Whereabouts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { doing, thread } = self;
        doing.iter().try_for_each(|doing| write!(f, ", while {}", OneLine(doing)))?;
        thread.iter().try_for_each(|thread| write!(f, "; its thread {thread}"))
    }
}

impl fmt::Display for ThreadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, wait_channel, cpu_used, observed_for } = self;
        match state {
            ThreadState::Running => f.write_str("runs")?,
            ThreadState::Sleeping => f.write_str("sleeps")?,
            ThreadState::Uninterruptible => f.write_str("sleeps uninterruptibly")?,
            ThreadState::Stopped => f.write_str("is stopped by a signal or a debugger")?,
            ThreadState::Unknown => f.write_str("is in an unknown state")?,
        }
        if let ThreadState::Sleeping | ThreadState::Uninterruptible = state {
            match wait_channel {
                Some(channel) => {
                    write!(f, " in `{channel}`")?;
                    if let Some(meaning) = meaning_of(channel) {
                        write!(f, " ({meaning})")?;
                    }
                }
                None => f.write_str(" in an unknown place")?,
            }
        }
        let Some(used) = cpu_used else { return Ok(()) };
        let hundredth = (*observed_for / 100).max(Duration::from_nanos(1));
        let span = Span(*observed_for);
        if used.is_zero() {
            write!(f, ", no CPU used for {span}")
        } else if *used < hundredth {
            write!(f, ", less than 1 % of a core for {span}")
        } else {
            // What the kernel has counted may be late by a tick, but no thread uses two cores.
            let percent = (used.as_nanos() / hundredth.as_nanos()).min(100);
            write!(f, ", {percent} % of a core for {span}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn text(state: ThreadState, channel: Option<&str>, cpu: Option<(u32, u32)>) -> String {
        ThreadInfo {
            state,
            wait_channel: channel.map(Arc::from),
            cpu_used: cpu.map(|(used, _)| used * MS),
            observed_for: cpu.map_or(Duration::ZERO, |(_, observed)| observed * MS),
        }
        .to_string()
    }

    #[test]
    fn sentence_says_what_it_waits_for_and_what_it_has_used() {
        use ThreadState::{Running, Sleeping, Stopped, Uninterruptible, Unknown};
        let cases = [
            (text(Running, None, None), "runs"),
            (text(Running, None, Some((990, 1000))), "runs, 99 % of a core for 1.0 s"),
            (text(Running, None, Some((1020, 1000))), "runs, 100 % of a core for 1.0 s"),
            (text(Sleeping, None, None), "sleeps in an unknown place"),
            (
                text(Sleeping, Some("anon_pipe_read"), Some((0, 3200))),
                "sleeps in `anon_pipe_read` (a pipe), no CPU used for 3.2 s",
            ),
            (
                text(Sleeping, Some("futex_do_wait"), Some((9, 1000))),
                "sleeps in `futex_do_wait` (a lock, or another thread), less than 1 % of a core \
                 for 1.0 s",
            ),
            (
                text(Uninterruptible, Some("rpc_wait_bit_killable"), None),
                "sleeps uninterruptibly in `rpc_wait_bit_killable`",
            ),
            (text(Stopped, None, None), "is stopped by a signal or a debugger"),
            (text(Unknown, None, None), "is in an unknown state"),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_a_blocked_call_waits_for_is_said_where_that_is_known() {
        // As kernels of several years name them.
        let cases = [
            ("futex_wait_queue_me", Some("a lock, or another thread")),
            ("futex_do_wait", Some("a lock, or another thread")),
            ("ep_poll", Some("a file, a socket or a timer")),
            ("poll_schedule_timeout.constprop.0", Some("a file, a socket or a timer")),
            ("do_select", Some("a file, a socket or a timer")),
            ("pipe_wait", Some("a pipe")),
            ("pipe_read.part.0", Some("a pipe")),
            ("hrtimer_nanosleep", Some("a sleep")),
            ("do_wait", Some("a process")),
            ("n_tty_read", Some("a terminal")),
            ("sk_wait_data", Some("a socket")),
            ("sk_stream_wait_memory", Some("a socket")),
            ("tcp_recvmsg_locked", Some("a socket")),
            ("inet_csk_accept", Some("a socket")),
            ("unix_stream_read_generic", Some("a socket")),
            ("__skb_wait_for_more_packets", Some("a socket")),
            ("flock_lock_inode_wait", Some("the lock of a file")),
            ("wait_woken", None),
            ("wait_task_inactive", None),
            ("blkdev_issue_flush", None),
        ];
        for (channel, meaning) in cases {
            assert_eq!(meaning_of(channel), meaning, "{channel}");
        }
    }
}
