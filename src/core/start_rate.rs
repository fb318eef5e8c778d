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
/// Every window of one second holds at most so many starts. So those of the last second are
/// remembered: the next one is allowed when there are fewer, or the oldest is a second ago.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StartRate {
    most: Option<NonZeroU32>,
    starts: VecDeque<Instant>,
    queue: BTreeMap<Ticket, Key>,
    next_number: u64,
    /// When a child joined the queue, the last time.
    joined: Option<Instant>,
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < WINDOW
}

impl StartRate {
    /// With `None` there is no limit, and nobody waits.
    pub(super) fn new(most: Option<NonZeroU32>) -> Self {
        Self { most, starts: VecDeque::new(), queue: BTreeMap::new(), next_number: 0, joined: None }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.most.is_some()
    }

    /// Puts a child at the end of the queue; one that is restarted by hand, behind the others that
    /// are, and before the rest.
    pub(super) fn join(&mut self, key: Key, is_restarted: bool, now: Instant) -> Ticket {
        self.joined = Some(now);
        let ticket = Ticket { is_ordinary: !is_restarted, number: self.next_number };
        self.next_number += 1;
        self.queue.insert(ticket, key);
        ticket
    }

    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.queue.remove(&ticket);
    }

    /// Whether it is this child's turn, and a start is allowed.
    pub(super) fn is_turn_of(&self, ticket: Ticket, now: Instant) -> bool {
        let is_first = self.queue.first_key_value().is_some_and(|(first, _)| *first == ticket);
        is_first && self.is_allowed(now)
    }

    /// Notes a start, or a try for which there was no thread.
    pub(super) fn note(&mut self, now: Instant) {
        if self.most.is_some() {
            let past = self.starts.partition_point(|at| !is_recent(*at, now));
            self.starts.drain(..past);
            self.starts.push_back(now);
        }
    }

    /// The child whose turn it is now. Only one, so that messages are served between two starts.
    pub(super) fn next(&self, now: Instant) -> Option<Key> {
        let (_, key) = self.queue.first_key_value()?;
        self.is_allowed(now).then_some(*key)
    }

    /// When it is the next child's turn, which may be in the past; `None` if nobody waits.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let joined = self.joined.filter(|_| !self.queue.is_empty())?;
        self.oldest_of_a_full_window().map_or(Some(joined), |oldest| oldest.checked_add(WINDOW))
    }

    fn is_allowed(&self, now: Instant) -> bool {
        self.oldest_of_a_full_window().is_none_or(|oldest| !is_recent(oldest, now))
    }

    /// The oldest of the starts that are remembered, if there are as many as one second may hold.
    fn oldest_of_a_full_window(&self) -> Option<Instant> {
        let most = self.most?.get() as usize;
        self.starts.front().filter(|_| self.starts.len() >= most).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::clock::system_now;

    #[test]
    fn starts_of_the_last_second_are_remembered_and_no_others() {
        let mut rate = StartRate::new(NonZeroU32::new(u32::MAX));
        let origin = system_now();
        for number in 0..1000 {
            rate.note(origin + number * Duration::from_millis(100));
        }
        assert_eq!(rate.starts.len(), 10);
    }

    #[test]
    fn turn_that_was_not_taken_is_served_at_once() {
        let mut rate = StartRate::new(NonZeroU32::new(2));
        let now = system_now();
        rate.note(now);
        let first = rate.join(Key(1), false, now);
        rate.join(Key(2), false, now);
        assert_eq!((rate.next(now), rate.next_turn()), (Some(Key(1)), Some(now)));
        rate.leave(first);
        assert_eq!((rate.next(now), rate.next_turn()), (Some(Key(2)), Some(now)));
        rate.note(now);
        assert_eq!((rate.next(now), rate.next_turn()), (None, Some(now + WINDOW)));
    }
}
