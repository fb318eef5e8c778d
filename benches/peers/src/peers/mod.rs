//! Who is measured, and with which settings.

mod actors;
mod bastion;
mod polled;
mod tasks;
mod threads;

use crate::crasher::Plan;

/// Stops all children, and returns when that is done, or at least under way.
pub(crate) type Stop = Box<dyn FnOnce()>;

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static str,
    /// How often the child crashes in one launch: less often where a restart takes long.
    pub(crate) crashes: usize,
    pub(crate) start: fn(Plan) -> Stop,
}

pub(crate) const ALL: [Peer; 9] = [
    Peer { name: "ours", settings: "no backoff, no sink", crashes: 400, start: threads::ours },
    Peer {
        name: "bare, warm",
        settings: "std threads with catch_unwind, started again by a controller; start, stop and \
                   memory: nobody controls them",
        crashes: 400,
        start: threads::warm,
    },
    Peer {
        name: "bare, fresh",
        settings: "a controller spawns another thread when one says that it panicked; start, stop \
                   and memory: as bare, warm",
        crashes: 400,
        start: threads::fresh,
    },
    Peer {
        name: "ractor, 2 threads",
        settings: "ractor-supervisor 0.2, its static supervisor without backoff, logs and \
                   melt-down; no boxed futures; tokio with two threads",
        crashes: 400,
        start: actors::on_two_threads,
    },
    Peer {
        name: "ractor, 1 thread",
        settings: "the same on tokio with one thread",
        crashes: 400,
        start: actors::on_one_thread,
    },
    Peer {
        name: "task-sup, 2 threads",
        settings: "task-supervisor 0.5, no delay, no jitter, no limit (its timer counts whole \
                   milliseconds); tokio with two threads",
        crashes: 50,
        start: tasks::on_two_threads,
    },
    Peer {
        name: "task-sup, 1 thread",
        settings: "the same on tokio with one thread",
        crashes: 50,
        start: tasks::on_one_thread,
    },
    Peer {
        name: "bastion",
        settings: "bastion 0.4, restarts at once, no backtraces; each child is a group (as one \
                   group they start ten times slower)",
        crashes: 400,
        start: bastion::start,
    },
    Peer {
        name: "rust_supervisor",
        settings: "rust_supervisor 0.2, no limit; it looks for ended threads every 100 ms; stops \
                   without waiting, then we let the threads end",
        crashes: 5,
        start: polled::start,
    },
];
