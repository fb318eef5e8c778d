//! Start rate: how many runs may start in one second, and whose turn it is.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use crate::core::key::Key;

const WINDOW: Duration = Duration::from_secs(1);

/// The place of a child in the queue: a lower one is served sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    /// It is not restarted by hand.
    is_ordinary: bool,
    number: u64,
}

/// The last starts, and the children that are due and wait for their turn.
///
/// Every window of one second holds at most so many starts. So the last ones are remembered, as
/// many as there may be in a window: the next one is allowed when the oldest of them is a second
/// ago.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StartRate {
    most: Option<NonZeroU32>,
    starts: VecDeque<Instant>,
    queue: BTreeMap<Ticket, Key>,
    next_number: u64,
}

impl StartRate {
    /// With `None` there is no limit, and nobody waits.
    pub(super) fn new(most: Option<NonZeroU32>) -> Self {
        Self { most, starts: VecDeque::new(), queue: BTreeMap::new(), next_number: 0 }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.most.is_some()
    }

    /// Puts a child at the end of the queue; one that is restarted by hand, behind the others that
    /// are, and before the rest.
    pub(super) fn join(&mut self, key: Key, is_restarted: bool) -> Ticket {
        let ticket = Ticket { is_ordinary: !is_restarted, number: self.next_number };
        self.next_number += 1;
        self.queue.insert(ticket, key);
        ticket
    }

    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.queue.remove(&ticket);
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Whether it is this child's turn, and a start is allowed.
    pub(super) fn is_turn_of(&self, ticket: Ticket, now: Instant) -> bool {
        let is_first = self.queue.first_key_value().is_some_and(|(first, _)| *first == ticket);
        is_first && self.allowed(now) > 0
    }

    /// Notes a start, or a try for which there was no thread.
    pub(super) fn note(&mut self, now: Instant) {
        let Some(most) = self.most else { return };
        if self.starts.len() >= most.get() as usize {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }

    /// The children whose turn it is now.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = Key> {
        let allowed = if self.queue.is_empty() { 0 } else { self.allowed(now) };
        self.queue.values().take(allowed).copied()
    }

    /// When it is the next child's turn; `None` if nobody waits.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        if self.queue.is_empty() { None } else { self.starts.front()?.checked_add(WINDOW) }
    }

    /// How many starts are allowed now.
    fn allowed(&self, now: Instant) -> usize {
        let Some(most) = self.most else { return usize::MAX };
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        let past = self.starts.partition_point(|at| !recent(at));
        (most.get() as usize).saturating_sub(self.starts.len() - past)
    }
}
