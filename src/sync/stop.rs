//! The stop signal of one run, with the callbacks that unblock it.

use std::{collections::VecDeque, convert::Infallible, mem};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::sync::{
    panic::Panic,
    primitives::{
        Condvar, Mutex, OnceLock, ThreadId,
        atomic::{AtomicBool, Ordering},
        current,
    },
    unwind,
};

/// A callback that is called when a run is requested to stop.
pub(crate) type StopCallback = Box<dyn FnOnce() + Send>;

/// The stop request of one run, and the callbacks that wait for it.
///
/// | phase | `is_stopping` | a callback that is set now |
/// | --- | --- | --- |
/// | `Running` | no | waits |
/// | `StopRequested` | yes | is called at once, by the thread that sets it |
/// | `Ended` | yes | is dropped |
///
/// Callbacks are called one at a time and never with the lock held.
#[derive(Debug)]
pub(crate) struct StopSignal {
    /// False in `Running` only. A copy of what the phase says, to be read without the lock.
    stopping: AtomicBool,
    state: Mutex<State>,
    /// Notified when a callback has returned.
    returned: Condvar,
    /// Created on first use: most runs read `stopping` alone.
    channel: OnceLock<Receiver<Infallible>>,
}

/// Another thread calls the callbacks of this run already, or has called them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CalledElsewhere;

struct State {
    phase: Phase,
    waiting: VecDeque<(u64, StopCallback)>,
    next: u64,
    /// A thread has begun to call the callbacks. It stays set: they have one caller in all.
    has_caller: bool,
    /// The callback that is being called, and the thread that calls it.
    called: Option<(u64, ThreadId)>,
    /// How many callbacks are being called by the threads that set them after the stop request.
    called_late: u32,
    /// Dropping it disconnects all receivers.
    sender: Option<Sender<Infallible>>,
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
                next: 0,
                has_caller: false,
                called: None,
                called_late: 0,
                sender: None,
            }),
            returned: Condvar::new(),
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

    /// Requests the run to stop. Calls no callback; [`call_all`](StopSignal::call_all) does.
    pub(crate) fn request(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::StopRequested;
        }
        self.stopping.store(true, Ordering::Release);
        let sender = state.sender.take();
        drop(state);
        drop(sender);
    }

    /// Whether the run was requested to stop, has callbacks, and no thread has begun to call them.
    pub(crate) fn needs_caller(&self) -> bool {
        let state = self.state.lock();
        state.phase == Phase::StopRequested && !state.has_caller && !state.waiting.is_empty()
    }

    /// Calls the callbacks in the order in which they were set. Returns the first panic, or an
    /// error if another thread calls or has called them.
    pub(crate) fn call_all(&self) -> Result<Option<Panic>, CalledElsewhere> {
        let mut state = self.state.lock();
        if mem::replace(&mut state.has_caller, true) {
            return Err(CalledElsewhere);
        }
        let mut panic = None;
        while state.phase == Phase::StopRequested {
            let Some((number, callback)) = state.waiting.pop_front() else { break };
            state.called = Some((number, current().id()));
            drop(state);
            let result = unwind::catch(callback);
            panic = panic.or(result.err());
            state = self.state.lock();
            state.called = None;
            self.returned.notify_all();
        }
        Ok(panic)
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
    pub(crate) fn call_now(&self, callback: StopCallback) -> Option<Panic> {
        self.state.lock().called_late += 1;
        let panic = unwind::catch(callback).err();
        self.state.lock().called_late -= 1;
        panic
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
        let me = current().id();
        while state.called.is_some_and(|(called, by)| called == number && by != me) {
            self.returned.wait(&mut state);
        }
    }

    /// Ends the run. From now on the signal reads as stopped, for helpers that outlive the run.
    /// Waits for a callback that `call_all` is calling, and drops the others uncalled. Returns the
    /// first panic of a drop.
    pub(crate) fn end(&self) -> Option<Panic> {
        let mut state = self.state.lock();
        state.phase = Phase::Ended;
        self.stopping.store(true, Ordering::Release);
        let sender = state.sender.take();
        let waiting = mem::take(&mut state.waiting);
        while state.called.is_some() {
            self.returned.wait(&mut state);
        }
        drop(state);
        drop(sender);
        waiting.into_iter().fold(None, |panic, callback| {
            let result = unwind::discard(callback);
            panic.or(result.err())
        })
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { phase, waiting, next: _, has_caller: _, called, called_late: _, sender: _ } =
            self;
        f.debug_struct("State")
            .field("phase", phase)
            .field("waiting", &waiting.len())
            .field("called", called)
            .finish()
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
    fn callbacks_are_called_in_their_order_but_for_those_taken_back() {
        let signal = StopSignal::new();
        let (sender, called) = unbounded();
        let numbers: Vec<_> = (0..4)
            .map(|number| {
                let sender = sender.clone();
                let set =
                    signal.set(Box::new(move || sender.send(number).expect("the test listens")));
                set.unwrap_or_else(|_| unreachable!("no stop was requested")).expect("it waits")
            })
            .collect();
        signal.take_back(numbers[1]);
        assert!(!signal.needs_caller(), "no stop was requested");
        signal.request();
        assert!(signal.needs_caller());
        assert_eq!(signal.call_all(), Ok(None));
        assert_eq!(called.try_iter().collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(signal.call_all(), Err(CalledElsewhere), "once");
        assert!(
            signal.set(Box::new(|| ())).is_err(),
            "one that is set now is called by whoever sets it"
        );
    }

    #[test]
    fn end_of_a_run_drops_what_was_left_behind_and_calls_nothing() {
        let signal = StopSignal::new();
        let token = Arc::new(());
        let its = token.clone();
        let set = signal.set(Box::new(move || panic!("called: {its:?}")));
        assert!(matches!(set, Ok(Some(_))));
        assert_eq!(signal.end(), None);
        assert_eq!(Arc::strong_count(&token), 1);
        signal.request();
        assert!(!signal.needs_caller());
        assert_eq!(signal.call_all(), Ok(None));
        assert!(matches!(signal.set(Box::new(|| panic!("called"))), Ok(None)));
    }
}
