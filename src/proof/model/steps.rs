//! Laws of each single step of the core.

use std::time::{Duration, Instant};

use super::{Body, Model};
use crate::{
    core::{
        circuit::View,
        interface::{NotProvided, StartDenied},
        rules::Policy,
    },
    exit::Failure,
};

impl Model {
    // ── What the core asks ──

    /// The answer of the flag; `None` if it panics or has no answer.
    pub(crate) fn ask_flag(&mut self, moment: u64, panics: bool) -> Option<bool> {
        assert!(self.listed, "{} is gone and its flag was asked", self.id);
        assert!(!self.arrived_removing, "{} is being removed and its flag was asked", self.id);
        self.asked_in = moment;
        self.unreported_flag_panics += usize::from(panics && !self.is_flag_faulty);
        self.is_flag_faulty = panics;
        if panics {
            return None;
        }
        let before = self.asked_flag;
        self.asked_flag = self.flag.unwrap_or(before);
        if self.asked_flag != before {
            self.owed_flags.push_back(self.asked_flag);
        }
        self.flag
    }

    pub(crate) fn ask_backoff(&mut self) {
        self.backoffs_asked += 1;
    }

    /// Provides a thread for a run that is about to begin, unless an order forbids it.
    pub(crate) fn provide_thread(&mut self, moment: u64, now: Instant) -> Result<(), NotProvided> {
        if self.removing || self.held {
            return Err(NotProvided::Denied(StartDenied));
        }
        assert!(
            self.began.is_none() && self.body.is_none(),
            "promise 1: {} begins while it runs",
            self.id
        );
        assert!(self.asked_flag, "promise 6: {} begins with its flag off", self.id);
        assert_eq!(self.asked_in, moment, "promise 6: the flag is asked right before every start");
        assert!(!self.was_blocked, "promise 3: what {} comes after is not ready", self.id);
        assert!(!self.done, "a finished or given-up child begins");
        if let Some(not_before) = self.not_before {
            let due = not_before.is_some_and(|at| at <= now);
            assert!(due, "promise 3: {} begins at {now:?}, before {not_before:?}", self.id);
        }
        assert!(self.fails_to_spawn || !self.is_body_gone, "its body is gone");
        self.thread_in = moment;
        self.has_thread |= !self.fails_to_spawn;
        if self.fails_to_spawn {
            Err(NotProvided::Failed(Failure::new("no thread".into())))
        } else {
            Ok(())
        }
    }

    /// Publishes a new run, unless an order forbids it.
    pub(crate) fn publish_begin(&mut self, view: View, moment: u64) -> Result<(), StartDenied> {
        if self.removing || self.held {
            return Err(StartDenied);
        }
        assert_eq!(
            self.thread_in, moment,
            "promise 2: nobody sees a run begin for which there may be no thread"
        );
        assert!(!self.fails_to_spawn, "promise 2: a run is seen to begin that has no thread");
        assert_eq!(view.failures, self.failures, "promise 4");
        assert_eq!(view.run, self.last_run + 1, "promise 12: runs are counted from 1");
        self.last_run = view.run;
        self.began = Some(view.run);
        self.is_finished = false;
        self.runs += 1;
        self.view = Some(view);
        Ok(())
    }

    // ── What the core does ──

    pub(crate) fn show(&mut self, view: View) {
        assert!(self.listed);
        let is_told = self.began == Some(view.run) || self.started == Some(view.run);
        assert!(
            !view.status.is_running() || is_told,
            "promise 2: {} is seen running before its start is reported",
            self.id
        );
        self.view = Some(view);
    }

    pub(crate) fn send_start(&mut self, run: u64, failures: u32, now: Instant) {
        assert!(self.body.is_none(), "promise 1: two bodies of {}", self.id);
        assert_eq!(self.started, Some(run), "promise 2: Started comes before the body");
        assert_eq!(failures, self.failures, "promise 4");
        self.body = Some(Body { run, since: now, ended: false });
        self.is_waiting_told = false;
        self.stop_asked = None;
        self.stopped_for_fault = false;
        self.overdue = false;
        self.abandoned = false;
        self.healthy = false;
        self.heartbeats = 0;
        self.last_heartbeat = None;
        self.is_waiting = false;
    }

    pub(crate) fn stop(&mut self, now: Instant) {
        assert!(self.body.is_some() && self.stop_asked.is_none(), "a run is asked to stop once");
        self.stop_asked = Some((now, self.time_to_stop(now)));
    }

    /// `ends_outermost` says whether that did not shut down before.
    pub(crate) fn abandon(
        &mut self,
        run: u64,
        stopping_for: Duration,
        ends_outermost: bool,
        now: Instant,
    ) {
        assert!(self.body.is_some_and(|body| body.run == run), "only a run can be abandoned");
        let (asked, _) = self.stop_asked.expect("only those who were asked are abandoned");
        let limit = self.rules.abandon_after.expect("only who wants it is abandoned");
        assert_eq!(now - asked, stopping_for);
        assert!(stopping_for >= limit, "{} is abandoned after {stopping_for:?}", self.id);
        assert!(!std::mem::replace(&mut self.abandoned, true), "a run is abandoned once");
        self.is_owed_abandonment = ends_outermost;
    }

    pub(crate) fn is_last_run(&mut self, is_closed: bool) {
        assert!(self.arrived_removing || is_closed, "an orderly child loses its body");
        assert!(self.body.is_some() || self.started.is_some(), "only a run can be the last");
        self.is_body_gone = true;
    }

    pub(crate) fn retire(&mut self, keep_body: bool, closing: bool) {
        assert!(self.body.is_none() && self.listed);
        assert!(self.done || !keep_body || closing, "its thread is still of use");
        assert!(keep_body || closing, "its body is still of use");
        self.has_thread = false;
        self.is_body_gone |= !keep_body;
    }

    pub(crate) fn forget(&mut self) {
        assert!(self.body.is_none() && self.started.is_none(), "a running child is forgotten");
        assert!(self.removing || self.rules.policy == Policy::Temporary, "nobody wanted it gone");
        self.listed = false;
    }
}
