//! Script that stands in for the threads of a simulated supervisor.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    child::{Body, Job},
    context::Link,
    core::{key::Key, run::Heartbeats},
    event::Callback,
    exit::{Exit, Failure},
    id::ChildId,
    report::{Unstopped, UnstoppedPhase},
    runtime::{
        inbox::{Message, RunEnd},
        shared::Shared,
        signs_of_life::Activity,
        thread_record::ThreadRecord,
        worker::Remain,
        workers::Workers,
    },
    sync::{
        clock::VirtualTime,
        deadline,
        unwind::{self, Drops},
    },
};

pub(crate) struct Script {
    shared: Arc<Shared>,
    time: VirtualTime,
    pub(crate) seed: u64,
    children: BTreeMap<Key, Scripted>,
    pub(crate) failing_spawns: BTreeMap<ChildId, u32>,
    /// How long children continue after they were asked to stop.
    pub(crate) deafness: BTreeMap<ChildId, Duration>,
    /// When those runs end that were asked to stop and continue for a while.
    ends: BTreeSet<(Instant, Key)>,
}

/// One child, as its threads would see it.
struct Scripted {
    id: ChildId,
    activity: Option<Arc<Activity>>,
    fresh_thread: bool,
    has_thread: bool,
    /// Never called, only dropped when a thread would drop it.
    body: Option<Body>,
    is_last_run: bool,
    last_run: u64,
    run: Option<ScriptedRun>,
    remains: Vec<Remain>,
}

struct ScriptedRun {
    number: u64,
    stop_requested_at: Option<Instant>,
    heartbeats: Heartbeats,
    marked_healthy: bool,
    /// Outcome of dropping the entrusted values. The script drops them as the run starts; a thread
    /// does so after the body.
    drops: Drops,
}

impl Script {
    pub(crate) fn new(shared: Arc<Shared>, time: VirtualTime, seed: u64) -> Self {
        Self {
            shared,
            time,
            seed,
            children: BTreeMap::new(),
            failing_spawns: BTreeMap::new(),
            deafness: BTreeMap::new(),
            ends: BTreeSet::new(),
        }
    }

    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|&(at, _)| at)
    }

    /// Ends the runs whose end is due.
    pub(crate) fn end_due(&mut self, now: Instant) {
        while let Some(&(_, key)) = self.ends.first().filter(|&&(at, _)| at <= now) {
            self.ends.pop_first();
            self.exit(key, Exit::Completed);
        }
    }

    /// Ends the present run, if there is one.
    pub(crate) fn exit(&mut self, key: Key, exit: Exit) -> Option<()> {
        let child = self.children.get_mut(&key)?;
        let run = child.run.take()?;
        child.has_thread = !child.fresh_thread && !child.is_last_run;
        let body = child.body.take_if(|_| child.is_last_run);
        let mut drops = run.drops;
        body.into_iter().for_each(|body| drops.discard(body));
        if exit.is_panicked() {
            // A real panic has a payload to drop, a script's panic has none.
            drops.note(Ok(()));
        }
        self.ends.retain(|&(_, other)| other != key);
        let at = self.time.now();
        let (display_panic, callbacks_succeeded) = (None, false);
        let end =
            RunEnd { key, run: run.number, exit, at, display_panic, drops, callbacks_succeeded };
        self.tell(Message::RunEnded(end));
        Some(())
    }

    pub(crate) fn mark_healthy(&mut self, key: Key) -> Option<()> {
        let run = self.children.get_mut(&key)?.run.as_mut()?;
        if !std::mem::replace(&mut run.marked_healthy, true) {
            let message = Message::MarkedHealthy { key, run: run.number };
            self.tell(message);
        }
        Some(())
    }

    pub(crate) fn heartbeat(&mut self, key: Key, doing: &'static str) -> Option<()> {
        let child = self.children.get_mut(&key)?;
        let run = child.run.as_mut()?;
        run.heartbeats = Heartbeats { count: run.heartbeats.count + 1, doing, is_waiting: false };
        if let Some(activity) = &child.activity {
            activity.say(run.number, doing);
        }
        if child.activity.is_some() && run.heartbeats.count == 1 {
            let message = Message::FirstHeartbeat { key, run: run.number };
            self.tell(message);
        }
        Some(())
    }

    fn tell(&self, message: Message) {
        let _ = self.shared.tell(message);
    }
}

impl Workers for Script {
    type Worker = Key;

    fn engage(&mut self, link: Link, job: Job) -> Key {
        let Link { key, id, activity, .. } = link;
        let Job { body, fresh_thread, .. } = job;
        let body = Some(body);
        let child = Scripted {
            id,
            activity,
            fresh_thread,
            has_thread: false,
            body,
            is_last_run: false,
            last_run: 0,
            run: None,
            remains: Vec::new(),
        };
        self.children.insert(key, child);
        key
    }

    fn provide(&mut self, worker: &Key) -> Result<(), Failure> {
        let Some(child) = self.children.get_mut(worker).filter(|child| !child.has_thread) else {
            return Ok(());
        };
        if let Some(left) = self.failing_spawns.get_mut(&child.id).filter(|left| **left > 0) {
            *left -= 1;
            let error =
                io::Error::new(io::ErrorKind::WouldBlock, "no thread, as the simulation demands");
            return Err(Failure::new(error.into()));
        }
        child.has_thread = true;
        Ok(())
    }

    fn send_start(&mut self, worker: &Key, run: u64, _failures: u32) -> bool {
        let Some(child) = self.children.get_mut(worker) else { return false };
        let heartbeats = Heartbeats::default();
        child.last_run = run;
        let mut drops = Drops::default();
        child.remains.drain(..).for_each(|remain| drops.discard(remain));
        child.run = Some(ScriptedRun {
            number: run,
            stop_requested_at: None,
            heartbeats,
            marked_healthy: false,
            drops,
        });
        true
    }

    fn stop(&mut self, worker: &Key) {
        let now = self.time.now();
        let Some(child) = self.children.get_mut(worker) else { return };
        let Some(run) = child.run.as_mut().filter(|run| run.stop_requested_at.is_none()) else {
            return;
        };
        run.stop_requested_at = Some(now);
        let deaf_for = self.deafness.get(&child.id).copied().unwrap_or_default();
        if deaf_for.is_zero() {
            self.exit(*worker, Exit::Completed);
        } else if let Some(end) = deadline::after(now, deaf_for) {
            self.ends.insert((end, *worker));
        }
    }

    fn postpone(&mut self, _worker: &Key) {}

    fn call_back(&mut self, _worker: &Key) {}

    fn make_final(&mut self, worker: &Key, _is_closing: bool) {
        if let Some(child) = self.children.get_mut(worker) {
            child.is_last_run = true;
        }
    }

    fn note_run_end(&mut self, _worker: &Key) {}

    fn entrust(&mut self, worker: &Key, remain: Remain) {
        if let Some(child) = self.children.get_mut(worker) {
            child.remains.push(remain);
        }
    }

    fn retire(&mut self, worker: &Key, keep_body: bool) {
        if keep_body {
            if let Some(child) = self.children.get_mut(worker) {
                child.has_thread = false;
            }
        } else if let Some(child) = self.children.remove(worker) {
            let run = child.last_run;
            if let Err(panic) = unwind::discard(child) {
                self.tell(Message::CallbackPanicked {
                    key: *worker,
                    run,
                    callback: Callback::Drop,
                    panic,
                });
            }
        }
    }

    fn heartbeats(&self, worker: &Key) -> Option<Heartbeats> {
        Some(self.children.get(worker)?.run.as_ref()?.heartbeats)
    }

    fn stop_phase(&self, worker: &Key) -> Option<UnstoppedPhase> {
        let run = self.children.get(worker)?.run.as_ref();
        run.map(|_| UnstoppedPhase::Running)
    }

    fn thread(&self, _worker: &Key) -> Option<Arc<ThreadRecord>> {
        None
    }

    fn close(&mut self, _since: Instant) {}

    fn unstopped(&self, now: Instant, since: Instant) -> Vec<Unstopped> {
        let unstopped = |child: &Scripted| {
            let run = child.run.as_ref()?;
            Some(Unstopped {
                id: child.id.clone(),
                run: run.number,
                stopping_for: now.saturating_duration_since(run.stop_requested_at.unwrap_or(since)),
                phase: UnstoppedPhase::Running,
                doing: child.activity.as_ref().and_then(|activity| activity.of(run.number)),
                thread: None,
            })
        };
        self.children.values().filter_map(unstopped).collect()
    }

    fn dismiss(&mut self) {
        while let Some((_, child)) = self.children.pop_first() {
            let _ = unwind::discard(child);
        }
    }
}
