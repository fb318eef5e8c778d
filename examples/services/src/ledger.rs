//! Ledger of what was consumed, and of what is to be produced.

use std::time::Duration;

use circuit_breaker_supervisor::{ChildContext, RecvError};
use parking_lot::{Condvar, Mutex};

/// With what a consumer panics that was given a poisoned message.
pub const POISON: &str = "poison";

/// What the consumer has processed: the messages are numbered from 1.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How often each number was processed; that of number 1 comes first.
    counts: Vec<u32>,
    /// How many were processed, duplicates included.
    total: u64,
    /// The next message is processed when this is open.
    gate_is_closed: bool,
    /// A consumer waits at the gate.
    is_at_gate: bool,
    /// The next message makes the consumer panic.
    panics: bool,
}

impl Ledger {
    /// Processes one message, as the consumer does before it acknowledges.
    pub fn process(&self, number: u32) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.panics) {
            drop(state);
            std::panic::panic_any(POISON);
        }
        state.is_at_gate = true;
        self.changed.notify_all();
        while state.gate_is_closed {
            self.changed.wait(&mut state);
        }
        state.is_at_gate = false;
        let index = number as usize - 1;
        if state.counts.len() <= index {
            state.counts.resize(index + 1, 0);
        }
        state.counts[index] += 1;
        state.total += 1;
        self.changed.notify_all();
    }

    pub fn total(&self) -> u64 {
        self.state.lock().total
    }

    pub fn counts(&self) -> Vec<u32> {
        self.state.lock().counts.clone()
    }

    /// How many different messages were processed.
    pub fn distinct(&self) -> u32 {
        let counts = self.counts();
        u32::try_from(counts.iter().filter(|count| **count > 0).count()).unwrap_or(u32::MAX)
    }

    /// The first message that was not processed yet.
    pub fn first_missing(&self) -> u32 {
        let counts = self.counts();
        let index = counts.iter().position(|count| *count == 0).unwrap_or(counts.len());
        u32::try_from(index + 1).unwrap_or(u32::MAX)
    }

    /// Makes the consumer panic at the next message.
    pub fn poison(&self) {
        self.state.lock().panics = true;
    }

    pub fn close_gate(&self) {
        self.state.lock().gate_is_closed = true;
    }

    pub fn open_gate(&self) {
        self.state.lock().gate_is_closed = false;
        self.changed.notify_all();
    }

    /// Waits until a consumer stands at the closed gate.
    pub fn wait_at_gate(&self, limit: Duration) -> Result<(), String> {
        let mut state = self.state.lock();
        let timed_out = self
            .changed
            .wait_while_for(&mut state, |state| !(state.gate_is_closed && state.is_at_gate), limit)
            .timed_out();
        if timed_out { Err("no message came to the gate".into()) } else { Ok(()) }
    }

    /// Waits until more than `total` messages were processed.
    pub fn wait_beyond(&self, total: u64, limit: Duration) -> Result<(), String> {
        let mut state = self.state.lock();
        let timed_out = self
            .changed
            .wait_while_for(&mut state, |state| state.total <= total, limit)
            .timed_out();
        if timed_out { Err(format!("no message beyond {total} within {limit:?}")) } else { Ok(()) }
    }
}

/// What the producer has yet to send: a number is taken off only when its server has confirmed it.
pub struct Outbox {
    allowed: crossbeam_channel::Sender<()>,
    allowance: crossbeam_channel::Receiver<()>,
    state: Mutex<(u32, bool)>,
}

impl Outbox {
    pub fn new() -> Self {
        let (allowed, allowance) = crossbeam_channel::unbounded();
        Self { allowed, allowance, state: Mutex::new((1, false)) }
    }

    /// Lets the producer send one message more.
    pub fn allow_one(&self) {
        self.allowed.send(()).expect("this holds the receiver");
    }

    /// Lets the producer send one message after the other, or no longer.
    pub fn allow_all(&self, all: bool) {
        self.state.lock().1 = all;
    }

    /// The next number, when it may be sent.
    pub fn next(&self, ctx: &ChildContext, is_pending: &mut bool) -> Result<u32, RecvError> {
        while !*is_pending {
            if self.state.lock().1 {
                ctx.sleep(Duration::from_millis(5)).map_err(|_| RecvError::Stopped)?;
                *is_pending = true;
            } else if self.allowance.try_recv().is_ok() {
                *is_pending = true;
            } else {
                ctx.sleep(Duration::from_millis(5)).map_err(|_| RecvError::Stopped)?;
            }
        }
        Ok(self.state.lock().0)
    }

    /// The server has it.
    pub fn confirm(&self, is_pending: &mut bool) {
        *is_pending = false;
        self.state.lock().0 += 1;
    }

    /// Whether nothing is allowed that was not taken up.
    pub fn is_empty(&self) -> bool {
        self.allowance.is_empty()
    }

    /// How many the server has confirmed.
    pub fn confirmed(&self) -> u32 {
        self.state.lock().0 - 1
    }
}
