//! The atomic state of a breaker, which callers read and report to.

use std::sync::{Arc, Weak};

use crate::{
    core::circuit::View,
    id::ChildId,
    runtime::{inbox::Message, row::Row, shared::Shared},
    snapshot::ChildInfo,
    status::CircuitState,
    sync::{
        clock::system_now,
        primitives::{
            Mutex, OnceLock,
            atomic::{AtomicU32, AtomicU64, Ordering},
        },
        watch::Watch,
    },
};

/// The state behind a child's breaker: the packed state that callers read, and the child's row.
///
/// | bits of `packed` | meaning |
/// | --- | --- |
/// | 0–1 | the state, one of the constants of [`PackedState`] |
/// | 2–23 | failures that callers reported of this run, with no success since |
/// | 24–63 | the run |
///
/// All accesses to `packed` are relaxed. A caller acts on the packed state alone, and not on
/// anything that another thread wrote before it; and the exchanges that count reports are atomic in
/// any ordering.
pub(crate) struct BreakerState {
    pub(crate) id: ChildId,
    packed: AtomicU64,
    threshold: AtomicU32,
    /// Where the child is listed. Weak, since the child's row holds this state.
    pub(crate) place: OnceLock<(Weak<Shared>, Weak<Row>)>,
    /// Notified of each change of the child. Each child has its own, so that a change wakes no
    /// thread that waits for another child.
    pub(crate) news: Watch,
    /// Set before the breaker opens for good. It is still `None` after a shutdown that went past a
    /// stuck supervisor thread, until that thread ends. Kept here because the child's row is
    /// dropped with the last handle of its supervisor.
    last: Mutex<Option<Last>>,
}

/// Why a breaker is open for good, and the last state of its child: without the error of the last
/// run, which a breaker does not keep alive.
#[derive(Clone)]
pub(crate) enum Last {
    /// The child has left the list.
    Gone(Box<ChildInfo>),
    /// The child's supervisor has ended.
    Ended(Box<ChildInfo>),
}

/// Whether there is a child behind a breaker, whatever handles of its supervisor are still alive.
pub(crate) enum Presence {
    /// The child has not been added to a supervisor, or that has not been started.
    NotListed,
    Listed(Box<ChildInfo>),
    /// A shutdown stopped the child without its supervisor thread, which is stuck.
    ShuttingDown(ChildId),
    Gone(ChildId),
    Ended(ChildId),
}

/// One reading of [`BreakerState`]'s `packed`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedState(u64);

impl PackedState {
    const OPEN: u64 = 0;
    const HALF_OPEN: u64 = 1;
    const CLOSED: u64 = 2;
    /// Opened by the callers' reports, which the supervisor thread has yet to receive.
    const TRIPPED: u64 = 3;
    const STATE: u64 = 3;
    const MOST_FAILURES: u64 = (1 << 22) - 1;
    /// Open for ever: no later change is possible. No run has this number.
    const FOR_GOOD: Self = Self(u64::MAX << 24 | Self::OPEN);

    fn new(run: u64, state: u64) -> Self {
        Self(run << 24 | state)
    }

    #[inline]
    pub(crate) fn run(self) -> u64 {
        self.0 >> 24
    }

    #[inline]
    fn failures(self) -> u64 {
        self.0 >> 2 & Self::MOST_FAILURES
    }

    fn with_failures(self, failures: u64) -> Self {
        Self(self.0 & !(Self::MOST_FAILURES << 2) | failures.min(Self::MOST_FAILURES) << 2)
    }

    #[inline]
    pub(crate) fn is_permitted(self) -> bool {
        matches!(self.0 & Self::STATE, Self::HALF_OPEN | Self::CLOSED)
    }

    pub(crate) fn is_tripped(self) -> bool {
        self.0 & Self::STATE == Self::TRIPPED
    }

    pub(crate) fn state(self) -> CircuitState {
        match self.0 & Self::STATE {
            Self::HALF_OPEN => CircuitState::HalfOpen,
            Self::CLOSED => CircuitState::Closed,
            _ => CircuitState::Open,
        }
    }
}

impl BreakerState {
    /// The number of failures in a row that trip a breaker, unless the child's spec sets another.
    const DEFAULT_THRESHOLD: u32 = 10;

    pub(crate) fn new(id: ChildId) -> Arc<Self> {
        let packed = AtomicU64::new(PackedState::new(0, PackedState::OPEN).0);
        let threshold = AtomicU32::new(Self::DEFAULT_THRESHOLD);
        Arc::new(Self {
            id,
            packed,
            threshold,
            place: OnceLock::new(),
            news: Watch::default(),
            last: Mutex::new(None),
        })
    }

    pub(crate) fn set_threshold(&self, threshold: u32) {
        self.threshold.store(threshold, Ordering::Relaxed);
    }

    pub(crate) fn threshold(&self) -> u32 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// Stores where the child is listed.
    pub(crate) fn place(&self, shared: Weak<Shared>, row: Weak<Row>) {
        let _ = self.place.set((shared, row));
    }

    /// Sets the state to what the supervisor thread publishes; the caller then notifies `news`. A
    /// breaker that callers have tripped stays open until the supervisor thread publishes the run
    /// as open, or a later run: before it receives the message, it may publish the run as closed.
    pub(crate) fn show(&self, view: &View) {
        let state = match view.circuit {
            CircuitState::Open => PackedState::OPEN,
            CircuitState::HalfOpen => PackedState::HALF_OPEN,
            CircuitState::Closed => PackedState::CLOSED,
        };
        let shown = PackedState::new(view.run, state);
        let _ = self.packed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let word = PackedState(word);
            let is_same_run = word.run() == shown.run();
            match state {
                _ if word == PackedState::FOR_GOOD => None,
                PackedState::OPEN => Some(shown.0),
                _ if is_same_run && word.is_tripped() => None,
                // The count stays when a run is published again, or becomes healthy. It is 0 in the
                // latter case, since one failure trips a run that is half-open.
                _ if is_same_run => Some(shown.with_failures(word.failures()).0),
                _ => Some(shown.0),
            }
        });
    }

    /// Opens the breaker for ever, whatever the supervisor thread still publishes. `last` is `None`
    /// if the child was stopped without that thread. The first `last` stays.
    pub(crate) fn open_for_good(&self, last: Option<Last>) {
        if let Some(last) = last {
            self.last.lock().get_or_insert(last);
        }
        // A swap and not a store, so that only exchanges change the state: loom lets a plain store
        // slip into the middle of an exchange.
        self.packed.swap(PackedState::FOR_GOOD.0, Ordering::Relaxed);
        self.news.notify();
    }

    #[inline]
    pub(crate) fn packed(&self) -> PackedState {
        PackedState(self.packed.load(Ordering::Relaxed))
    }

    /// Counts a failure of this run. Returns the number of failures if this one trips the breaker.
    pub(crate) fn fail(&self, run: u64) -> Option<u32> {
        let mut tripping = None;
        let _ = self.packed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let word = PackedState(word);
            if word.run() != run || !word.is_permitted() {
                tripping = None;
                return None;
            }
            let failures = word.failures() + 1;
            let trips =
                word.state() == CircuitState::HalfOpen || failures >= u64::from(self.threshold());
            tripping = trips.then(|| u32::try_from(failures).expect("it has 22 bits"));
            Some(if trips {
                PackedState::new(run, PackedState::TRIPPED).0
            } else {
                word.with_failures(failures).0
            })
        });
        tripping
    }

    /// Sets the failures of this run back to 0.
    #[inline]
    pub(crate) fn succeed(&self, run: u64) {
        // Most successes follow a success: then nothing is written, and callers on several cores
        // do not contend for the cache line.
        if self.packed().failures() == 0 {
            return;
        }
        let _ = self.packed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let word = PackedState(word);
            (word.run() == run && word.failures() > 0).then_some(word.with_failures(0).0)
        });
    }

    /// Reports to the supervisor thread that callers have tripped this run.
    pub(crate) fn tell_of_trip(&self, run: u64, failures: u32, last: &str) {
        let Some((shared, row)) = self.place.get() else { return };
        if let (Some(shared), Some(row)) = (shared.upgrade(), row.upgrade()) {
            let _ = shared.tell(Message::Trip { key: row.key(), run, failures, last: last.into() });
        }
    }

    pub(crate) fn info(&self) -> Option<ChildInfo> {
        let (shared, row) = self.place.get()?;
        let row = row.upgrade()?;
        Some(shared.upgrade().map_or_else(|| row.info(system_now()), |shared| shared.info(&row)))
    }

    /// Returns why the breaker is open for good, once it is.
    ///
    /// The lock orders this against [`open_for_good`](Self::open_for_good): a thread that has seen
    /// the breaker open for good finds what was set before, although its load was relaxed.
    pub(crate) fn last(&self) -> Option<Last> {
        self.last.lock().clone()
    }

    pub(crate) fn presence(&self) -> Presence {
        // Read before the row: once the breaker is open for good, the row may be dropped at any
        // moment, and `last` answers instead.
        let is_for_good = self.packed() == PackedState::FOR_GOOD;
        if !is_for_good {
            if self.place.get().is_none() {
                return Presence::NotListed;
            }
            if let Some(info) = self.info() {
                return Presence::Listed(Box::new(info));
            }
        }
        match self.last() {
            Some(Last::Gone(info)) => Presence::Gone(info.id),
            Some(Last::Ended(info)) => Presence::Ended(info.id),
            // The supervisor thread, which is stuck, keeps the row.
            None => {
                Presence::ShuttingDown(self.info().map_or_else(|| self.id.clone(), |info| info.id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of a breaker without bits.
    #[derive(Debug)]
    struct Model {
        run: u64,
        state: CircuitState,
        is_tripped: bool,
        failures: u32,
    }

    // The supervisor thread publishes, and callers report, of present and of earlier runs, in any
    // order.
    #[test]
    fn word_agrees_with_a_model_of_it() {
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..20_000 {
            let cell = BreakerState::new("child".into());
            cell.set_threshold(random.u32(1..4));
            let mut model =
                Model { run: 0, state: CircuitState::Open, is_tripped: false, failures: 0 };
            for _ in 0..30 {
                let about = model.run.saturating_sub(u64::from(random.u8(..3) == 0));
                match random.u8(..8) {
                    0 => {
                        let run = model.run + 1;
                        let state = if random.bool() {
                            CircuitState::Closed
                        } else {
                            CircuitState::HalfOpen
                        };
                        cell.show(&View::of_run(run, state));
                        model = Model { run, state, is_tripped: false, failures: 0 };
                    }
                    1 => {
                        cell.show(&View::of_run(model.run, CircuitState::Open));
                        model.state = CircuitState::Open;
                        model.is_tripped = false;
                    }
                    2 if model.state == CircuitState::HalfOpen || model.is_tripped => {
                        // The run becomes healthy, unless callers have tripped it before.
                        cell.show(&View::of_run(model.run, CircuitState::Closed));
                        if !model.is_tripped {
                            model.state = CircuitState::Closed;
                        }
                    }
                    3 => {
                        cell.succeed(about);
                        if about == model.run {
                            model.failures = 0;
                        }
                    }
                    _ => {
                        let tripped = cell.fail(about);
                        let counts = about == model.run && model.state != CircuitState::Open;
                        model.failures += u32::from(counts);
                        let trips = model.state == CircuitState::HalfOpen
                            || model.failures >= cell.threshold();
                        assert_eq!(
                            tripped,
                            (counts && trips).then_some(model.failures),
                            "{model:?}"
                        );
                        if counts && trips {
                            model.state = CircuitState::Open;
                            model.is_tripped = true;
                        }
                    }
                }
                assert_eq!(cell.packed().state(), model.state, "{model:?}");
                assert_eq!(cell.packed().is_permitted(), model.state != CircuitState::Open);
            }
        }
    }
}
