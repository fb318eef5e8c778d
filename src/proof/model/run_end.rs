//! Expected consequences of the end of a run.

use std::time::{Duration, Instant};

use super::{Body, Model};
use crate::{core::rules::Policy, exit::Exit, sync::deadline, verdict::Advice};

/// The expected consequences of the end of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreseen {
    /// When the run failed, if it did: as it ended by itself, or was asked to stop.
    since: Instant,
    failed: bool,
    /// What the verdict of the body demands.
    advice: Option<Advice>,
    done: bool,
    backoffs_asked: u32,
}

impl Model {
    /// Notes the end of a run, before the core learns of it.
    pub(crate) fn end(
        &mut self,
        body: Body,
        exit: &Exit,
        is_closed: bool,
        at: Instant,
    ) -> Foreseen {
        self.body = None;
        let until = self.stop_asked.map_or(at, |(asked, _)| asked.min(at));
        let healthy_at = deadline::after(body.since, self.rules.healthy_after);
        self.was_healthy = deadline::is_reached(healthy_at, until);
        if self.was_healthy && !self.healthy {
            self.forgiven_at_end = (self.failures, self.failing_for(until));
            (self.failures, self.failing_since) = (0, None);
        }
        let asked = self.stop_asked.is_some() && !self.stopped_for_fault;
        let temporary = self.rules.policy == Policy::Temporary;
        let finished = exit.is_completed()
            && self.rules.policy == Policy::Transient
            && !self.stopped_for_fault;
        let leaves = self.arrived_removing || is_closed || self.restarting;
        let failed = !asked && !temporary && !finished && !leaves;
        // Promise 4: a child that said too soon that it is healthy gets its failures back.
        let least =
            self.last_retry_in.map_or(Duration::ZERO, |delay| delay.min(self.rules.healthy_after));
        if failed && self.healthy && until.saturating_duration_since(body.since) < least {
            (self.failures, self.failing_since) = self.forgiven;
        }
        self.failures_at_end = self.failures;
        self.failed = failed;
        // A verdict is for a run that ended by itself.
        let advice = exit.advice().filter(|_| self.stop_asked.is_none());
        Foreseen {
            since: until,
            failed,
            advice,
            done: temporary || (finished && !asked),
            backoffs_asked: self.backoffs_asked,
        }
    }

    /// Checks what the core did at the end of a run.
    pub(crate) fn ended(
        &mut self,
        foreseen: Foreseen,
        last_backoff: Option<(u32, Duration)>,
        at: Instant,
    ) {
        self.done = foreseen.done;
        self.is_finished = foreseen.done;
        self.gave_up_by_verdict = foreseen.failed && foreseen.advice == Some(Advice::GiveUp);
        if foreseen.failed {
            self.failures += 1;
            self.failing_since.get_or_insert(foreseen.since);
            if self.gave_up_by_verdict
                || self.rules.max_restarts.is_some_and(|most| self.failures > most)
            {
                assert_eq!(
                    self.backoffs_asked, foreseen.backoffs_asked,
                    "no backoff is asked for a child that is given up"
                );
                self.done = true;
            } else {
                let (attempt, delay) =
                    last_backoff.expect("promise 3: a backoff is asked for each failure");
                assert_eq!(attempt, self.failures, "promise 4");
                assert_eq!(
                    self.backoffs_asked,
                    foreseen.backoffs_asked + 1,
                    "promise 3: once for each failure"
                );
                let delay = match foreseen.advice {
                    Some(Advice::RetryAfter(wait)) => delay.max(wait),
                    _ => delay,
                };
                self.not_before = Some(deadline::after(at, delay));
                self.earliest = match foreseen.advice {
                    Some(Advice::RetryAfter(wait)) => deadline::after(at, wait),
                    _ => Some(at),
                };
                self.last_retry_in = Some(delay);
            }
        } else {
            assert_eq!(
                self.backoffs_asked, foreseen.backoffs_asked,
                "promise 4: this was no failure"
            );
        }
        if std::mem::take(&mut self.restarting) {
            (self.failures, self.failing_since) = (0, None);
            self.last_retry_in = None;
            self.not_before = None;
            self.done = self.rules.policy == Policy::Temporary;
            self.is_finished = false;
        }
    }
}
