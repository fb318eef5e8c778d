//! Random schedules against the core, on virtual time, with every promise checked after every step.
//!
//! `SCHEDULES=50000000 cargo test schedules` sets the number of schedules. A failure prints the
//! seed of its schedule; `SEED=n` runs that one alone and prints its trace.

use std::{
    collections::BTreeSet,
    env, thread,
    time::{Duration, Instant},
};

use super::{
    trial::{Message, Trial},
    world::{MS, Whims},
};
use crate::{
    core::{
        key::Key,
        rules::{Policy, Rules},
    },
    event::Order,
    exit::Exit,
    id::ChildId,
    sync::{clock::system_now, deadline, unwind},
    verdict::Verdict,
};

const STEPS: u32 = 60;

struct Schedule {
    random: fastrand::Rng,
    trial: Trial,
}

impl Schedule {
    fn new(seed: u64, origin: Instant) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let most_starts = one_of(&mut random, &[None, None, None, Some(1), Some(2), Some(5)]);
        let trial = Trial::new(Whims::Random(random.fork()), most_starts, origin);
        let mut schedule = Self { random, trial };
        for _ in 0..schedule.random.u32(0..4) {
            let key = schedule.list();
            schedule.trial.insert(key);
        }
        schedule.trial.roster.begin_round();
        schedule
    }

    fn list(&mut self) -> Key {
        let random = &mut self.random;
        let rules = Rules {
            policy: one_of(
                random,
                &[Policy::Permanent, Policy::Permanent, Policy::Transient, Policy::Temporary],
            ),
            healthy_after: one_of(random, &[Duration::ZERO, 5 * MS, 100 * MS, Duration::MAX]),
            stop_timeout: one_of(random, &[Duration::ZERO, 5 * MS, 1000 * MS, Duration::MAX]),
            max_restarts: one_of(random, &[None, None, Some(0), Some(2)]),
            significant: false,
            watchdog: one_of(random, &[None, Some(MS / 3), Some(40 * MS), Some(Duration::MAX)]),
            abandon_after: one_of(
                random,
                &[None, Some(MS / 3), Some(40 * MS), Some(Duration::MAX)],
            ),
        };
        let (flag, fails_to_spawn) = (random.u8(..) < 200, random.u8(..) < 20);
        let models = &self.trial.world.models;
        let is_awaited = |id: &ChildId| models.values().any(|model| model.after.contains(id));
        let is_free = |id: &ChildId| !models.values().any(|model| model.listed && model.id == *id);
        let gone: Vec<ChildId> = models.values().map(|model| model.id.clone()).collect();
        let free: Vec<_> = gone.into_iter().filter(is_free).collect();
        // Now and then a child comes after others, and takes the place of one that is gone. There
        // are no circles: nobody comes after those that were listed later for the first time.
        let again =
            if free.is_empty() || random.bool() { None } else { Some(one_of(random, &free)) };
        let key = match again {
            Some(id) => {
                let mut rules = rules;
                if is_awaited(&id) && rules.policy == Policy::Temporary {
                    rules.policy = Policy::Permanent;
                }
                self.trial.list_again(id, rules)
            }
            None => self.trial.list(rules, flag, fails_to_spawn),
        };
        let number = |id: &ChildId| id.trim_start_matches("child").parse::<u64>().ok();
        let models = &self.trial.world.models;
        let Some(id) = models.get(&key).map(|model| model.id.clone()) else { return key };
        let once: BTreeSet<_> = models
            .values()
            .filter(|model| model.rules.policy == Policy::Temporary)
            .map(|model| model.id.clone())
            .collect();
        let mut after = Vec::new();
        for model in models.values() {
            let may = number(&model.id) < number(&id) && !once.contains(&model.id);
            if may && self.random.u8(..) < 80 && !after.contains(&model.id) {
                after.push(model.id.clone());
            }
        }
        self.trial.world.model(key).after = after;
        key
    }

    fn run(&mut self) {
        self.trial.settle();
        for _ in 0..STEPS {
            self.step();
            self.trial.settle();
        }
        self.end();
    }

    fn step(&mut self) {
        let keys: Vec<Key> = self.trial.world.models.keys().copied().collect();
        match self.random.u32(..100) {
            0..28 => self.trial.deliver(),
            28..45 => self.advance(),
            45..50 => {
                // The engine was delayed: it finds a message and a due timer at the same time.
                self.advance();
                self.trial.deliver();
            }
            50..65 => self.exit(),
            65..68 => self.stale_exit(),
            68..74 => self.trial.inbox.push_back(Message::Round),
            74..77 => {
                if !self.trial.world.closing && keys.len() < 8 {
                    let key = self.list();
                    self.trial.inbox.push_back(Message::Add { key });
                }
            }
            77 => {
                if self.random.u8(..) < 60 {
                    let limit = one_of(&mut self.random, &[Duration::ZERO, 50 * MS, Duration::MAX]);
                    self.trial.close(limit);
                }
            }
            choice => {
                if !keys.is_empty() {
                    let key = one_of(&mut self.random, &keys);
                    self.step_of(key, choice);
                }
            }
        }
    }

    /// Takes a step that concerns one child.
    fn step_of(&mut self, key: Key, choice: u32) {
        let random = &mut self.random;
        let now = self.trial.world.now;
        let Some(model) = self.trial.world.models.get_mut(&key) else { return };
        match choice {
            ..84 => model.flag = one_of(random, &[Some(true), Some(true), Some(false), None]),
            84..86 => model.fails_to_spawn = random.bool(),
            86..96 => {
                let orders =
                    [Order::Hold, Order::Release, Order::Remove, Order::Restart, Order::Reset];
                let order = one_of(random, &orders);
                self.trial.order(key, order);
            }
            _ => {
                let Some(body) = model.body.filter(|body| !body.ended || choice > 97) else {
                    return;
                };
                // Now and then the message is about an earlier run.
                let run = if random.u8(..) < 60 { body.run.wrapping_sub(1) } else { body.run };
                match choice {
                    // A wait begins or ends; it arms no watchdog.
                    96..98 if model.heartbeats > 0 && random.u8(..) < 100 => {
                        model.is_waiting ^= true;
                        model.heartbeats += 1;
                        model.last_heartbeat = Some(now);
                    }
                    96..98 => {
                        model.heartbeats += 1;
                        model.last_heartbeat = Some(now);
                        if model.heartbeats == 1 {
                            self.trial
                                .inbox
                                .push_back(Message::FirstHeartbeat { key, run: body.run });
                        }
                    }
                    98 => self.trial.inbox.push_back(Message::Trip { key, run }),
                    _ => self.trial.inbox.push_back(Message::MarkedHealthy { key, run }),
                }
            }
        }
    }

    fn running(&self) -> Vec<Key> {
        let models = self.trial.world.models.iter();
        models
            .filter(|(_, model)| model.body.is_some_and(|body| !body.ended))
            .map(|(&key, _)| key)
            .collect()
    }

    fn exit(&mut self) {
        let running = self.running();
        if !running.is_empty() {
            let key = one_of(&mut self.random, &running);
            self.exit_of(key);
        }
    }

    fn exit_of(&mut self, key: Key) {
        let exits = [
            || Exit::Completed,
            || Exit::failed("failed"),
            || Exit::panicked("panicked"),
            || Exit::failed(Verdict::give_up("useless")),
            || Exit::failed(Verdict::retry_after(70 * MS, "later")),
        ];
        self.trial.exit(key, one_of(&mut self.random, &exits)());
    }

    /// Delivers the end of a run that is not the present one, or of an unknown child.
    fn stale_exit(&mut self) {
        let key = Key(self.random.u64(..self.trial.world.models.len() as u64 + 2));
        let last_run = self.trial.world.models.get(&key).map_or(0, |model| model.last_run);
        let run = self.random.u64(..last_run + 2);
        let body = self.trial.world.models.get(&key).and_then(|model| model.body);
        if body.is_none_or(|body| body.run != run) {
            let at = self.trial.world.now;
            self.trial.inbox.push_front(Message::RunEnded { key, run, exit: Exit::Completed, at });
            self.trial.deliver();
        }
    }

    /// Moves the clock to just before, at, or just after a deadline, or by a few milliseconds.
    fn advance(&mut self) {
        let now = self.trial.world.now;
        let mut moments: Vec<Instant> = Vec::new();
        for model in self.trial.world.models.values() {
            moments.extend(model.not_before.flatten());
            moments.extend(model.stop_asked.and_then(|(_, until)| until));
            moments.extend(
                model.body.and_then(|body| deadline::after(body.since, model.rules.healthy_after)),
            );
        }
        moments.retain(|moment| *moment + Duration::from_nanos(1) > now);
        let target = if moments.is_empty() || self.random.u8(..) < 60 {
            now + self.random.u32(..20) * MS
        } else {
            let moment = one_of(&mut self.random, &moments);
            match self.random.u8(..3) {
                0 => moment.checked_sub(Duration::from_nanos(1)).unwrap_or(moment),
                1 => moment,
                _ => moment + Duration::from_nanos(1),
            }
        };
        self.trial.world.now = now.max(target);
    }

    /// Shuts down and ends all runs. Whatever happened before, the shutdown has to finish.
    fn end(&mut self) {
        self.trial.close(Duration::MAX);
        self.deliver_all();
        assert!(self.trial.roster.is_closing());
        for key in self.running() {
            self.exit_of(key);
            self.advance();
            self.trial.settle();
            self.deliver_all();
        }
        self.trial.check_end();
    }

    fn deliver_all(&mut self) {
        while !self.trial.inbox.is_empty() {
            self.trial.deliver();
            self.trial.settle();
        }
    }
}

fn one_of<T: Clone>(random: &mut fastrand::Rng, choices: &[T]) -> T {
    choices[random.usize(..choices.len())].clone()
}

#[test]
fn every_promise_of_the_core_holds_on_random_schedules() {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let origin = system_now();
    if let Some(seed) = number("SEED") {
        let mut schedule = Schedule::new(seed, origin);
        schedule.trial.trace = Some(Vec::new());
        let result = unwind::catch(|| schedule.run());
        for line in schedule.trial.trace.iter().flatten() {
            println!("{line}");
        }
        result.expect("the schedule of this seed fails");
        return;
    }
    let schedules = number("SCHEDULES").unwrap_or(200_000);
    thread::scope(|scope| {
        for half in 0..2 {
            thread::Builder::new()
                .spawn_scoped(scope, move || {
                    for seed in (half..schedules).step_by(2) {
                        if let Err(panic) = unwind::catch(|| Schedule::new(seed, origin).run()) {
                            panic!(
                                "schedule failed, run it alone with SEED={seed}: {}",
                                panic.message()
                            );
                        }
                    }
                })
                .expect("a thread for half of the schedules");
        }
    });
}
