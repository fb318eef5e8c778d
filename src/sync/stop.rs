//! The stop signal of one run, with the callbacks that unblock it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    mem,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::sync::{
    bell::Bell,
    clock::system_now,
    deadline,
    panic::Panic,
    primitives::{
        Condvar, Mutex, MutexGuard, OnceLock, ThreadId,
        atomic::{AtomicBool, Ordering},
        current,
    },
    unwind,
};

/// A callback that is called when a run is requested to stop.
pub(crate) struct StopCallback {
    call: Box<dyn FnMut() + Send>,
    /// After what time it is called again, for as long as the run has not ended.
    again: Option<Duration>,
}

impl StopCallback {
    pub(crate) fn once(callback: impl FnOnce() + Send + 'static) -> Self {
        let mut callback = Some(callback);
        let call = move || {
            if let Some(callback) = callback.take() {
                callback();
            }
        };
        Self { call: Box::new(call), again: None }
    }

    pub(crate) fn every(interval: Duration, callback: impl FnMut() + Send + 'static) -> Self {
        Self { call: Box::new(callback), again: Some(interval) }
    }
}

/// The stop request of one run, and the callbacks that wait for it.
///
/// | phase | `is_stopping` | a callback that is set now |
/// | --- | --- | --- |
/// | `Running` | no | waits |
/// | `StopRequested` | yes | is called at once, by the thread that sets it; then it repeats, if it does |
/// | `Ended` | yes | is dropped |
///
/// Callbacks are called one at a time and never with the lock held: first all that wait, in their
/// order, then those that repeat, as each is due.
#[derive(Debug)]
pub(crate) struct StopSignal {
    /// False in `Running` only. A copy of what the phase says, to be read without the lock.
    stopping: AtomicBool,
    state: Mutex<State>,
    /// Notified when a callback has returned, and when its caller has to look again.
    changed: Condvar,
    /// Rung when `stopping` is set, for those who [`sleep`](StopSignal::sleep).
    bell: Bell,
    /// Created on first use: most runs read `stopping` alone, or sleep.
    channel: OnceLock<Receiver<Infallible>>,
}

struct State {
    phase: Phase,
    waiting: VecDeque<(u64, StopCallback)>,
    /// Those that were called, and are called again.
    repeating: Vec<Repeating>,
    next: u64,
    /// A thread calls the callbacks.
    has_caller: bool,
    /// The supervisor thread was asked for such a thread, and has not looked since.
    caller_is_wanted: bool,
    /// The callback that is being called.
    called: Option<Called>,
    /// How many callbacks are being called by the threads that set them after the stop request.
    called_late: u32,
    /// Dropping it disconnects all receivers.
    sender: Option<Sender<Infallible>>,
}

struct Repeating {
    number: u64,
    /// When it is called next; `None` is never.
    at: Option<Instant>,
    callback: StopCallback,
}

#[derive(Debug)]
struct Called {
    number: u64,
    by: ThreadId,
    /// Its guard is gone, so that it is not called again.
    is_taken_back: bool,
}

/// What the thread that calls the callbacks does next.
enum Next {
    Call(u64, StopCallback),
    WaitUntil(Option<Instant>),
    Leave,
}

impl State {
    /// Whether there is anything to call, now or later.
    fn has_work(&self) -> bool {
        let has_callbacks = !self.waiting.is_empty() || !self.repeating.is_empty();
        self.phase == Phase::StopRequested && has_callbacks
    }

    fn next(&mut self) -> Next {
        if !self.has_work() {
            return Next::Leave;
        }
        if let Some((number, callback)) = self.waiting.pop_front() {
            return Next::Call(number, callback);
        }
        let soonest =
            self.repeating.iter().map(|repeating| repeating.at).fold(None, deadline::sooner);
        if !deadline::is_reached(soonest, system_now()) {
            return Next::WaitUntil(soonest);
        }
        let due = self.repeating.iter().position(|repeating| repeating.at == soonest);
        due.map_or(Next::Leave, |due| {
            let Repeating { number, callback, .. } = self.repeating.remove(due);
            Next::Call(number, callback)
        })
    }

    /// Keeps a callback that was called, if it is called again; otherwise gives it back.
    fn keep(&mut self, number: u64, callback: StopCallback) -> Option<StopCallback> {
        let is_taken_back = self
            .called
            .as_ref()
            .is_some_and(|called| called.number == number && called.is_taken_back);
        match callback.again {
            Some(interval) if self.phase == Phase::StopRequested && !is_taken_back => {
                let at = deadline::after(system_now(), interval);
                self.repeating.push(Repeating { number, at, callback });
                None
            }
            Some(_) | None => Some(callback),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    StopRequested,
    Ended,
}

impl StopSignal {
    pub(crate) fn new() -> Self {
        Self {
            stopping: AtomicBool::new(false),
            state: Mutex::new(State {
                phase: Phase::Running,
                waiting: VecDeque::new(),
                repeating: Vec::new(),
                next: 0,
                has_caller: false,
                caller_is_wanted: false,
                called: None,
                called_late: 0,
                sender: None,
            }),
            changed: Condvar::new(),
            bell: Bell::default(),
            channel: OnceLock::new(),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        // Acquire, so that whoever sees the stop request sees what was done before it.
        self.stopping.load(Ordering::Acquire)
    }

    /// A channel that the stop request disconnects.
    pub(crate) fn stopped(&self) -> &Receiver<Infallible> {
        self.channel.get_or_init(|| {
            let (sender, receiver) = bounded(0);
            let mut state = self.state.lock();
            if state.phase == Phase::Running {
                state.sender = Some(sender);
            }
            receiver
        })
    }

    /// Has the current thread sleep for `duration`, or until the stop request or the end of the
    /// run. A wait on the channel would do the same, but the channel takes 280 bytes.
    pub(crate) fn sleep(&self, duration: Duration) {
        let deadline = deadline::after(system_now(), duration);
        self.bell.wait_until(deadline, || self.is_stopping());
    }

    /// Requests the run to stop. Calls no callback; [`call_all`](StopSignal::call_all) does.
    pub(crate) fn request(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::StopRequested;
        }
        self.set_stopping(state);
    }

    /// Sets `stopping`, and wakes those who wait for it, with no lock held.
    fn set_stopping(&self, mut state: MutexGuard<'_, State>) {
        self.stopping.store(true, Ordering::Release);
        let sender = state.sender.take();
        drop(state);
        drop(sender);
        self.bell.ring();
    }

    /// Whether the run was requested to stop, has callbacks, and no thread calls them: then the
    /// caller of this sees to it that one does.
    pub(crate) fn needs_caller(&self) -> bool {
        let mut state = self.state.lock();
        state.caller_is_wanted = false;
        state.has_work() && !state.has_caller
    }

    /// Calls the callbacks, and those that repeat until the run has ended, unless another thread
    /// does. Reports how each call went, with no lock held.
    pub(crate) fn call_all(&self, mut report: impl FnMut(Option<Panic>)) {
        let mut state = self.state.lock();
        if state.has_caller {
            return;
        }
        state.has_caller = true;
        loop {
            let (number, mut callback) = match state.next() {
                Next::Call(number, callback) => (number, callback),
                Next::WaitUntil(Some(at)) => {
                    self.changed.wait_until(&mut state, at);
                    continue;
                }
                Next::WaitUntil(None) => {
                    self.changed.wait(&mut state);
                    continue;
                }
                Next::Leave => break,
            };
            state.called = Some(Called { number, by: current().id(), is_taken_back: false });
            drop(state);
            report(unwind::catch(&mut callback.call).err());
            state = self.state.lock();
            if let Some(done) = state.keep(number, callback) {
                // Before the guard hears that the call is over: it may release what this holds.
                drop(state);
                let _ = unwind::discard(done);
                state = self.state.lock();
            }
            state.called = None;
            self.changed.notify_all();
        }
        state.has_caller = false;
    }

    /// Sets a callback. Returns its number. After a stop request, gives the callback back for the
    /// caller to call it now. After the end of the run, drops it and returns no number.
    pub(crate) fn set(&self, callback: StopCallback) -> Result<Option<u64>, StopCallback> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Running => {
                let number = state.next;
                state.next += 1;
                state.waiting.push_back((number, callback));
                Ok(Some(number))
            }
            Phase::StopRequested => Err(callback),
            Phase::Ended => {
                drop(state);
                let _ = unwind::discard(callback);
                Ok(None)
            }
        }
    }

    /// Calls a callback that was set after the stop request, on the thread that set it. Returns its
    /// panic.
    pub(crate) fn call_now(&self, callback: &mut StopCallback) -> Option<Panic> {
        self.state.lock().called_late += 1;
        let panic = unwind::catch(&mut callback.call).err();
        self.state.lock().called_late -= 1;
        panic
    }

    /// Has a callback that [`call_now`](Self::call_now) has called be called again, if it repeats.
    /// Returns its number then, and whether the supervisor thread has to be asked for a thread that
    /// calls it.
    pub(crate) fn repeat(&self, callback: StopCallback) -> Option<(u64, bool)> {
        let mut state = self.state.lock();
        let number = state.next;
        if let Some(done) = state.keep(number, callback) {
            drop(state);
            let _ = unwind::discard(done);
            return None;
        }
        state.next += 1;
        let is_orphan = !state.has_caller && !mem::replace(&mut state.caller_is_wanted, true);
        drop(state);
        self.changed.notify_all();
        Some((number, is_orphan))
    }

    /// Whether a callback is being called.
    pub(crate) fn is_calling(&self) -> bool {
        let state = self.state.lock();
        state.called.is_some() || state.called_late > 0
    }

    /// Removes a callback. If another thread is calling it, waits until it has returned.
    pub(crate) fn take_back(&self, number: u64) {
        let mut state = self.state.lock();
        if let Ok(position) = state.waiting.binary_search_by_key(&number, |(number, _)| *number) {
            let callback = state.waiting.remove(position);
            drop(state);
            let _ = unwind::discard(callback);
            return;
        }
        if let Some(position) = state.repeating.iter().position(|other| other.number == number) {
            let Repeating { callback, .. } = state.repeating.remove(position);
            drop(state);
            self.changed.notify_all();
            let _ = unwind::discard(callback);
            return;
        }
        let me = current().id();
        while let Some(called) = state.called.as_mut().filter(|called| called.number == number) {
            called.is_taken_back = true;
            if called.by == me {
                return;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Ends the run. From now on the signal reads as stopped, for helpers that outlive the run.
    /// Waits for a callback that `call_all` is calling, and drops the others uncalled. Returns the
    /// first panic of a drop.
    pub(crate) fn end(&self) -> Option<Panic> {
        let mut state = self.state.lock();
        state.phase = Phase::Ended;
        let waiting = mem::take(&mut state.waiting);
        let repeating = mem::take(&mut state.repeating);
        // Whoever waits to call one of them again has nothing left to do.
        self.changed.notify_all();
        while state.called.is_some() {
            self.changed.wait(&mut state);
        }
        self.set_stopping(state);
        let waiting = waiting.into_iter().map(|(_, callback)| callback);
        let repeating = repeating.into_iter().map(|repeating| repeating.callback);
        waiting.chain(repeating).fold(None, |panic, callback| {
            let result = unwind::discard(callback);
            panic.or(result.err())
        })
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("phase", &self.phase)
            .field("waiting", &self.waiting.len())
            .field("repeating", &self.repeating.len())
            .field("called", &self.called)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::{TryRecvError, unbounded};

    use super::*;

    #[test]
    fn channel_is_disconnected_whenever_it_is_asked_for() {
        let before = StopSignal::new();
        assert_eq!(before.stopped().try_recv(), Err(TryRecvError::Empty));
        before.request();
        assert_eq!(before.stopped().try_recv(), Err(TryRecvError::Disconnected));
        let after = StopSignal::new();
        after.request();
        assert_eq!(after.stopped().try_recv(), Err(TryRecvError::Disconnected));
        let ended = StopSignal::new();
        ended.end();
        assert_eq!(ended.stopped().try_recv(), Err(TryRecvError::Disconnected));
        assert!(ended.is_stopping());
    }

    #[test]
    fn sleep_ends_in_time_and_does_not_begin_after_a_request() {
        let signal = StopSignal::new();
        for length in [0, 1].map(Duration::from_millis) {
            let began = system_now();
            signal.sleep(length);
            assert!(!signal.is_stopping() && system_now() - began >= length);
        }
        signal.request();
        signal.sleep(Duration::MAX);
    }

    #[test]
    fn callbacks_are_called_in_their_order_but_for_those_taken_back() {
        let signal = StopSignal::new();
        let (sender, called) = unbounded();
        let numbers: Vec<_> = (0..4)
            .map(|number| {
                let sender = sender.clone();
                let set = signal.set(StopCallback::once(move || {
                    sender.send(number).expect("the test listens");
                }));
                set.unwrap_or_else(|_| unreachable!("no stop was requested")).expect("it waits")
            })
            .collect();
        signal.take_back(numbers[1]);
        assert!(!signal.needs_caller(), "no stop was requested");
        signal.request();
        assert!(signal.needs_caller());
        signal.call_all(|panic| assert_eq!(panic, None));
        assert_eq!(called.try_iter().collect::<Vec<_>>(), [0, 2, 3]);
        signal.call_all(|_| unreachable!("each is called once"));
        assert!(
            signal.set(StopCallback::once(|| ())).is_err(),
            "one that is set now is called by whoever sets it"
        );
    }

    #[test]
    fn end_of_a_run_drops_what_was_left_behind_and_calls_nothing() {
        let signal = StopSignal::new();
        let token = Arc::new(());
        let its = token.clone();
        let set = signal.set(StopCallback::once(move || panic!("called: {its:?}")));
        assert!(matches!(set, Ok(Some(_))));
        assert_eq!(signal.end(), None);
        assert_eq!(Arc::strong_count(&token), 1);
        signal.request();
        assert!(!signal.needs_caller());
        signal.call_all(|_| unreachable!("none is left"));
        let set = signal.set(StopCallback::once(|| panic!("called")));
        assert!(matches!(set, Ok(None)));
    }
}
