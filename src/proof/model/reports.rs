//! Laws of the core's reports.

use std::time::{Duration, Instant};

use super::Model;
use crate::{
    core::rules::Policy,
    event::{Callback, EventKind, StopCause},
    proof::world::MS,
    sync::deadline,
};

impl Model {
    pub(crate) fn report(&mut self, run: u64, failures: u32, kind: EventKind, now: Instant) {
        let view = self.view.expect("promise 2: what is reported can be seen");
        match kind {
            EventKind::Started => {
                assert_eq!((self.began, view.run), (Some(run), run), "promise 2");
                assert!(self.started.is_none());
                assert_eq!(failures, self.failures, "promise 4");
                self.started = Some(run);
                self.began = None;
            }
            EventKind::Stopped { cause: StopCause::NotSpawned, failed, retry_in, .. } => {
                assert!(failed, "promise 13: a start without a thread is a failure");
                assert!(
                    self.began.is_none() && self.started.is_none(),
                    "promise 2: a start that failed has no Started"
                );
                assert_eq!(
                    run,
                    self.last_run + 1,
                    "promise 12: starts that failed are counted, too"
                );
                (self.last_run, self.runs) = (run, self.runs + 1);
                assert_eq!(failures, self.failures, "promise 4");
                assert!(!view.status.is_running(), "promise 2");
                self.not_spawned(retry_in, now);
            }
            EventKind::Stopped { cause, failed, .. } => {
                assert_eq!(failed, self.failed, "promise 4: whether it is a failure");
                assert_eq!(
                    self.started.take(),
                    Some(run),
                    "promise 2: Stopped pairs with its Started"
                );
                assert!(
                    self.body.is_none() && !view.status.is_running(),
                    "promise 2: Stopped comes after the body"
                );
                assert_eq!(
                    cause == StopCause::Exited,
                    self.stop_asked.is_none(),
                    "asked or not: {cause}"
                );
                assert!(
                    self.healthy || !self.was_healthy,
                    "promise 5: nobody noticed that it had been up long enough"
                );
                assert_eq!(
                    failures, self.failures_at_end,
                    "promise 4: the failures before this one"
                );
                self.stop_asked = None;
            }
            EventKind::Healthy { forgiven, failing_for, marked } => {
                assert!(
                    self.started == Some(run) && !self.healthy,
                    "promise 5: Healthy once a run"
                );
                assert_eq!(failures, 0, "promise 4");
                if let Some(body) = self.body {
                    assert!(self.stop_asked.is_none(), "a stopping run does not become healthy");
                    let is_due = deadline::is_reached(
                        deadline::after(body.since, self.rules.healthy_after),
                        now,
                    );
                    let has_reason = if marked { self.is_owed_health } else { is_due };
                    assert!(has_reason, "promise 5: {} is healthy, and why?", self.id);
                    assert_eq!(
                        (forgiven, failing_for),
                        (self.failures, self.failing_for(now)),
                        "what it recovers from"
                    );
                    self.forgiven = (
                        std::mem::take(&mut self.failures),
                        std::mem::take(&mut self.failing_since),
                    );
                } else {
                    assert!(!marked && self.was_healthy, "it was up for long enough");
                    assert_eq!((forgiven, failing_for), self.forgiven_at_end);
                }
                self.healthy = true;
            }
            EventKind::Overdue { .. } => {
                let (_, until) = self.stop_asked.expect("only those who were asked are overdue");
                assert!(!self.overdue, "promise 2: Overdue once a run");
                assert!(deadline::is_reached(until, now), "overdue before its time");
                self.overdue = true;
            }
            EventKind::Abandoned { .. } => {
                let is_owed = std::mem::take(&mut self.is_owed_abandonment);
                assert!(is_owed, "that the outermost supervisor ends is reported once");
            }
            EventKind::Tripped { .. } => {
                assert!(
                    self.stop_asked.is_some()
                        && !self.stopped_for_fault
                        && self.started == Some(run),
                    "it is asked to stop, once"
                );
                self.stopped_for_fault = true;
            }
            EventKind::Hung { .. } => {
                assert!(!self.is_waiting, "a run that waits by its context is alive");
                let silent_for = now
                    - self
                        .last_heartbeat
                        .expect("only a run that has given a heartbeat is watched");
                assert!(
                    silent_for >= self.rules.watchdog.expect("a watchdog"),
                    "a hang after {silent_for:?} of silence"
                );
                assert!(
                    self.stop_asked.is_some() && !self.stopped_for_fault,
                    "it is asked to stop, once"
                );
                self.stopped_for_fault = true;
            }
            EventKind::GaveUp => {
                assert!(
                    self.done
                        && failures == self.failures
                        && (self.gave_up_by_verdict
                            || failures > self.rules.max_restarts.expect("a limit"))
                );
            }
            EventKind::Waiting { .. } => {
                assert!(self.was_blocked && self.body.is_none(), "all that it waits for is ready");
                let is_new = !std::mem::replace(&mut self.is_waiting_told, true);
                assert!(is_new, "that it waits is reported once between two runs");
                assert_eq!((run, failures), (self.last_run, self.failures), "promise 4");
            }
            EventKind::Ordered { order } => {
                assert_eq!(
                    self.owed_orders.pop_front(),
                    Some(order),
                    "promise 10: each order is reported once, in its turn"
                );
                assert_eq!(run, self.last_run, "promise 10: with the present or last run");
                assert_eq!(failures, self.failures, "promise 4");
            }
            EventKind::FlagChanged { enabled } => {
                assert_eq!(
                    self.owed_flags.pop_front(),
                    Some(enabled),
                    "promise 6: a change of the flag is reported once"
                );
                assert_eq!((run, failures), (self.last_run, self.failures), "promise 4");
            }
            EventKind::CallbackPanicked { callback: Callback::Enabled, .. } => {
                assert!(
                    self.unreported_flag_panics > 0,
                    "promise 8: a flag's panic is reported once until it succeeds"
                );
                self.unreported_flag_panics -= 1;
            }
            EventKind::CallbackPanicked { .. } => {}
        }
    }

    pub(super) fn failing_for(&self, now: Instant) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| now - since)
    }

    /// Counts a failed spawn. Its delay comes from the report, not from a call of `ask_backoff`.
    fn not_spawned(&mut self, retry_in: Option<Duration>, now: Instant) {
        self.failures += 1;
        self.is_waiting_told = false;
        self.earliest = Some(now + 100 * MS);
        self.failing_since.get_or_insert(now);
        let gives_up = self.rules.policy != Policy::Temporary
            && self.rules.max_restarts.is_some_and(|most| self.failures > most);
        assert_eq!(gives_up, retry_in.is_none());
        match retry_in {
            Some(delay) => {
                assert!(delay >= 100 * MS, "promise 3: a failed spawn waits");
                self.not_before = Some(deadline::after(now, delay));
                self.last_retry_in = Some(delay);
            }
            None => self.done = true,
        }
    }
}
