//! Rounds, in which the flags of all children are asked.

use crate::core::{flag_cache::Expectation, interface::Environment, roster::Roster};

/// The number of children a round visits before the engine serves its inbox again.
const ROUND_CHUNK: u32 = 256;

/// A pass over the flags of all children, in list order.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Round {
    /// The place of the next child in `FlagCache`.
    pub(super) next: usize,
    /// Another round was requested meanwhile.
    again: bool,
}

impl<T> Roster<T> {
    /// Starts a round over all flags. If one is under way, another one follows, since the present
    /// one may already have passed the flag that changed.
    pub(crate) fn begin_round(&mut self) {
        match &mut self.round {
            _ if self.closing.is_some() => {}
            Some(round) => round.again = true,
            None => self.round = Some(Round { next: 0, again: false }),
        }
    }

    pub(crate) fn is_in_round(&self) -> bool {
        self.round.is_some()
    }

    /// Whether the first round is complete, or a shutdown has ended all rounds. [`is_in_round`]
    /// does not tell: where flags are slow, rounds may follow one another without end.
    ///
    /// [`is_in_round`]: Self::is_in_round
    pub(crate) fn has_had_round(&self) -> bool {
        self.has_had_round || self.closing.is_some()
    }

    /// Continues a round, up to the first child for which there is something to do, or to the end
    /// of a chunk. To be called only when all is settled.
    pub(crate) fn continue_round(&mut self, environment: &mut impl Environment<Entry = T>) {
        debug_assert!(self.steps.is_empty() && self.unsettled.is_empty());
        let Some(round) = &mut self.round else { return };
        let mut left = ROUND_CHUNK;
        let mut stopped_at = None;
        for (key, id, expectation) in self.flags.from(round.next) {
            round.next += 1;
            if matches!(expectation, Expectation::Unasked | Expectation::Gone) {
                continue;
            }
            let answer = environment.is_enabled(key, id);
            let is_settled = match expectation {
                Expectation::NothingIf(on) => answer.value.is_none_or(|value| value == on),
                Expectation::Unknown | Expectation::Unasked | Expectation::Gone => false,
            };
            if !is_settled || answer.panic.is_some() {
                stopped_at = Some((key, answer));
                break;
            }
            left -= 1;
            if left == 0 {
                return;
            }
        }
        match stopped_at {
            Some((key, answer)) => {
                // The callbacks took time.
                let now = environment.now();
                self.note_flag(key, answer, now);
                // If sinks are called before the decision, which take time, a start has to ask the
                // flag again.
                self.unsettled.push_back((key, self.steps.is_empty()));
            }
            None => {
                self.round = round.again.then_some(Round { next: 0, again: false });
                if !std::mem::replace(&mut self.has_had_round, true) {
                    self.dependencies.resume_deferred(environment.now());
                }
            }
        }
    }
}
