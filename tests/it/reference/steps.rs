//! Steps of the reference supervisor, by the tables of the documentation.

use std::time::Duration;

use circuit_breaker_supervisor::{ChildStatus, StopCause};

use super::{
    Message, Reference, Round,
    child::{Child, Run},
};
use crate::program::*;

impl Reference {
    pub(super) fn catch_up(&mut self) {
        self.see_to_all();
        self.start_in_turn();
        loop {
            self.see_to_all();
            self.continue_round();
            self.see_to_all();
            self.continue_shutdown();
            let is_waited_for = |child: &Child| child.is_waited_for(self.now);
            if self.closes.is_some() && !self.children.iter().any(is_waited_for) {
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
                Some(message) => {
                    self.carry_out(message);
                    self.spread_readiness();
                    self.see_to_all();
                }
                None => {
                    let is_idle = self.round.is_none() && self.unseen.is_empty();
                    if is_idle && self.next_to_start().is_none() {
                        break;
                    }
                }
            }
            self.start_in_turn();
            self.see_unseen();
        }
    }

    fn ids(&self) -> Vec<Id> {
        self.children.iter().map(|child| child.spec.id).collect()
    }

    fn see_to_all(&mut self) {
        for id in self.ids() {
            self.see_to(id);
            self.spread_readiness();
        }
    }

    /// With a start rate: who may start next. One whose start an order forbids has no turn, and
    /// keeps its place until that order comes.
    fn next_to_start(&mut self) -> Option<Id> {
        let queue = std::mem::take(&mut self.queue);
        let is_due = |id: &Id| self.child(id).is_some_and(|child| self.is_due_by_now(child));
        self.queue = queue.into_iter().filter(is_due).collect();
        let is_full = self.next_turn().is_some_and(|at| at > self.now);
        let may_start = |id: &Id| self.child(id).is_some_and(|child| !child.is_to_stay_down);
        let next = self.queue.iter().copied().find(may_start);
        next.filter(|_| !is_full && !self.is_closing)
    }

    /// Whether it is due when it has been looked at.
    fn is_due_by_now(&self, child: &Child) -> bool {
        let mut child = child.clone();
        child.look();
        self.is_due(&child)
    }

    /// Starts the next one that may, by the start rate, if there is one.
    fn start_in_turn(&mut self) {
        let Some(id) = self.next_to_start() else { return };
        self.queue.retain(|other| *other != id);
        self.look_at(id);
        self.start(id);
        self.spread_readiness();
        self.see_to_all();
    }

    /// Restarts by hand come first.
    fn join_queue(&mut self, id: Id) {
        if self.queue.contains(&id) {
            return;
        }
        let is_by_hand = |id: &Id| self.child(id).is_some_and(|child| child.is_by_hand);
        let place = if is_by_hand(&id) {
            self.queue.iter().take_while(|id| is_by_hand(id)).count()
        } else {
            self.queue.len()
        };
        self.queue.insert(place, id);
    }

    /// When all that a child comes after have become ready, or ceased to be, it is looked at. Of
    /// several, one comes after the other: before the next one, there is a look at what was asked
    /// of the supervisor meanwhile. The documentation leaves that open; this is how it is.
    fn spread_readiness(&mut self) {
        for id in self.ids() {
            let is_ready = |id: &Id| self.child(id).is_some_and(Child::is_ready);
            let is_free = |child: &Child| child.spec.after.iter().all(is_ready);
            let is_free = self.child(id).is_some_and(is_free);
            let Some(child) = self.child_mut(id).filter(|child| child.is_free != is_free) else {
                continue;
            };
            child.is_free = is_free;
            if child.run.is_none() {
                child.is_kept |= !is_free;
                self.is_to_be_seen(id);
            }
            // From now on it is due, whenever it is looked at.
            let is_due = |child: &Child| child.is_known && self.is_due_by_now(child);
            if is_free && self.rate.is_some() && self.child(id).is_some_and(is_due) {
                self.join_queue(id);
            }
        }
    }

    /// Has a child looked at in its turn.
    fn is_to_be_seen(&mut self, id: Id) {
        let Some(child) = self.child_mut(id) else { return };
        child.is_unseen = true;
        if !self.unseen.contains(&id) {
            self.unseen.push_back(id);
        }
    }

    /// Looks at the next one, but for those that were looked at meanwhile for another reason.
    fn see_unseen(&mut self) {
        while let Some(id) = self.unseen.pop_front() {
            let Some(child) = self.child_mut(id).filter(|child| child.is_unseen) else { continue };
            child.has_had_turn = true;
            self.look_at(id);
            self.see_to_all();
            if self.rate.is_none() {
                return;
            }
            // With a start rate, a look starts nothing by itself, and the next one follows. The
            // documentation leaves that open; this is how it is.
            self.start_in_turn();
        }
    }

    fn is_to_start(&self, child: &Child) -> bool {
        // One whose start an order forbids is left alone until that order comes.
        self.is_due(child) && !child.is_to_stay_down && !self.is_closing
    }

    fn is_to_tell_wait(&self, child: &Child) -> bool {
        self.has_had_round && self.has_not_told_wait(child)
    }

    fn has_not_told_wait(&self, child: &Child) -> bool {
        self.status(child) == ChildStatus::Waiting
            && !(child.has_told_wait || child.is_unseen || child.is_removed)
            && child.is_known
            && child.has_had_turn
    }

    fn look_at(&mut self, id: Id) {
        if let Some(child) = self.child_mut(id) {
            child.look();
        }
    }

    /// The column "what the supervisor does" of the table at `ChildStatus`.
    pub(super) fn see_to(&mut self, id: Id) {
        let (now, rate) = (self.now, self.rate);
        self.see_to_wait(id);
        let is_due = self.child(id).is_some_and(|child| self.is_due(child));
        let Some(child) = self.child_mut(id) else { return };
        let Some(run) = &mut child.run else {
            if child.is_removed {
                self.children.retain(|child| child.spec.id != id);
            } else if is_due
                && child.is_known
                && !child.is_unseen
                && (child.has_had_turn || rate.is_some())
            {
                match rate {
                    Some(_) => self.join_queue(id),
                    None => self.start(id),
                }
            }
            return;
        };
        let abandon_after = child.spec.abandon_after.unwrap_or(MAX);
        match run.stop_request {
            Some((_, at)) if !run.is_abandoned && now >= at.saturating_add(abandon_after) => {
                run.is_abandoned = true;
                if !self.is_closing {
                    self.tell(id, What::Abandoned { stopping_for: now - at });
                    self.abandoned = Some(id);
                    self.ask_to_shut_down();
                }
            }
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

    /// Tells once that it waits. Before the first round is over, what it waits for may not have
    /// been looked at.
    fn see_to_wait(&mut self, id: Id) {
        if !self.has_had_round {
            let waits = self.child(id).is_some_and(|child| self.has_not_told_wait(child));
            if waits && !self.deferred.contains(&id) {
                self.deferred.push(id);
            }
            return;
        }
        let Some(child) = self.child(id).filter(|child| self.is_to_tell_wait(child)) else {
            return;
        };
        let Some(waits_for) = self.waits_for(child) else { return };
        if let Some(child) = self.child_mut(id) {
            child.has_told_wait = true;
        }
        self.tell(id, What::Waiting(waits_for));
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
        if let Some(child) = self.child_mut(id) {
            child.has_had_turn = true;
        }
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
        // A start that fails is a run, too.
        (child.has_told_wait, child.is_by_hand) = (false, false);
        self.starts.push(now);
        if !child.has_thread {
            if let Some(left) = failing {
                *left -= 1;
                let least = Duration::from_millis(100);
                return self.fail(id, StopCause::NotSpawned, Ending::Failed, Duration::ZERO, least);
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
            is_abandoned: false,
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
    /// the next one, there is a look at what was asked of the supervisor meanwhile. During a
    /// shutdown no flag is asked. The documentation leaves both open; this is how it is.
    fn continue_round(&mut self) {
        if self.closes.is_some() {
            self.round = None;
        }
        while let Some(Round { after, again }) = self.round {
            let next = self
                .children
                .iter()
                .find(|child| child.number > after && child.is_known && !child.is_removed);
            let Some(id) = next.map(|child| child.spec.id) else {
                self.round = again.then_some(Round { after: 0, again: false });
                if !std::mem::replace(&mut self.has_had_round, true) {
                    for id in std::mem::take(&mut self.deferred) {
                        self.is_to_be_seen(id);
                    }
                }
                return;
            };
            self.look_at(id);
            self.see_to_wait(id);
            let answer = self.flags.get(id).copied().flatten();
            let is_busy = |child: &Child| self.is_to_start(child) || self.is_to_tell_wait(child);
            let is_busy = self.child(id).is_some_and(is_busy);
            let Some(child) = self.child_mut(id) else { return };
            let is_news = answer.is_some_and(|answer| answer != child.is_flag_on);
            let is_turn = !std::mem::replace(&mut child.has_had_turn, true);
            self.round = Some(Round { after: child.number, again });
            self.ask_flag(id);
            if self.child(id).is_some_and(|child| !child.is_flag_on) {
                self.request_stop(id, StopCause::Disabled);
            }
            if is_news || is_turn || is_busy {
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
            let message = Message::End(id, run.number, Ending::Completed, Duration::ZERO);
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
                    self.look_at(id);
                }
            }
            Message::PollNow => self.begin_round(),
            Message::Watch => {}
            Message::Shutdown => self.shut_down(),
            Message::End(id, number, ending, demanded) => self.end(id, number, ending, demanded),
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
        for run in self.children.iter_mut().filter_map(|child| child.run.as_mut()) {
            run.time_from = self.now;
        }
    }

    /// Asks those to stop that nobody comes after who is still waited for. Where the documentation
    /// leaves it open: one that is down has ended, whoever comes after it in turn.
    fn continue_shutdown(&mut self) {
        if self.closes.is_none() {
            return;
        }
        for id in self.ids().into_iter().rev() {
            let now = self.now;
            let is_needed = self
                .children
                .iter()
                .any(|child| child.spec.after.contains(&id) && child.is_waited_for(now));
            if !is_needed {
                self.request_stop(id, StopCause::Shutdown);
            }
        }
    }

    /// The table at `Handle`.
    fn obey(&mut self, id: Id, order: Order) {
        self.look_at(id);
        let is_closing = self.closes.is_some();
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
                child.is_by_hand = true;
                Some(StopCause::Restarted).filter(|_| !is_closing)
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
        if order == Order::Restart {
            self.queue.retain(|other| *other != id);
        }
        self.tell(id, What::Ordered(order));
        if let Some(cause) = cause {
            self.request_stop(id, cause);
        }
    }

    fn end(&mut self, id: Id, number: u64, ending: Ending, demanded: Duration) {
        let (now, closes) = (self.now, self.closes.is_some());
        let Some(child) = self.child_mut(id) else { return };
        let Some(run) = child.run.take_if(|run| run.number == number) else { return };
        // While it ran, it did not matter who is ready.
        child.is_kept = !child.is_free;
        let is_restarted = std::mem::take(&mut child.is_restarted);
        let uptime = now - run.since;
        let cause = run.stop_request.map_or(StopCause::Exited, |(cause, _)| cause);
        child.has_thread &= !child.spec.fresh_thread;
        let is_done = child.spec.policy == Policy::Transient && ending == Ending::Completed;
        let is_failure = match cause {
            // In a shutdown nothing comes after it that a failure would count for, not even the end
            // of one that was not asked to stop; the documentation leaves that open.
            _ if closes => false,
            StopCause::Exited => !is_done,
            StopCause::Tripped | StopCause::Hung => !is_restarted,
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
            // What a run says that was asked to stop demands nothing.
            let demanded = if cause == StopCause::Exited { demanded } else { Duration::ZERO };
            self.fail(id, cause, ending, uptime, demanded);
            return self.look_at(id);
        }
        child.last_stop = Some((cause, ending, uptime));
        if cause == StopCause::Exited && is_done {
            (child.is_finished, child.has_thread) = (true, false);
        }
        self.tell(id, What::Stopped { cause, ending, uptime, retry_in: None });
        self.look_at(id);
        if is_gone {
            self.children.retain(|child| child.spec.id != id);
        }
    }

    fn fail(
        &mut self,
        id: Id,
        cause: StopCause,
        ending: Ending,
        uptime: Duration,
        demanded: Duration,
    ) {
        let now = self.now;
        let Some(child) = self.child_mut(id) else { return };
        child.last_stop = Some((cause, ending, uptime));
        let attempt = child.failures + 1;
        // A once child is never restarted, nor given up: without a thread, it waits for one.
        let is_last = child.spec.policy != Policy::Once
            && child.spec.max_restarts.is_some_and(|most| attempt > most);
        let delay = child.spec.delay(attempt).max(demanded);
        let retry_in = Some(delay).filter(|_| !is_last);
        let is_significant = child.spec.significant;
        self.tell(id, What::Stopped { cause, ending, uptime, retry_in });
        let Some(child) = self.child_mut(id) else { return };
        child.failures = attempt;
        child.failing_since.get_or_insert(now);
        child.last_delay = retry_in.or(child.last_delay);
        child.retry_at = retry_in.map(|delay| now.saturating_add(delay));
        child.not_before = now + demanded;
        if is_last {
            (child.has_given_up, child.has_thread) = (true, false);
            self.tell(id, What::GaveUp);
            if is_significant {
                if self.abandoned.is_none() {
                    self.gave_up = self.gave_up.or(Some(id));
                }
                self.ask_to_shut_down();
            }
        }
    }
}
