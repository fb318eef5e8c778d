//! Call of user code that the supervisor thread is in.

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
    const CALLBACKS: [Callback; 4] =
        [Callback::Enabled, Callback::Backoff, Callback::Sink, Callback::Drop];

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
        let position = Self::CALLBACKS
            .iter()
            .position(|known| *known == callback)
            .map_or(0, |position| position + 1);
        self.key.store(key.into().map_or(Self::NOBODY, |key| key.0), Ordering::Relaxed);
        // No other thread writes to it.
        self.calls.store(self.calls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.callback.store(u8::try_from(position).unwrap_or(0), Ordering::Relaxed);
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
