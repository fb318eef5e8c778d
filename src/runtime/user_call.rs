//! Mark of the user code that the supervisor thread is in, by which others see that it is stuck.

use crate::{
    core::key::Key,
    event::Callback,
    sync::primitives::atomic::{AtomicU8, AtomicU64, Ordering},
};

/// The supervisor thread writes this around each call; threads that wait for it read it, to find
/// out whether it is stuck.
#[derive(Debug, Default)]
pub(crate) struct UserCall {
    /// 0 for none.
    callback: AtomicU8,
    key: AtomicU64,
    /// The number of calls so far.
    calls: AtomicU64,
}

impl UserCall {
    /// The key of a call for no child; no supervisor lists so many children.
    const NOBODY: u64 = u64::MAX;
    /// The callbacks by their codes, from 1.
    const CALLBACKS: [Callback; 7] = [
        Callback::Enabled,
        Callback::Backoff,
        Callback::OnStop,
        Callback::Display,
        Callback::Drop,
        Callback::Sink,
        Callback::Pulse,
    ];

    /// Makes a call of user code on the supervisor thread.
    ///
    /// Relaxed stores are enough: a reader acts only after the thread has been stuck for long, and
    /// the callback's name goes into a report for people.
    pub(crate) fn make<R>(
        &self,
        callback: Callback,
        key: impl Into<Option<Key>>,
        f: impl FnOnce() -> R,
    ) -> R {
        // In the order of `CALLBACKS`.
        let code = match callback {
            Callback::Enabled => 1,
            Callback::Backoff => 2,
            Callback::OnStop => 3,
            Callback::Display => 4,
            Callback::Drop => 5,
            Callback::Sink => 6,
            Callback::Pulse => 7,
        };
        self.key.store(key.into().map_or(Self::NOBODY, |key| key.0), Ordering::Relaxed);
        // No other thread writes to it.
        self.calls.store(self.calls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.callback.store(code, Ordering::Relaxed);
        let result = f();
        self.callback.store(0, Ordering::Relaxed);
        result
    }

    /// The callback that is being called, and the key of its child.
    pub(crate) fn now(&self) -> Option<(Callback, Key)> {
        let position = usize::from(self.callback.load(Ordering::Relaxed)).checked_sub(1)?;
        Some((*Self::CALLBACKS.get(position)?, Key(self.key.load(Ordering::Relaxed))))
    }

    /// The number of the call that is being made.
    pub(crate) fn number(&self) -> Option<u64> {
        self.now().map(|_| self.calls.load(Ordering::Relaxed))
    }
}
