//! Steps of the reference supervisor, by the tables of the documentation.

use std::time::Duration;

use circuit_breaker_supervisor::StopCause;

use super::{Message, Reference, Round, child::Run};
use crate::program::*;

impl Reference {
    pub(super) fn catch_up(&mut self) {
        loop {
            self.see_to_all();
            self.continue_round();
            self.see_to_all();
            if self.closes.is_some_and(|since| {
                self.children.iter().all(|child| !child.is_waited_for(since, self.now))
            }) {
                self.has_ended = true;
                // Ends of the same moment are told of still.
                for message in std::mem::take(&mut self.inbox) {
                    if let Message::End(..) = message {
                        self.carry_out(message);
                    }
                }
                return;
            }
            match self.inbox.pop_front() {
                Some(message) => self.carry_out(message),
                None if self.round.is_none() => break,
                None => {}
            }
        }
    }

    fn ids(&self) -> Vec<Id> {
        self.children.iter().map(|child| child.spec.id).collect()
    }

    fn see_to_all(&mut self) {
        for id in self.ids() {
            self.see_to(id);
        }
    }

    /// The column "what the supervisor does" of the table at `ChildStatus`.
    fn see_to(&mut self, id: Id) {
        let (now, closes) = (self.now, self.closes);
        let Some(child) = self.child_mut(id) else { return };
        let Some(run) = &mut child.run else {
            if child.is_removed {
                self.children.retain(|child| child.spec.id != id);
            } else if closes.is_none() && child.is_due(now) && child.is_known && child.has_had_turn
            {
                self.start(id);
            }
            return;
        };
        match run.stop_request {
            Some((_, at))
                if !run.is_overdue
                    && now >= run.time_from.saturating_add(child.spec.stop_timeout) =>
            {
                run.is_overdue = true;
                self.tell(id, What::Overdue { stopping_for: now - at });
            }
            None if !run.is_healthy
                && now >= run.since.saturating_add(child.spec.healthy_after) =>
            {
                self.trust(id, false)
            }
            _ => {}
        }
    }

    fn trust(&mut self, id: Id, marked: bool) {
        let now = self.now;
        let Some(child) = self.child_mut(id) else { return };
        let forgiven = std::mem::take(&mut child.failures);
        let since = std::mem::take(&mut child.failing_since);
        if let Some(run) = &mut child.run {
            (run.is_healthy, run.forgiven) = (true, (forgiven, since));
        }
        let failing_for = since.map_or(Duration::ZERO, |since| now - since);
        self.tell(id, What::Healthy { forgiven, failing_for, marked });
    }

    fn start(&mut self, id: Id) {
        self.ask_flag(id);
        let failing = self.failing_spawns.get_mut(id).filter(|left| **left > 0);
        let now = self.now;
        let Some(child) =
            self.children.iter_mut().find(|child| child.spec.id == id && child.is_flag_on)
        else {
            return;
        };
        // An order that keeps it down is known before its turn comes: the child stays due until
        // then.
        if self.is_closing || child.is_to_stay_down {
            return;
        }
        if !child.has_thread {
            if let Some(left) = failing {
                *left -= 1;
                return self.fail(id, StopCause::NotSpawned, Ending::Failed, Duration::ZERO);
            }
            child.has_thread = true;
        }
        child.retry_at = None;
        self.runs += 1;
        child.run = Some(Run {
            number: self.runs,
            since: now,
            is_healthy: false,
            forgiven: (0, None),
            has_said_so: false,
            stop_request: None,
            time_from: Duration::ZERO,
            is_overdue: false,
            returns_at: None,
            is_over: false,
            heartbeat: None,
            reports: 0,
            is_tripped: false,
        });
        self.tell(id, What::Started);
        self.see_to(id);
    }

    fn ask_flag(&mut self, id: Id) {
        let answer = self.flags.get(id).copied().unwrap_or(Some(true));
        if let (Some(child), Some(answer)) = (self.child_mut(id), answer) {
            let has_changed = std::mem::replace(&mut child.is_flag_on, answer) != answer;
            if has_changed {
                self.tell(id, What::FlagChanged(answer));
            }
        }
    }

    pub(super) fn begin_round(&mut self) {
        match &mut self.round {
            Some(round) => round.again = true,
            None => self.round = Some(Round { after: 0, again: false }),
        }
    }

    /// Asks the flags of the children in turn, up to one for which something is to be done: before
    /// the next one, there is a look at what was asked of the supervisor meanwhile. The
    /// documentation leaves that open; this is how it is.
    fn continue_round(&mut self) {
        while let Some(Round { after, again }) = self.round {
            let next = self
                .children
                .iter()
                .find(|child| child.number > after && child.is_known && !child.is_removed);
            let Some(id) = next.map(|child| child.spec.id) else {
                self.round = again.then_some(Round { after: 0, again: false });
                return;
            };
            let (now, is_closing) = (self.now, self.is_closing);
            let answer = self.flags.get(id).copied().flatten();
            let Some(child) = self.child_mut(id) else { return };
            let is_news = answer.is_some_and(|answer| answer != child.is_flag_on);
            let is_turn = !std::mem::replace(&mut child.has_had_turn, true);
            // One whose start an order forbids is left alone until that order comes.
            let is_due = child.is_due(now) && !child.is_to_stay_down && !is_closing;
            self.round = Some(Round { after: child.number, again });
            self.ask_flag(id);
            if self.child(id).is_some_and(|child| !child.is_flag_on) {
                self.request_stop(id, StopCause::Disabled);
            }
            if is_news || is_turn || is_due {
                return;
            }
        }
    }

    /// The first reason counts.
    pub(super) fn request_stop(&mut self, id: Id, cause: StopCause) {
        let (now, deafness) = (self.now, self.deafness.get(id).copied().unwrap_or_default());
        let Some(run) = self.child_mut(id).and_then(|child| child.run.as_mut()) else { return };
        if run.stop_request.is_some() {
            return;
        }
        (run.stop_request, run.time_from) = (Some((cause, now)), now);
        if run.is_over {
        } else if deafness.is_zero() {
            run.is_over = true;
            let message = Message::End(id, run.number, Ending::Completed);
            self.inbox.push_back(message);
        } else {
            run.returns_at =
                Some(deafness).filter(|duration| *duration < MAX).map(|duration| now + duration);
        }
    }

    fn carry_out(&mut self, message: Message) {
        match message {
            Message::Order(id, number) => {
                let child = self.child_mut(id).filter(|child| child.number == number);
                if let Some(child) = child {
                    let order = child.orders.remove(0);
                    self.obey(id, order);
                }
            }
            Message::Add(id) => {
                if let Some(child) = self.child_mut(id) {
                    child.is_known = true;
                    self.tell(id, What::Ordered(Order::Add));
                }
            }
            Message::PollNow => self.begin_round(),
            Message::Shutdown => self.shut_down(),
            Message::End(id, number, ending) => self.end(id, number, ending),
            Message::Healthy(id, number) => {
                if self
                    .run_mut(id, number)
                    .is_some_and(|run| run.stop_request.is_none() && !run.is_healthy)
                {
                    self.trust(id, true);
                }
            }
            Message::Tripped(id, number, failures) => {
                if self.run_mut(id, number).is_some_and(|run| run.stop_request.is_none()) {
                    self.tell(id, What::Tripped { failures });
                    self.request_stop(id, StopCause::Tripped);
                }
            }
        }
    }

    /// What was asked before comes first; but nothing starts from now on.
    pub(super) fn ask_to_shut_down(&mut self) {
        if !std::mem::replace(&mut self.is_closing, true) {
            self.inbox.push_back(Message::Shutdown);
        }
    }

    fn shut_down(&mut self) {
        self.closes = self.closes.or(Some(self.now));
        for child in &mut self.children {
            if let Some(run) = &mut child.run {
                run.time_from = self.now;
            }
        }
        for id in self.ids().into_iter().rev() {
            self.request_stop(id, StopCause::Shutdown);
        }
    }

    /// The table at `Handle`.
    fn obey(&mut self, id: Id, order: Order) {
        let Some(child) = self.child_mut(id) else { return };
        child.has_had_turn = true;
        let cause = match order {
            Order::Add => unreachable!("it is a message of its own"),
            Order::Hold => {
                child.is_held = true;
                Some(StopCause::Held)
            }
            Order::Release => {
                child.is_held = false;
                None
            }
            Order::Restart => {
                (child.failures, child.failing_since) = (0, None);
                (child.last_delay, child.retry_at) = (None, None);
                (child.is_finished, child.has_given_up) = (false, false);
                child.is_restarted = child.run.is_some();
                Some(StopCause::Restarted)
            }
            Order::Reset => {
                (child.failures, child.failing_since) = (0, None);
                (child.last_delay, child.retry_at, child.has_given_up) = (None, None, false);
                None
            }
            Order::Remove => {
                child.is_removed = true;
                Some(StopCause::Removed)
            }
        };
        self.tell(id, What::Ordered(order));
        if let Some(cause) = cause {
            self.request_stop(id, cause);
        }
    }

    fn end(&mut self, id: Id, number: u64, ending: Ending) {
        let (now, closes) = (self.now, self.closes.is_some());
        let Some(child) = self.child_mut(id) else { return };
        let Some(run) = child.run.take_if(|run| run.number == number) else { return };
        let is_restarted = std::mem::take(&mut child.is_restarted);
        let uptime = now - run.since;
        let cause = run.stop_request.map_or(StopCause::Exited, |(cause, _)| cause);
        child.has_thread &= !child.spec.fresh_thread;
        let is_done = child.spec.policy == Policy::Transient && ending == Ending::Completed;
        let is_failure = match cause {
            StopCause::Exited => !is_done,
            // Nothing comes after it that a failure would count for.
            StopCause::Tripped | StopCause::Hung => !is_restarted && !closes,
            _ => false,
        };
        let is_gone = child.spec.policy == Policy::Once || child.is_removed;
        if is_failure && !is_gone {
            // Healthy, and failed sooner than its last delay was long: the failures that were
            // forgiven count again.
            let lasted = run.stop_request.map_or(uptime, |(_, at)| at - run.since);
            let least = child
                .last_delay
                .map_or(Duration::ZERO, |delay| delay.min(child.spec.healthy_after));
            if run.is_healthy && lasted < least {
                (child.failures, child.failing_since) = run.forgiven;
            }
            let failed_at = run.stop_request.map_or(now, |(_, at)| at);
            child.failing_since.get_or_insert(failed_at);
            return self.fail(id, cause, ending, uptime);
        }
        child.last_stop = Some((cause, ending, uptime));
        if cause == StopCause::Exited && is_done {
            (child.is_finished, child.has_thread) = (true, false);
        }
        self.tell(id, What::Stopped { cause, ending, uptime, retry_in: None });
        if is_gone {
            self.children.retain(|child| child.spec.id != id);
        }
    }

    fn fail(&mut self, id: Id, cause: StopCause, ending: Ending, uptime: Duration) {
        let (now, closes) = (self.now, self.closes);
        let Some(child) = self.child_mut(id) else { return };
        child.last_stop = Some((cause, ending, uptime));
        let attempt = child.failures + 1;
        // A once child is never restarted, nor given up: without a thread, it waits for one.
        let is_last = child.spec.policy != Policy::Once
            && child.spec.max_restarts.is_some_and(|most| attempt > most);
        let mut delay = child.spec.delay(attempt);
        if cause == StopCause::NotSpawned {
            delay = delay.max(Duration::from_millis(100));
        }
        let retry_in = Some(delay).filter(|_| !is_last && closes.is_none());
        let is_significant = child.spec.significant;
        self.tell(id, What::Stopped { cause, ending, uptime, retry_in });
        let Some(child) = self.child_mut(id) else { return };
        child.failures = attempt;
        child.failing_since.get_or_insert(now);
        child.last_delay = retry_in.or(child.last_delay);
        child.retry_at = retry_in.map(|delay| now.saturating_add(delay));
        if is_last && closes.is_none() {
            (child.has_given_up, child.has_thread) = (true, false);
            self.tell(id, What::GaveUp);
            if is_significant {
                self.gave_up = self.gave_up.or(Some(id));
                self.ask_to_shut_down();
            }
        }
    }
}
