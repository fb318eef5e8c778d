//! One child's circuit: what is known of it, what follows from that, what is to be done.

use std::time::{Duration, Instant};

use crate::{
    event::{Order, StopCause},
    status::{ChildStatus, CircuitState, OffBy},
    sync::deadline,
};

/// The least delay after a start that got no thread: retrying at once would only keep the machine
/// short of threads.
const LEAST_DELAY_WITHOUT_THREAD: Duration = Duration::from_millis(100);

/// When a child that has ended by itself is started again; with OTP's *temporary*, which users
/// spell `ChildSpec::once`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Permanent,
    Transient,
    Temporary,
}

/// The settings of one child, with the supervisor's filled in.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) healthy_after: Duration,
    pub(crate) stop_timeout: Duration,
    pub(crate) max_restarts: Option<u32>,
    pub(crate) significant: bool,
    pub(crate) watchdog: Option<Duration>,
}

impl Rules {
    /// How long after one look for heartbeats the next one is: four to a limit.
    fn time_to_look(&self) -> Duration {
        // The nanosecond makes four of them no less than the limit where that cannot be divided.
        let quarter = self
            .watchdog
            .map_or(Duration::MAX, |limit| (limit / 4).saturating_add(Duration::from_nanos(1)));
        quarter.max(Duration::from_millis(1))
    }
}

/// What is to be done next with a child. At most one thing at a time: doing it changes the facts,
/// and so the next decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Start,
    RequestStop(StopCause),
    /// Its time to stop is over.
    StopTimedOut,
    /// It has been up long enough.
    Trust,
    /// It is time to see whether it has given a sign of life.
    LookForHeartbeat,
    /// It has no use for its thread, nor for its body unless that may run again by hand.
    Retire {
        keep_body: bool,
    },
    Forget,
    /// Nothing, before this instant.
    Sleep(Option<Instant>),
}

/// What other threads are shown of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) status: ChildStatus,
    pub(crate) circuit: CircuitState,
    pub(crate) attempt_count: u32,
    /// The present or last run, counted from 1 over the starts of this child; 0 before the first.
    pub(crate) run: u64,
    /// Since when it runs.
    pub(crate) since: Option<Instant>,
    /// Why it was told to stop, and when.
    pub(crate) stop: Option<(StopCause, Instant)>,
    pub(crate) is_overdue: bool,
    /// While it backs off: when that is over, `None` being never.
    pub(crate) retry_at: Option<Option<Instant>>,
}

/// What the end of a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// It had been up long enough and nobody had noticed yet.
    pub(crate) newly_healthy: bool,
    pub(crate) cause: StopCause,
    pub(crate) uptime: Duration,
    /// The count at the run's end, before this failure.
    pub(crate) attempt_count: u32,
    /// It counts as a failure.
    pub(crate) failed: bool,
    pub(crate) retry_in: Option<Duration>,
    pub(crate) gave_up: bool,
    pub(crate) was_timed_out: bool,
}

/// The facts about one child. [`ChildStatus`] has the table of what follows from them.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Circuit {
    pub(crate) rules: Rules,
    attempt_count: u32,
    /// The delay after its last failure, unless an operator has cleared that.
    last_retry_in: Option<Duration>,
    /// The end of its last backoff; `None` is never.
    not_before: Option<Instant>,
    flag: bool,
    held: bool,
    removing: bool,
    /// Restarted by hand: it is started again, with its history cleared, as its present run ends.
    restarting: bool,
    closing: bool,
    rest: Rest,
    /// Its thread has been let go, and its body too if it can have no further run.
    retired: bool,
    run: Option<Run>,
    last_run: u64,
}

/// What a child that does not run is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    NextRun,
    Finished,
    GaveUp,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Run {
    since: Instant,
    healthy: bool,
    /// The failures that were forgiven as it became healthy.
    forgiven: u32,
    stop: Option<StopRequest>,
    overdue: bool,
    watch: Option<Watch>,
}

/// A watch over the heartbeats of a run.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Watch {
    /// How many there were when it was last looked at, and when that was.
    heartbeats: u64,
    looked: Instant,
    silent_for: Duration,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct StopRequest {
    /// The first cause wins and is never replaced.
    cause: StopCause,
    at: Instant,
    deadline: Option<Instant>,
    timed_out: bool,
}

impl Circuit {
    pub(crate) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            attempt_count: 0,
            last_retry_in: None,
            not_before: Some(now),
            flag: true,
            held: false,
            removing: false,
            restarting: false,
            closing: false,
            rest: Rest::NextRun,
            retired: false,
            run: None,
            last_run: 0,
        }
    }

    /// The one place where the status and what to do follow from the facts.
    pub(crate) fn judge(&self, now: Instant) -> (ChildStatus, Decision) {
        let off = |by| ChildStatus::Off { by };
        let retire = |keep_body| {
            if self.retired { Decision::Sleep(None) } else { Decision::Retire { keep_body } }
        };
        match &self.run {
            Some(Run { stop: Some(stop), .. }) if stop.timed_out => {
                (ChildStatus::Stopping, Decision::Sleep(None))
            }
            Some(Run { stop: Some(stop), .. }) if deadline::is_reached(stop.deadline, now) => {
                (ChildStatus::Stopping, Decision::StopTimedOut)
            }
            Some(Run { stop: Some(stop), .. }) => {
                (ChildStatus::Stopping, Decision::Sleep(stop.deadline))
            }
            Some(run) => {
                let status = if run.healthy { ChildStatus::Healthy } else { ChildStatus::OnTrial };
                let healthy_at = if run.healthy {
                    None
                } else {
                    deadline::after(run.since, self.rules.healthy_after)
                };
                let look_at = run
                    .watch
                    .as_ref()
                    .and_then(|watch| deadline::after(watch.looked, self.rules.time_to_look()));
                match self.stop_cause() {
                    Some(cause) => (status, Decision::RequestStop(cause)),
                    None if deadline::is_reached(healthy_at, now) => (status, Decision::Trust),
                    None if deadline::is_reached(look_at, now) => {
                        (status, Decision::LookForHeartbeat)
                    }
                    None => (status, Decision::Sleep(deadline::sooner(healthy_at, look_at))),
                }
            }
            None if self.removing => (ChildStatus::Finished, Decision::Forget),
            None if self.closing => (off(OffBy::Shutdown), retire(false)),
            None if self.rest == Rest::Finished => (ChildStatus::Finished, retire(true)),
            None if self.rest == Rest::GaveUp => (ChildStatus::GaveUp, retire(true)),
            None if self.held => (off(OffBy::Operator), Decision::Sleep(None)),
            None if !self.flag => (off(OffBy::Flag), Decision::Sleep(None)),
            None if !deadline::is_reached(self.not_before, now) => {
                (ChildStatus::BackingOff, Decision::Sleep(self.not_before))
            }
            None => (ChildStatus::Due, Decision::Start),
        }
    }

    /// Why a running child is not wanted, if so. A shutdown has told it already.
    fn stop_cause(&self) -> Option<StopCause> {
        match () {
            () if self.removing => Some(StopCause::Removed),
            () if self.restarting => Some(StopCause::Restarted),
            () if self.held => Some(StopCause::Held),
            () if !self.flag => Some(StopCause::Disabled),
            () => None,
        }
    }

    pub(crate) fn view(&self, now: Instant) -> View {
        let (status, _) = self.judge(now);
        let circuit = match status {
            ChildStatus::Healthy => CircuitState::Closed,
            ChildStatus::OnTrial if self.attempt_count == 0 => CircuitState::Closed,
            ChildStatus::OnTrial => CircuitState::HalfOpen,
            _ => CircuitState::Open,
        };
        let stop = self.run.as_ref().and_then(|run| run.stop.as_ref());
        View {
            status,
            circuit,
            attempt_count: self.attempt_count,
            run: self.last_run,
            since: self.run.as_ref().map(|run| run.since),
            stop: stop.map(|stop| (stop.cause, stop.at)),
            is_overdue: self.run.as_ref().is_some_and(|run| run.overdue),
            retry_at: (status == ChildStatus::BackingOff).then_some(self.not_before),
        }
    }

    pub(crate) fn attempt_count(&self) -> u32 {
        self.attempt_count
    }

    /// The present or last run; 0 before the first.
    pub(crate) fn last_run(&self) -> u64 {
        self.last_run
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// What its flag was when it was asked last.
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

    /// The flag was asked.
    pub(crate) fn flag_is(&mut self, on: bool) {
        self.flag = on;
    }

    /// There is a thread that waits for the start signal.
    pub(crate) fn got_thread(&mut self) {
        self.retired = false;
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        debug_assert!(self.run.is_none(), "one run at a time");
        self.run = Some(Run {
            since: now,
            healthy: false,
            forgiven: 0,
            stop: None,
            overdue: false,
            watch: None,
        });
        self.last_run += 1;
    }

    /// Takes back a `begin` that nobody was told of.
    pub(crate) fn unbegin(&mut self) {
        self.run = None;
        self.last_run -= 1;
    }

    /// The word to go is being given, later than `begin` by the time that a thread and the sinks
    /// took.
    pub(crate) fn started(&mut self, now: Instant) {
        if let Some(run) = &mut self.run {
            run.since = now;
        }
    }

    /// Notes that it is told to stop. Returns whether that is news; if not, the first cause stays.
    pub(crate) fn request_stop(&mut self, cause: StopCause, now: Instant) -> bool {
        let deadline = deadline::after(now, self.rules.stop_timeout);
        match &mut self.run {
            Some(run) if run.stop.is_none() => {
                run.stop = Some(StopRequest { cause, at: now, deadline, timed_out: false });
                true
            }
            _ => false,
        }
    }

    /// Its time to stop is over. Returns for how long it has been stopping, if that is yet to be
    /// reported.
    pub(crate) fn stop_timed_out(&mut self, now: Instant) -> Option<Duration> {
        let run = self.run.as_mut()?;
        let stop = run.stop.as_mut()?;
        stop.timed_out = true;
        let first = !std::mem::replace(&mut run.overdue, true);
        first.then(|| now.saturating_duration_since(stop.at))
    }

    /// It has given its first sign of life: from now on it is watched, if it is to be.
    pub(crate) fn watch(&mut self, heartbeats: u64, now: Instant) {
        if let (Some(run), Some(_)) = (&mut self.run, self.rules.watchdog) {
            run.watch.get_or_insert(Watch { heartbeats, looked: now, silent_for: Duration::ZERO });
        }
    }

    /// It was looked at. Returns for how long it has been silent, if that is too long.
    ///
    /// A look that comes late counts as one in time: if the supervisor could not run, the child may
    /// not have been able to.
    pub(crate) fn look(&mut self, heartbeats: u64, now: Instant) -> Option<Duration> {
        let (time_to_look, limit) = (self.rules.time_to_look(), self.rules.watchdog?);
        let watch = self.run.as_mut()?.watch.as_mut()?;
        let since = now.saturating_duration_since(watch.looked).min(time_to_look);
        watch.looked = now;
        if std::mem::replace(&mut watch.heartbeats, heartbeats) == heartbeats {
            watch.silent_for = watch.silent_for.saturating_add(since);
        } else {
            watch.silent_for = Duration::ZERO;
        }
        (watch.silent_for >= limit).then_some(watch.silent_for)
    }

    /// It is trusted now, by its uptime or its own word. Returns whether that is news: a run that
    /// was told to stop cannot become healthy any more.
    pub(crate) fn trust(&mut self) -> bool {
        match &mut self.run {
            Some(run) if run.stop.is_none() && !run.healthy => {
                run.healthy = true;
                run.forgiven = std::mem::take(&mut self.attempt_count);
                true
            }
            _ => false,
        }
    }

    /// The run ended at `at`; `backoff` is asked if that is a failure which is to be tried again.
    pub(crate) fn end(
        &mut self,
        at: Instant,
        completed: bool,
        backoff: impl FnOnce(u32) -> Duration,
    ) -> Ended {
        let run = self.run.take().expect("only a present run ends");
        let told_at = run.stop.as_ref().map_or(at, |stop| stop.at.min(at));
        let healthy_at = deadline::after(run.since, self.rules.healthy_after);
        let newly_healthy = !run.healthy && deadline::is_reached(healthy_at, told_at);
        if newly_healthy {
            self.attempt_count = 0;
        }
        let cause = run.stop.as_ref().map_or(StopCause::Exited, |stop| stop.cause);
        let failed = match cause {
            StopCause::Exited => !(completed && self.rules.policy == Policy::Transient),
            StopCause::Tripped | StopCause::Hung => true,
            _ => false,
        };
        if self.rules.policy == Policy::Temporary {
            self.removing = true;
        } else if cause == StopCause::Exited && !failed {
            self.rest = Rest::Finished;
        }
        let mut ended = Ended {
            newly_healthy,
            cause,
            uptime: at.saturating_duration_since(run.since),
            attempt_count: self.attempt_count,
            failed: false,
            retry_in: None,
            gave_up: false,
            was_timed_out: run.stop.is_some_and(|stop| stop.timed_out),
        };
        // A child that goes away, or whose history an operator has cleared, has no failure to wait
        // for.
        let restarting = std::mem::take(&mut self.restarting);
        if failed && !self.removing && !self.closing && !restarting {
            // One that said too soon that it is healthy: its failures go on where they were, or it
            // would be tried again at the shortest delay for ever. By its uptime alone no run
            // becomes healthy so soon.
            let lasted = told_at.saturating_duration_since(run.since);
            let least = self
                .last_retry_in
                .map_or(Duration::ZERO, |delay| delay.min(self.rules.healthy_after));
            if run.healthy && lasted < least {
                self.attempt_count = run.forgiven;
                ended.attempt_count = run.forgiven;
            }
            self.fail(at, Duration::ZERO, backoff, &mut ended);
        }
        ended
    }

    /// There was no thread for the next run: a failure, whatever the restart policy, of a run that
    /// nobody saw begin.
    pub(crate) fn end_without_thread(
        &mut self,
        now: Instant,
        backoff: impl FnOnce(u32) -> Duration,
    ) -> Ended {
        self.last_run += 1;
        let mut ended = Ended {
            newly_healthy: false,
            cause: StopCause::NotSpawned,
            uptime: Duration::ZERO,
            attempt_count: self.attempt_count,
            failed: false,
            retry_in: None,
            gave_up: false,
            was_timed_out: false,
        };
        self.fail(now, LEAST_DELAY_WITHOUT_THREAD, backoff, &mut ended);
        ended
    }

    fn fail(
        &mut self,
        at: Instant,
        least: Duration,
        backoff: impl FnOnce(u32) -> Duration,
        ended: &mut Ended,
    ) {
        ended.failed = true;
        self.attempt_count = self.attempt_count.saturating_add(1);
        // One that is never restarted cannot be restarted too often: until there is a thread for
        // it, it waits.
        let is_restarted = self.rules.policy != Policy::Temporary;
        if is_restarted && self.rules.max_restarts.is_some_and(|most| self.attempt_count > most) {
            self.rest = Rest::GaveUp;
            ended.gave_up = true;
        } else {
            let delay = backoff(self.attempt_count).max(least);
            self.not_before = deadline::after(at, delay);
            self.last_retry_in = Some(delay);
            ended.retry_in = Some(delay);
        }
    }

    // ── What it is told by hand ──

    pub(crate) fn order(&mut self, order: Order, now: Instant) {
        match order {
            Order::Add => {}
            Order::Hold => self.held = true,
            Order::Release => self.held = false,
            Order::Remove => self.removing = true,
            // A running child is to be stopped and started again; one that is down has its history
            // cleared.
            Order::Restart => {
                self.clear_history(now);
                self.restarting = self.is_running();
            }
            // The failures are forgiven, a backoff ends, a given-up child is to be tried again; a
            // finished one stays finished.
            Order::Reset => {
                let rest = self.rest;
                self.clear_history(now);
                if rest == Rest::Finished {
                    self.rest = rest;
                }
            }
        }
    }

    fn clear_history(&mut self, now: Instant) {
        self.attempt_count = 0;
        self.last_retry_in = None;
        self.not_before = Some(now);
        self.rest = Rest::NextRun;
    }

    /// Its thread was let go.
    pub(crate) fn retired(&mut self) {
        self.retired = true;
    }

    /// The supervisor shuts down: every run gets its stop timeout, anew if it had been told before,
    /// but at most `limit`. Returns whether a run that had timed_out was given time again. Said once
    /// more, it can only shorten that time.
    pub(crate) fn close(&mut self, now: Instant, limit: Duration) -> bool {
        let again = std::mem::replace(&mut self.closing, true);
        self.rules.stop_timeout = self.rules.stop_timeout.min(limit);
        let deadline = deadline::after(now, self.rules.stop_timeout);
        if !again {
            // A finished or given-up child keeps its body for a run by hand; now there will be
            // none.
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
    /// Whatever decides what becomes of it, for telling apart moments of which something else may
    /// follow. Instants are shown as how far away they are, and not how long ago where that is
    /// over.
    pub(crate) fn essence(&self, now: Instant) -> impl std::hash::Hash + use<> {
        let Self {
            rules,
            attempt_count,
            last_retry_in,
            not_before,
            flag,
            held,
            removing,
            restarting,
            closing,
            rest,
            retired,
            run,
            last_run: _,
        } = self;
        let left = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let run = run.as_ref().map(|Run { since, healthy, forgiven, stop, overdue, watch }| {
            let age = |at: Instant| at.saturating_duration_since(*since).min(rules.healthy_after);
            let stop = stop.as_ref().map(|StopRequest { cause, at, deadline, timed_out }| {
                (*cause, age(*at), left(*deadline), *timed_out)
            });
            let watch = watch.as_ref().map(|Watch { heartbeats, looked, silent_for }| {
                (*heartbeats, now.saturating_duration_since(*looked), *silent_for)
            });
            (age(now), *healthy, *forgiven, stop, *overdue, watch)
        });
        let switches = [*flag, *held, *removing, *restarting, *closing, *retired];
        (
            rules.stop_timeout,
            *attempt_count,
            *last_retry_in,
            left(*not_before),
            switches,
            *rest as u8,
            run,
        )
    }
}
