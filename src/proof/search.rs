//! Exhaustive search of a small world: from every state, every step that is possible there.
//!
//! The search follows one child through 2 runs, or `SEARCH_RUNS`, one that comes after another
//! through one run less, and two children for 5 steps, or `SEARCH_DEPTH`. An ignored test follows
//! two children through one run each, with any number of steps.

use std::{
    collections::HashSet,
    env,
    hash::{DefaultHasher, Hash, Hasher},
    thread,
    time::Duration,
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
    sync::{clock::system_now, unwind},
    verdict::Verdict,
};

/// Something that can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The core takes the next message.
    Deliver,
    /// Time passes until the next deadline.
    Wait,
    Close,
    Of(Key, Happening),
}

/// Something that can happen to one child.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Return,
    Panic,
    /// It fails, and says that trying again is useless.
    GiveUp,
    /// It fails, and says when to try again.
    RetryAfter,
    MarkHealthy,
    Trip,
    FlipFlag,
    FlipSpawning,
    /// What it comes after becomes ready, or is ready no more.
    FlipReadiness,
    Give(Order),
}

const HAPPENINGS: [Happening; 14] = [
    Happening::Return,
    Happening::Panic,
    Happening::GiveUp,
    Happening::RetryAfter,
    Happening::MarkHealthy,
    Happening::Trip,
    Happening::FlipFlag,
    Happening::FlipSpawning,
    Happening::FlipReadiness,
    Happening::Give(Order::Hold),
    Happening::Give(Order::Release),
    Happening::Give(Order::Restart),
    Happening::Give(Order::Reset),
    Happening::Give(Order::Remove),
];

/// The bounds of the world that is searched.
#[derive(Clone, Copy)]
struct Bounds {
    /// The number of messages on their way at once; with 0, each arrives as soon as it is sent.
    in_flight: usize,
    /// The number of runs of each child.
    runs: u32,
    /// The number of steps from the start.
    depth: u32,
}

/// Takes a step and settles the core. Returns `false` if the step is not possible in this state.
fn take(trial: &mut Trial, step: Step, bounds: Bounds) -> bool {
    let happened = match step {
        Step::Deliver if !trial.inbox.is_empty() => {
            trial.deliver();
            true
        }
        Step::Wait => trial.roster.next_deadline().is_some_and(|deadline| {
            trial.world.now = deadline;
            true
        }),
        // All other steps may send a message, for which there has to be room.
        _ if trial.inbox.len() >= bounds.in_flight.max(1) => false,
        Step::Close if !trial.world.closing => {
            trial.close(Duration::MAX);
            true
        }
        Step::Of(key, happening) => happen(trial, key, happening),
        Step::Deliver | Step::Close => false,
    };
    if happened {
        trial.settle();
        if bounds.in_flight == 0 && !trial.inbox.is_empty() {
            trial.deliver();
            trial.settle();
        }
    }
    happened
}

fn happen(trial: &mut Trial, key: Key, happening: Happening) -> bool {
    let Some(model) = trial.world.models.get_mut(&key).filter(|model| model.listed) else {
        return false;
    };
    let run = model.body.filter(|body| !body.ended).map(|body| body.run);
    match (happening, run) {
        (Happening::FlipFlag, _) => {
            model.flag = model.flag.map(|on| !on);
            trial.inbox.push_back(Message::Round);
        }
        (Happening::FlipReadiness, _) => {
            let Some(id) = model.after.first().cloned() else { return false };
            let Some(ready) = trial.world.outside.get_mut(&id).filter(|_| !trial.world.is_closed)
            else {
                return false;
            };
            *ready = !*ready;
            let (ready, now) = (*ready, trial.world.now);
            trial.roster.set_ready(&id, ready, now);
            trial.world.note_readiness();
        }
        (Happening::FlipSpawning, None) => model.fails_to_spawn ^= true,
        (Happening::Return, Some(_)) => trial.exit(key, Exit::Completed),
        (Happening::Panic, Some(_)) => trial.exit(key, Exit::panicked("")),
        (Happening::GiveUp, Some(_)) => trial.exit(key, Exit::failed(Verdict::give_up(""))),
        (Happening::RetryAfter, Some(_)) => {
            trial.exit(key, Exit::failed(Verdict::retry_after(70 * MS, "")))
        }
        (Happening::MarkHealthy, Some(run)) => {
            trial.inbox.push_back(Message::MarkedHealthy { key, run })
        }
        (Happening::Trip, Some(run)) => trial.inbox.push_back(Message::Trip { key, run }),
        (Happening::Give(order), _) => trial.order(key, order),
        _ => return false,
    }
    true
}

/// Checks that the ends of runs that are not present, and of an unknown child, change nothing.
fn check_stale_exits(trial: &Trial) {
    let now = trial.world.now;
    let Trial { mut roster, mut world, .. } = trial.clone();
    let before = hash(&roster.essence(now));
    for (key, run) in [(Key(0), 0), (Key(1), 0), (Key(9), 1), (Key(0), 99)] {
        let ended = roster.run_ended(key, run, Exit::Completed, now, &mut world);
        assert!(
            ended.is_err() && hash(&roster.essence(now)) == before,
            "promise 12: a stale exit changed something"
        );
    }
}

/// Two 64-bit hashes: among some millions of states, no two will have both in common by chance.
fn hash(essence: &impl Hash) -> (u64, u64) {
    let with = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, essence).hash(&mut hasher);
        hasher.finish()
    };
    (with(1), with(2))
}

/// A newly found state, with the state and the step that led to it.
struct Found {
    place: usize,
    step: Step,
    essence: (u64, u64),
    trial: Trial,
}

/// The progress of a search.
struct Search {
    bounds: Bounds,
    alphabet: Vec<Step>,
    seen: HashSet<(u64, u64)>,
    /// For each state, the state and the step that led to it.
    paths: Vec<Option<(usize, Step)>>,
}

impl Search {
    /// Takes every step from each of these states. Returns the new states and the number of steps.
    fn expand(&self, states: &[(usize, Trial)]) -> (Vec<Found>, usize) {
        let (mut found, mut tried) = (Vec::new(), 0);
        for (place, state) in states {
            check_stale_exits(state);
            for &step in &self.alphabet {
                let mut trial = state.clone();
                match unwind::catch(|| take(&mut trial, step, self.bounds)) {
                    Ok(false) => continue,
                    Ok(true) => tried += 1,
                    Err(panic) => {
                        panic!("{}, after {:?}", panic.message(), path(&self.paths, *place, step))
                    }
                }
                let runs =
                    trial.world.models.values().map(|model| model.runs).max().unwrap_or_default();
                let essence = hash(&trial.essence());
                if runs <= self.bounds.runs && !self.seen.contains(&essence) {
                    found.push(Found { place: *place, step, essence, trial });
                }
            }
        }
        (found, tried)
    }
}

/// Visits every state that can be reached within the bounds. Returns the number of states and of
/// steps.
fn search(start: Trial, bounds: Bounds) -> (usize, usize) {
    /// The number of states expanded at a time, half of them on each thread. It bounds the
    /// duplicates within a block, which only the merge afterwards removes.
    const BLOCK: usize = 256;
    let keys: Vec<Key> = start.world.models.keys().copied().collect();
    let of_children =
        keys.iter().flat_map(|&key| HAPPENINGS.map(|happening| Step::Of(key, happening)));
    let alphabet: Vec<Step> =
        [Step::Deliver, Step::Wait, Step::Close].into_iter().chain(of_children).collect();
    let mut search = Search {
        bounds,
        alphabet,
        seen: HashSet::from([hash(&start.essence())]),
        paths: vec![None],
    };
    let mut frontier = vec![(0, start)];
    let mut tried = 0;
    // Of one child, step by step, so that the path to a fault is a shortest one. All of two are too
    // many to be kept: there the states found last come first, and few wait for their turn.
    let last_first = keys.len() > 1 && bounds.depth == u32::MAX;
    for _ in 0..bounds.depth {
        let mut states = std::mem::take(&mut frontier);
        while !states.is_empty() {
            let block = states.split_off(states.len().saturating_sub(BLOCK));
            let (one, other) = block.split_at(block.len() / 2);
            let halves = thread::scope(|scope| {
                let one = scope.spawn(|| search.expand(one));
                let other = search.expand(other);
                [one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other]
            });
            for (found, steps) in halves {
                tried += steps;
                for Found { place, step, essence, trial } in found {
                    if search.seen.insert(essence) {
                        let next = if last_first { &mut states } else { &mut frontier };
                        next.push((search.paths.len(), trial));
                        search.paths.push(Some((place, step)));
                    }
                }
            }
        }
        if frontier.is_empty() {
            break;
        }
    }
    (search.seen.len(), tried)
}

/// The steps that lead to a state, and one more.
fn path(paths: &[Option<(usize, Step)>], place: usize, last: Step) -> Vec<Step> {
    let before = std::iter::successors(paths[place], |&(place, _)| paths[place]);
    let mut steps: Vec<Step> = [last].into_iter().chain(before.map(|(_, step)| step)).collect();
    steps.reverse();
    steps
}

/// A world of children with short delays, so that deadlines often coincide.
fn world(policies: &[Policy]) -> Trial {
    world_of(policies, None)
}

/// The same, where every child comes after the one of this id.
fn world_of(policies: &[Policy], after: Option<&str>) -> Trial {
    let mut trial = Trial::new(Whims::None { backoff: MS }, None, system_now());
    for &policy in policies {
        let max_restarts = (policy == Policy::Transient).then_some(1);
        let (healthy_after, stop_timeout) = (2 * MS, MS);
        // Of two children, it would multiply the states; and it touches only its own.
        let is_abandoned = policies.len() == 1 && policy == Policy::Temporary;
        let rules = Rules {
            policy,
            healthy_after,
            stop_timeout,
            max_restarts,
            significant: false,
            watchdog: None,
            abandon_after: is_abandoned.then_some(3 * MS),
        };
        let key = trial.list(rules, true, false);
        if let Some(after) = after.map(ChildId::from) {
            let model = trial.world.model(key);
            if model.id != after {
                model.after.push(after.clone());
            }
            if after == "outside" {
                trial.world.outside.insert(after, false);
            }
        }
        trial.insert(key);
    }
    trial.roster.begin_round();
    trial.settle();
    trial
}

/// The number in an environment variable, if there is one.
fn number(name: &str) -> Option<u32> {
    env::var(name).ok()?.parse().ok()
}

/// One child and at most one message on its way, which any other step may overtake. Only the number
/// of runs is bounded.
#[test]
fn every_promise_of_the_core_holds_in_every_state_of_a_child() {
    let runs = number("SEARCH_RUNS").unwrap_or(2);
    for policy in [Policy::Permanent, Policy::Transient, Policy::Temporary] {
        let (states, steps) =
            search(world(&[policy]), Bounds { in_flight: 1, runs, depth: u32::MAX });
        println!("{policy:?}: all {states} states, by {steps} steps");
    }
}

/// The same for a child that comes after another, of which only its readiness is part of the world.
/// It may change at any time.
#[test]
fn every_promise_of_the_core_holds_in_every_state_of_a_dependent() {
    let runs = number("SEARCH_RUNS").unwrap_or(2).saturating_sub(1).max(1);
    for policy in [Policy::Permanent, Policy::Transient, Policy::Temporary] {
        let start = world_of(&[policy], Some("outside"));
        let (states, steps) = search(start, Bounds { in_flight: 1, runs, depth: u32::MAX });
        println!("{policy:?}, a dependent: all {states} states, by {steps} steps");
    }
}

/// Two children, whose messages arrive at once: all schedules of `SEARCH_DEPTH` steps.
#[test]
fn every_promise_of_the_core_holds_in_all_short_schedules_of_two_children() {
    let depth = number("SEARCH_DEPTH").unwrap_or(5);
    search_pairs(Bounds { in_flight: 0, runs: 3, depth });
}

/// Two children, whose messages arrive at once: only the number of runs is bounded, to one each.
/// Three runs each would be the square of the states of one child, some hundreds of millions.
#[test]
#[ignore = "takes more than half an hour"]
fn every_promise_of_the_core_holds_in_every_state_of_two_children() {
    search_pairs(Bounds { in_flight: 0, runs: 1, depth: u32::MAX });
}

fn search_pairs(bounds: Bounds) {
    for policies in [[Policy::Permanent, Policy::Permanent], [Policy::Transient, Policy::Temporary]]
    {
        let (states, steps) = search(world(&policies), bounds);
        let within = if bounds.depth == u32::MAX {
            String::new()
        } else {
            format!(" within {} steps", bounds.depth)
        };
        println!("{policies:?}: all {states} states{within}, by {steps} steps");
    }
    for first in [Policy::Permanent, Policy::Transient] {
        let start = world_of(&[first, Policy::Permanent], Some("child0"));
        let (states, steps) = search(start, bounds);
        println!(
            "{first:?}, and another that comes after it: all {states} states, by {steps} steps"
        );
    }
}
