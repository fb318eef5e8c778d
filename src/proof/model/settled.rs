//! Laws that hold whenever the core has nothing left to do.

use std::time::Instant;

use super::Model;
use crate::{
    status::{ChildStatus, CircuitState, OffBy},
    sync::deadline,
};

impl Model {
    /// Checks what has to hold whenever the core has nothing left to do. `is_closed` does not count
    /// where the shutdown has it wait for others.
    pub(crate) fn check(&mut self, is_closed: bool, now: Instant) {
        let id = &self.id;
        assert!(
            !std::mem::take(&mut self.is_owed_health) || self.healthy,
            "promise 5: {id} said that it is healthy"
        );
        assert!(
            !std::mem::take(&mut self.is_owed_trip) || self.stopped_for_fault,
            "{id} was tripped by its callers"
        );
        assert!(!self.is_owed_abandonment, "{id} was abandoned, which was not reported");
        assert!(
            self.owed_orders.is_empty(),
            "promise 10: {id} was ordered {:?}, which was not reported",
            self.owed_orders
        );
        assert!(
            self.owed_flags.is_empty(),
            "promise 6: {id} was switched {:?}, which was not reported",
            self.owed_flags
        );
        assert_eq!(
            self.unreported_flag_panics, 0,
            "promise 8: the panic of {id}'s flag is reported"
        );
        assert!(self.view.is_some() || !self.is_inserted, "{id} was added and nobody looked at it");
        let Some(view) = self.view else { return };
        if let Some(body) = self.body {
            let healthy_at = deadline::after(body.since, self.rules.healthy_after);
            assert!(
                self.healthy || self.stop_asked.is_some() || !deadline::is_reached(healthy_at, now),
                "promise 5: {id} is up long enough and nobody noticed"
            );
            if self.arrived_held || self.arrived_removing || is_closed || !self.asked_flag {
                assert!(
                    self.stop_asked.is_some(),
                    "promise 6: {id} is not wanted and was not asked to stop"
                );
            }
            if let Some((_, until)) = self.stop_asked {
                assert!(
                    self.overdue || !deadline::is_reached(until, now),
                    "{id} is overdue and nobody noticed"
                );
            }
            assert!(view.status.is_running());
        }
        assert_eq!(view.failures, self.failures, "promise 4: {id}");
        assert_eq!(view.since, self.body.map(|body| body.since), "since when {id} is up");
        assert_eq!(
            view.stop.map(|(_, at)| at),
            self.stop_asked.map(|(at, _)| at),
            "since when {id} is stopping"
        );
        assert_eq!(view.is_overdue, self.body.is_some() && self.overdue, "whether {id} is overdue");
        let until = match (view.status, self.body) {
            (ChildStatus::BackingOff, _) => self.not_before.flatten(),
            (ChildStatus::OnTrial, Some(body)) => {
                deadline::after(body.since, self.rules.healthy_after)
            }
            _ => None,
        };
        assert_eq!(view.until, until, "when {id} is tried again, or healthy");
        let circuit = match self.body {
            Some(_) if self.stop_asked.is_none() && (self.healthy || self.failures == 0) => {
                CircuitState::Closed
            }
            Some(_) if self.stop_asked.is_none() => CircuitState::HalfOpen,
            _ => CircuitState::Open,
        };
        assert_eq!(view.circuit, circuit, "what callers see of {id}: {view:?}");
    }

    /// Checks what has to hold when, in addition, no message is on its way to the core.
    pub(crate) fn check_at_rest(&self, is_rate_used_up: bool, now: Instant) {
        if self.view.is_none() || self.body.is_some() || !self.listed {
            return;
        }
        let due = self.not_before.is_none_or(|at| deadline::is_reached(at, now));
        let wanted = self.asked_flag && !self.held && !self.removing && !self.done;
        let is_waiting = self.view.is_some_and(|view| view.status == ChildStatus::Waiting);
        assert_eq!(is_waiting, wanted && self.was_blocked, "whether {} waits", self.id);
        assert!(!is_waiting || self.is_waiting_told, "promise 3: {} waits in silence", self.id);
        assert!(
            !(wanted && due && !self.was_blocked) || is_rate_used_up,
            "promise 3: {} is due and was not started: {:?}",
            self.id,
            self.view
        );
        assert!(!self.arrived_removing, "{} was removed and stays", self.id);
        assert!(!(self.done && self.has_thread), "{} is done, and keeps a thread", self.id);
        let status = self.view.map(|view| view.status);
        let is_off = status == Some(ChildStatus::Off { by: OffBy::Operator });
        assert_eq!(
            is_off,
            self.arrived_held && !self.done,
            "whether {} is shown as held: {status:?}",
            self.id
        );
    }

    /// Checks what has to hold after a shutdown in which every run has ended.
    pub(crate) fn check_end(&self) {
        assert!(
            !self.listed || self.is_body_gone,
            "promise 11: the body of {} was not dropped",
            self.id
        );
        assert!(
            self.started.is_none() && self.began.is_none(),
            "promise 2: no Stopped for {}",
            self.id
        );
    }
}
