//! Signs of life of a child's runs, for its watchdog.

use crate::{
    core::run::Heartbeats,
    sync::primitives::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// The text of a child's last heartbeat, and the run that sent it.
#[derive(Default)]
pub(crate) struct Activity(Mutex<(u64, &'static str)>);

impl Activity {
    pub(crate) fn say(&self, run: u64, doing: &'static str) {
        Self::note(&mut self.0.lock(), run, doing);
    }

    fn note(last: &mut (u64, &'static str), run: u64, doing: &'static str) {
        // A helper of an earlier run may still send heartbeats.
        if last.0 <= run {
            *last = (run, doing);
        }
    }

    /// The text of the last heartbeat, if this run sent it.
    pub(crate) fn of(&self, run: u64) -> Option<&'static str> {
        let (by, doing) = *self.0.lock();
        (by == run).then_some(doing)
    }
}

/// The signs of life of a run with a watchdog: its heartbeats, and its waits by the context.
#[derive(Default)]
pub(crate) struct Heart {
    /// How many there were, in units of [`UNIT`](Heart::UNIT), and the marks below. Relaxed is
    /// enough: it shows only that the run is alive.
    signs: AtomicU64,
    /// Distinguishes texts without the lock: a text's address, mixed with its length.
    mark: AtomicUsize,
}

impl Heart {
    /// The child's own thread waits by the context.
    const WAITING: u64 = 1;
    /// There was a heartbeat.
    const BEATS: u64 = 2;
    /// There was a heartbeat of another thread, so that waits of the child's own prove nothing.
    const BEATS_ELSEWHERE: u64 = 4;
    const UNIT: u64 = 8;

    /// Returns whether this was the first heartbeat.
    pub(crate) fn beat(
        &self,
        run: u64,
        is_own: bool,
        doing: &'static str,
        activity: &Activity,
    ) -> bool {
        let mark = doing.as_ptr().addr() ^ doing.len().rotate_left(usize::BITS / 2);
        if self.mark.load(Ordering::Relaxed) != mark {
            // Both under the lock: if the mark of one text stood beside another text, the first
            // would never be recorded again.
            let mut last = activity.0.lock();
            Activity::note(&mut last, run, doing);
            self.mark.store(mark, Ordering::Relaxed);
        }
        let marks = Self::BEATS | if is_own { 0 } else { Self::BEATS_ELSEWHERE };
        let before = self.signs.fetch_add(Self::UNIT, Ordering::Relaxed);
        if before & marks == marks {
            return false;
        }
        let mark = |signs| Some(signs | marks);
        let before = self.signs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, mark);
        before.is_ok_and(|before| before & Self::BEATS == 0)
    }

    /// Notes that the child's own thread begins to wait. Returns whether that is a sign of life.
    pub(crate) fn begin_wait(&self) -> bool {
        let counts = self.signs.load(Ordering::Relaxed) & Self::BEATS_ELSEWHERE == 0;
        if counts {
            self.signs.fetch_add(Self::UNIT | Self::WAITING, Ordering::Relaxed);
        }
        counts
    }

    pub(crate) fn end_wait(&self) {
        // The mark is set, so that this clears it and counts one sign more.
        self.signs.fetch_add(Self::UNIT - Self::WAITING, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, doing: &'static str) -> Heartbeats {
        let signs = self.signs.load(Ordering::Relaxed);
        Heartbeats {
            count: signs / Self::UNIT,
            doing,
            is_waiting: signs & (Self::WAITING | Self::BEATS_ELSEWHERE) == Self::WAITING,
        }
    }
}
