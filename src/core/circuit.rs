//! Facts about one child, the status that follows from them, and the next decision.

use std::time::{Duration, Instant};

use crate::{
    core::{
        rules::{Policy, Rules},
        run::{Heartbeats, Run, Streak},
    },
    event::{Order, StopCause, StopKind},
    exit::Exit,
    status::{ChildStatus, CircuitState, OffBy},
    sync::deadline,
    verdict::Advice,
};

/// The least delay after a failed spawn: an immediate retry would only keep the machine short of
/// threads.
const LEAST_DELAY_WITHOUT_THREAD: Duration = Duration::from_millis(100);

/// The next thing to do for a child. Only one at a time: doing it changes the facts, and so the
/// next decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Start,
    /// Report, once between two runs, that it waits for what it comes after.
    ReportWaiting,
    RequestStop(StopCause),
    /// Its stop timeout is over.
    StopTimedOut,
    /// It is time to look whether it is to be abandoned, since it does not stop.
    ConsiderAbandoning,
    /// It has been up for `healthy_after`.
    Trust,
    /// It is time to check for a new heartbeat.
    LookForHeartbeat,
    /// It needs no thread any more. It keeps its body if an operator may start it again.
    Retire {
        keep_body: bool,
    },
    Forget,
    /// Do nothing before this instant; `None` is never.
    Sleep(Option<Instant>),
}

/// What other threads see of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) status: ChildStatus,
    pub(crate) circuit: CircuitState,
    pub(crate) failures: u32,
    /// The number of the present or last run, counted from 1; 0 before the first.
    pub(crate) run: u64,
    /// When the present run started.
    pub(crate) since: Option<Instant>,
    /// The cause and the time of the stop request.
    pub(crate) stop: Option<(StopCause, Instant)>,
    pub(crate) is_overdue: bool,
    /// While it backs off: the end of the backoff. While it is on trial: when it becomes healthy by
    /// its uptime. `None` is never.
    pub(crate) until: Option<Instant>,
}

#[cfg(test)]
impl View {
    /// A view for tests to which only the run matters, and the state that callers see.
    pub(crate) fn of_run(run: u64, circuit: CircuitState) -> Self {
        Self {
            status: ChildStatus::OnTrial,
            circuit,
            failures: 0,
            run,
            since: None,
            stop: None,
            is_overdue: false,
            until: None,
        }
    }
}

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The failures that were forgiven, and when, if it had been up for `healthy_after` and no
    /// timer had noticed that yet.
    pub(crate) newly_healthy: Option<(Streak, Instant)>,
    pub(crate) cause: StopCause,
    pub(crate) uptime: Duration,
    /// The failure count at the end of the run, without this failure.
    pub(crate) failures_before: u32,
    pub(crate) consequence: Consequence,
    pub(crate) was_timed_out: bool,
}

/// What follows from the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// It does not count as a failure.
    NoFailure,
    /// A failure, after which the child backs off: for no less than `least`, whatever its backoff
    /// says. The caller asks the backoff, and [`back_off`](Circuit::back_off) follows.
    BackOff { least: Duration },
    /// A failure too many, or one after which trying again is useless: the child is given up.
    GiveUp,
}

/// The facts about one child. The table of [`ChildStatus`] shows what follows from them.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Circuit {
    pub(crate) rules: Rules,
    streak: Streak,
    /// The delay after its last failure; `None` if there was none, or an operator has cleared the
    /// history.
    last_retry_in: Option<Duration>,
    /// The earliest instant of the next start; `None` is never.
    not_before: Option<Instant>,
    flag: bool,
    /// Not all that it comes after is ready.
    is_blocked: bool,
    /// Since its last run, it was reported as waiting.
    is_waiting_told: bool,
    held: bool,
    removing: bool,
    /// An operator restarts it: it starts again, with its history cleared, when its present run
    /// ends.
    restarting: bool,
    closing: bool,
    fate: Fate,
    /// Its thread was asked to leave, and to drop the body if no further run is possible.
    retired: bool,
    run: Option<Run>,
    last_run: u64,
}

/// What comes next for a child that does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    NextRun,
    Finished,
    GaveUp,
}

impl Circuit {
    pub(crate) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            streak: Streak::default(),
            last_retry_in: None,
            not_before: Some(now),
            flag: true,
            is_blocked: false,
            is_waiting_told: false,
            held: false,
            removing: false,
            restarting: false,
            closing: false,
            fate: Fate::NextRun,
            retired: false,
            run: None,
            last_run: 0,
        }
    }

    /// Derives the status and the next decision from the facts. No other place of the core does;
    /// once the supervisor thread is stuck or has ended, `Shared` shows by itself what is left.
    pub(crate) fn judge(&self, now: Instant) -> (ChildStatus, Decision) {
        let off = |by| ChildStatus::Off { by };
        let retire = |keep_body| {
            if self.retired { Decision::Sleep(None) } else { Decision::Retire { keep_body } }
        };
        match &self.run {
            Some(Run { stop: Some(stop), .. }) => {
                let timeout = stop.deadline.filter(|_| !stop.timed_out);
                let next_look = stop.next_look(&self.rules);
                let decision = if deadline::is_reached(timeout, now) {
                    Decision::StopTimedOut
                } else if deadline::is_reached(next_look, now) {
                    Decision::ConsiderAbandoning
                } else {
                    Decision::Sleep(deadline::sooner(timeout, next_look))
                };
                (ChildStatus::Stopping, decision)
            }
            Some(run) => {
                let status = if run.healthy { ChildStatus::Healthy } else { ChildStatus::OnTrial };
                let (healthy_at, next_look) =
                    (run.healthy_at(&self.rules), run.next_look(&self.rules));
                match self.stop_cause() {
                    Some(cause) => (status, Decision::RequestStop(cause)),
                    None if deadline::is_reached(healthy_at, now) => (status, Decision::Trust),
                    None if deadline::is_reached(next_look, now) => {
                        (status, Decision::LookForHeartbeat)
                    }
                    None => (status, Decision::Sleep(deadline::sooner(healthy_at, next_look))),
                }
            }
            None if self.removing => (ChildStatus::Finished, Decision::Forget),
            None if self.closing => (off(OffBy::Shutdown), retire(false)),
            None if self.fate == Fate::Finished => (ChildStatus::Finished, retire(true)),
            None if self.fate == Fate::GaveUp => (ChildStatus::GaveUp, retire(true)),
            None if self.held => (off(OffBy::Operator), Decision::Sleep(None)),
            None if !self.flag => (off(OffBy::Flag), Decision::Sleep(None)),
            None if self.is_blocked && !self.is_waiting_told => {
                (ChildStatus::Waiting, Decision::ReportWaiting)
            }
            None if self.is_blocked => (ChildStatus::Waiting, Decision::Sleep(None)),
            None if !deadline::is_reached(self.not_before, now) => {
                (ChildStatus::BackingOff, Decision::Sleep(self.not_before))
            }
            None => (ChildStatus::Due, Decision::Start),
        }
    }

    /// Why a running child has to stop, if it has to. A shutdown is no case here, since
    /// `Roster::close` requests those stops itself.
    fn stop_cause(&self) -> Option<StopCause> {
        if self.removing {
            Some(StopCause::Removed)
        } else if self.restarting {
            Some(StopCause::Restarted)
        } else if self.held {
            Some(StopCause::Held)
        } else if !self.flag {
            Some(StopCause::Disabled)
        } else {
            None
        }
    }

    pub(crate) fn view(&self, now: Instant) -> View {
        let (status, _) = self.judge(now);
        let circuit = match status {
            ChildStatus::Healthy => CircuitState::Closed,
            ChildStatus::OnTrial if self.failures() == 0 => CircuitState::Closed,
            ChildStatus::OnTrial => CircuitState::HalfOpen,
            ChildStatus::Stopping
            | ChildStatus::Waiting
            | ChildStatus::BackingOff
            | ChildStatus::Off { .. }
            | ChildStatus::Due
            | ChildStatus::Finished
            | ChildStatus::GaveUp => CircuitState::Open,
        };
        let stop = self.run.as_ref().and_then(|run| run.stop.as_ref());
        View {
            status,
            circuit,
            failures: self.failures(),
            run: self.last_run,
            since: self.run.as_ref().map(|run| run.since),
            stop: stop.map(|stop| (stop.cause, stop.at)),
            is_overdue: self.run.as_ref().is_some_and(|run| run.overdue),
            until: match (status, &self.run) {
                (ChildStatus::BackingOff, _) => self.not_before,
                (ChildStatus::OnTrial, Some(run)) => run.healthy_at(&self.rules),
                _ => None,
            },
        }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.streak.failures
    }

    /// The number of the present or last run; 0 before the first.
    pub(crate) fn last_run(&self) -> u64 {
        self.last_run
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.stop.is_some())
    }

    /// Whether those that come after it may start.
    pub(crate) fn is_ready(&self) -> bool {
        match (self.rules.policy, &self.run) {
            (Policy::Permanent, Some(run)) => run.healthy && run.stop.is_none(),
            (Policy::Transient, None) => self.fate == Fate::Finished && !self.removing,
            (Policy::Permanent, None) | (Policy::Transient, Some(_)) | (Policy::Temporary, _) => {
                false
            }
        }
    }

    /// The last answer of its flag.
    pub(crate) fn flag(&self) -> bool {
        self.flag
    }

    pub(crate) fn is_removing(&self) -> bool {
        self.removing
    }

    /// Whether `run` is the present run.
    pub(crate) fn is_present(&self, run: u64) -> bool {
        self.run.is_some() && self.last_run == run
    }

    // ── What happens to it ──

    /// Notes the answer of the flag. Returns whether it has changed.
    pub(crate) fn flag_is(&mut self, on: bool) -> bool {
        std::mem::replace(&mut self.flag, on) != on
    }

    /// Notes that a thread waits for the start signal.
    pub(crate) fn got_thread(&mut self) {
        self.retired = false;
    }

    pub(crate) fn begin_run(&mut self, now: Instant) {
        debug_assert!(self.run.is_none(), "one run at a time");
        self.run = Some(Run::new(now));
        self.last_run += 1;
    }

    /// Undoes a `begin_run` that was neither published nor reported.
    pub(crate) fn take_back_run(&mut self) {
        self.run = None;
        self.last_run -= 1;
    }

    /// Dates the run from its start signal. That comes later than `begin_run`, by the time that the
    /// thread and the event sinks took.
    pub(crate) fn date_run(&mut self, now: Instant) {
        if let Some(run) = &mut self.run {
            run.since = now;
            self.is_waiting_told = false;
        }
    }

    /// Notes a stop request. It has its stop timeout to stop, and until `cap` at the latest.
    /// Returns whether it is the first request of a run; a later one changes nothing.
    pub(crate) fn request_stop(
        &mut self,
        cause: StopCause,
        cap: Option<Instant>,
        now: Instant,
    ) -> bool {
        let deadline = deadline::sooner(deadline::after(now, self.rules.stop_timeout), cap);
        let rules = &self.rules;
        self.run.as_mut().is_some_and(|run| run.request_stop(cause, deadline, rules, now))
    }

    /// Notes that its stop timeout is over. Returns how long it has been stopping, unless this run
    /// was reported as overdue before.
    pub(crate) fn stop_timed_out(&mut self, now: Instant) -> Option<Duration> {
        self.run.as_mut()?.stop_timed_out(now)
    }

    /// Counts the time for which it has not stopped. Returns the time since the stop request if the
    /// run has to be abandoned now, once.
    pub(crate) fn consider_abandoning(&mut self, now: Instant) -> Option<Duration> {
        self.run.as_mut()?.stop.as_mut()?.count(&self.rules, now)
    }

    /// Starts the watchdog, if the child has one, on the first heartbeat of the run.
    pub(crate) fn watch(&mut self, heartbeats: u64, now: Instant) {
        if let (Some(run), Some(_)) = (&mut self.run, self.rules.watchdog) {
            run.watch(heartbeats, now);
        }
    }

    /// Notes the present number of heartbeats. Returns how long the run has been silent, if that
    /// reaches the watchdog's limit.
    pub(crate) fn look(&mut self, heartbeats: Heartbeats, now: Instant) -> Option<Duration> {
        self.run.as_mut()?.look(heartbeats, &self.rules, now)
    }

    /// Marks the run as healthy, by its uptime or because the child said so. Returns the failures
    /// that this forgives; `None` if it is not new. After a stop request a run cannot become
    /// healthy any more.
    pub(crate) fn trust(&mut self) -> Option<Streak> {
        let run = self.run.as_mut().filter(|run| run.stop.is_none() && !run.healthy)?;
        run.healthy = true;
        run.forgiven = std::mem::take(&mut self.streak);
        Some(run.forgiven)
    }

    /// Ends the run at `at`.
    pub(crate) fn end_run(&mut self, at: Instant, exit: &Exit) -> Ended {
        let run = self.run.take().expect("only a present run ends");
        let counted_until = run.stop.as_ref().map_or(at, |stop| stop.at.min(at));
        let newly_healthy = deadline::is_reached(run.healthy_at(&self.rules), counted_until)
            .then(|| (std::mem::take(&mut self.streak), counted_until));
        let cause = run.stop.as_ref().map_or(StopCause::Exited, |stop| stop.cause);
        let failed = match cause.kind() {
            StopKind::ByItself => !(exit.is_completed() && self.rules.policy == Policy::Transient),
            StopKind::Fault | StopKind::NotSpawned => true,
            StopKind::Asked => false,
        };
        if self.rules.policy == Policy::Temporary {
            // However it ended, it leaves the list: so its end is no failure below.
            self.removing = true;
        } else if cause.kind() == StopKind::ByItself && !failed {
            self.fate = Fate::Finished;
        }
        // A failure does not count if the child is being removed or shut down, or if an operator
        // restarts it: its history is cleared.
        let restarting = std::mem::take(&mut self.restarting);
        let counts = failed && !self.removing && !self.closing && !restarting;
        if counts
            && run.healthy
            && counted_until.saturating_duration_since(run.since) < self.probation()
        {
            self.streak = run.forgiven;
        }
        // Only a run that ended by itself can say what is to follow.
        let advice = cause.advice(exit);
        Ended {
            newly_healthy,
            cause,
            uptime: at.saturating_duration_since(run.since),
            failures_before: self.failures(),
            consequence: if counts {
                self.fail(counted_until, advice)
            } else {
                Consequence::NoFailure
            },
            was_timed_out: run.stop.is_some_and(|stop| stop.timed_out),
        }
    }

    /// How long a run that said it is healthy has to last to have proved it. If one fails sooner,
    /// its earlier failures count again: otherwise a child that always says so would be retried at
    /// the shortest delay for ever. A run that is healthy by its uptime has lasted long enough.
    fn probation(&self) -> Duration {
        let delay = self.last_retry_in.unwrap_or_default();
        delay.min(self.rules.healthy_after)
    }

    /// Counts a failed spawn as a failure, whatever the restart policy. It takes a run number,
    /// although nobody saw that run begin.
    pub(crate) fn fail_spawn(&mut self, at: Instant) -> Ended {
        self.last_run += 1;
        self.is_waiting_told = false;
        Ended {
            newly_healthy: None,
            cause: StopCause::NotSpawned,
            uptime: Duration::ZERO,
            failures_before: self.failures(),
            consequence: self.fail(at, Some(Advice::RetryAfter(LEAST_DELAY_WITHOUT_THREAD))),
            was_timed_out: false,
        }
    }

    fn fail(&mut self, at: Instant, advice: Option<Advice>) -> Consequence {
        self.streak.add(at);
        let least = match advice {
            Some(Advice::GiveUp) => {
                self.fate = Fate::GaveUp;
                return Consequence::GiveUp;
            }
            Some(Advice::RetryAfter(wait)) => wait,
            None => Duration::ZERO,
        };
        // A temporary child has no restarts to use up. It comes here only for want of a thread, and
        // is retried until there is one.
        let is_restarted = self.rules.policy != Policy::Temporary;
        if is_restarted && self.rules.max_restarts.is_some_and(|most| self.failures() > most) {
            self.fate = Fate::GaveUp;
            Consequence::GiveUp
        } else {
            Consequence::BackOff { least }
        }
    }

    /// Keeps the child down for `delay` after a failure at `at`.
    pub(crate) fn back_off(&mut self, at: Instant, delay: Duration) {
        self.not_before = deadline::after(at, delay);
        self.last_retry_in = Some(delay);
    }

    // ── What it comes after ──

    pub(crate) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Notes that something that it comes after is not ready.
    pub(crate) fn dependency_failed(&mut self) {
        self.is_blocked = true;
    }

    /// Notes that all that it comes after is ready. That ends its backoff, but not before
    /// `earliest`; `None` is never.
    pub(crate) fn dependencies_recovered(&mut self, earliest: Option<Instant>) {
        self.is_blocked = false;
        if let (Some(not_before), Some(earliest)) = (&mut self.not_before, earliest) {
            *not_before = earliest.min(*not_before);
        }
    }

    /// Notes that it was reported as waiting.
    pub(crate) fn note_waiting_told(&mut self) {
        self.is_waiting_told = true;
    }

    // ── Orders and the shutdown ──

    pub(crate) fn order(&mut self, order: Order, now: Instant) {
        match order {
            Order::Add => {}
            Order::Hold => self.held = true,
            Order::Release => self.held = false,
            Order::Remove => self.removing = true,
            // `stop_cause` stops a running child. One that is down needs no more than a cleared
            // history to start again.
            Order::Restart => {
                self.clear_history(now);
                // In a shutdown it would not start again.
                self.restarting = self.is_running() && !self.closing;
            }
            // Failures are forgiven, a backoff ends, a given-up child starts again. A finished
            // child stays finished.
            Order::Reset => {
                let fate = self.fate;
                self.clear_history(now);
                if fate == Fate::Finished {
                    self.fate = fate;
                }
            }
        }
    }

    fn clear_history(&mut self, now: Instant) {
        self.streak = Streak::default();
        self.last_retry_in = None;
        self.not_before = Some(now);
        self.fate = Fate::NextRun;
    }

    /// Notes that its thread was asked to leave.
    pub(crate) fn retired(&mut self) {
        self.retired = true;
    }

    /// Notes that the supervisor shuts down. A run that was stopping before has its stop timeout
    /// anew, and until `cap` at the latest. Returns whether a run whose stop had timed out got time
    /// again. A repeated call can only shorten the time.
    pub(crate) fn close(&mut self, now: Instant, cap: Option<Instant>) -> bool {
        let again = std::mem::replace(&mut self.closing, true);
        let deadline = deadline::sooner(deadline::after(now, self.rules.stop_timeout), cap);
        if !again {
            // A finished or given-up child has kept its body, in case an operator starts it again.
            // That cannot happen any more, so it has to retire once more and drop the body.
            self.retired = false;
        }
        let Some(stop) = self.run.as_mut().and_then(|run| run.stop.as_mut()) else { return false };
        if again {
            stop.deadline = deadline::sooner(stop.deadline, deadline);
            return false;
        }
        stop.deadline = deadline;
        std::mem::replace(&mut stop.timed_out, false)
    }
}

#[cfg(test)]
impl Circuit {
    /// All that decides its future behaviour: two states of equal essence behave alike. Deadlines
    /// appear as the time left, which is zero once they have passed.
    pub(crate) fn essence(&self, now: Instant) -> impl std::hash::Hash + use<> {
        let Self {
            rules,
            streak,
            last_retry_in,
            not_before,
            flag,
            is_blocked,
            is_waiting_told,
            held,
            removing,
            restarting,
            closing,
            fate,
            retired,
            run,
            last_run: _,
        } = self;
        let left = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let circumstances = [*is_blocked, *is_waiting_told];
        let switches = [*flag, *held, *removing, *restarting, *closing, *retired];
        (
            circumstances,
            // Nothing is decided by the time of the first failure.
            streak.failures,
            *last_retry_in,
            left(*not_before),
            switches,
            *fate as u8,
            run.as_ref().map(|run| run.essence(rules, now)),
        )
    }
}
