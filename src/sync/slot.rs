//! Channel for one message at a time, between one sender and one receiver.
//!
//! A channel of crossbeam's takes 800 bytes, which each child would have one of; this takes 64.

use std::{sync::Arc, thread};

use crate::sync::{
    bell::Bell,
    primitives::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// How often a receiver lets other threads run before it sleeps. A sender that answers within a few
/// microseconds is then heard without a sleep and a wake-up, which take several times as long. To
/// spin instead would take the core from those that could answer. Loom explores every order anyway.
const YIELDS: u32 = if cfg!(loom) { 0 } else { 16 };

/// The side that sends. Dropping it lets the receiver take the last message and no more.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Slot<T>>);

/// The side that receives. Dropping it drops a message that was not received.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Slot<T>>);

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<State<T>>,
    /// There is a message, or no sender; to be read without the lock.
    is_news: AtomicBool,
    /// Rung when that comes.
    bell: Bell,
}

#[derive(Debug)]
struct State<T> {
    message: Option<T>,
    has_sender: bool,
    has_receiver: bool,
}

/// Why a message was not sent; it is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The one before was not received yet.
    Full,
    /// The receiver is gone.
    Disconnected,
}

/// The sender is gone, and there is no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Disconnected;

pub(crate) fn slot<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { message: None, has_sender: true, has_receiver: true };
    let (state, is_news) = (Mutex::new(state), AtomicBool::new(false));
    let slot = Arc::new(Slot { state, is_news, bell: Bell::default() });
    (Sender(slot.clone()), Receiver(slot))
}

impl<T> Slot<T> {
    /// Has the receiver look at what has changed.
    fn tell_receiver(&self, state: MutexGuard<'_, State<T>>) {
        let is_known = self.is_news.swap(true, Ordering::Release);
        drop(state);
        if !is_known {
            self.bell.ring();
        }
    }
}

impl<T> Sender<T> {
    /// Sends a message without waiting.
    pub(crate) fn try_send(&self, message: T) -> Result<(), SendError> {
        // A message that is not sent is dropped after the lock, since arguments are dropped last.
        let mut state = self.0.state.lock();
        if !state.has_receiver {
            return Err(SendError::Disconnected);
        }
        if state.message.is_some() {
            return Err(SendError::Full);
        }
        state.message = Some(message);
        self.0.tell_receiver(state);
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Waits for a message.
    pub(crate) fn recv(&self) -> Result<T, Disconnected> {
        self.look_for_a_while();
        loop {
            let mut state = self.0.state.lock();
            if let Some(message) = state.message.take() {
                self.0.is_news.store(!state.has_sender, Ordering::Relaxed);
                return Ok(message);
            }
            if !state.has_sender {
                return Err(Disconnected);
            }
            drop(state);
            self.0.bell.wait_until(None, || self.0.is_news.load(Ordering::Acquire));
        }
    }

    fn look_for_a_while(&self) {
        for _ in 0..YIELDS {
            if self.0.is_news.load(Ordering::Acquire) {
                return;
            }
            thread::yield_now();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.has_sender = false;
        self.0.tell_receiver(state);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.has_receiver = false;
        let unreceived = state.message.take();
        drop(state);
        drop(unreceived);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn message_is_received_once_and_also_after_its_sender_is_gone() {
        let (sender, receiver) = slot();
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(SendError::Full));
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(sender.try_send(3), Ok(()));
        drop(sender);
        assert_eq!(receiver.recv(), Ok(3));
        assert_eq!(receiver.recv(), Err(Disconnected));
        assert_eq!(receiver.recv(), Err(Disconnected));
    }

    #[test]
    fn receiver_that_is_gone_takes_its_message_with_it() {
        let token = Arc::new(());
        let (sender, receiver) = slot();
        assert_eq!(sender.try_send(token.clone()), Ok(()));
        drop(receiver);
        assert_eq!(Arc::strong_count(&token), 1);
        assert_eq!(sender.try_send(token.clone()), Err(SendError::Disconnected));
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the test needs another thread, and has it sleep"
    )]
    fn sleeping_receiver_is_woken_by_a_message_and_by_the_end() {
        let (sender, receiver) = slot();
        let (answers, answered) = slot();
        let its = thread::spawn(move || {
            while let Ok(message) = receiver.recv() {
                answers.try_send(message + 1).expect("each answer is awaited");
            }
        });
        for number in 0..1000 {
            if number % 100 == 0 {
                // Long enough for it to sleep, as a rule.
                thread::sleep(std::time::Duration::from_millis(1));
            }
            assert_eq!(sender.try_send(number), Ok(()));
            assert_eq!(answered.recv(), Ok(number + 1));
        }
        drop(sender);
        its.join().expect("it ends");
    }
}
