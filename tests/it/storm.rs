//! Random children and random operators against every law. `STRESS_SECONDS=600 cargo test storm`
//! goes on for ten minutes, and `STRESS_SEED=…` begins with the schedule that failed, as far as
//! threads let a schedule be had again.

use std::{
    collections::HashSet,
    env,
    hash::{BuildHasher, RandomState},
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildInfo, ChildResult, ChildSpec, Handle, RestartPolicy,
    ShutdownReport, StopCause, Supervisor,
};
use crossbeam_channel::{bounded, never};
use parking_lot::Mutex;

use crate::{chronicle::Chronicle, subprocess::*, support::*};

/// The children that nobody resets, restarts, removes or gives up.
const STEADY: [&str; 3] = ["s0", "s1", "s2"];

/// The children to which everything is done.
const WILD: [&str; 5] = ["w0", "w1", "w2", "w3", "w4"];

fn is_wild(id: &str) -> bool {
    id.starts_with('w')
}

/// How a run goes: in any way that a body may end by itself or be stopped in.
fn go(ctx: &ChildContext, chronicle: &Chronicle, dice: &mut Dice) -> ChildResult {
    let token = chronicle.token();
    dice.dawdle();
    match dice.roll(14) {
        0 => resume_unwind(Box::new(token)),
        1 | 2 => Err(token.into()),
        3 => Ok(()),
        4 => {
            ctx.mark_healthy();
            Err(token.into())
        }
        5 => Ok(ctx.sleep(Duration::from_micros(dice.roll(300)))?),
        // Ignores its stop for a while.
        6 => {
            let _ = ctx.sleep(Duration::MAX);
            let _ = never::<()>().recv_timeout(Duration::from_micros(dice.roll(3000)));
            Err(token.into())
        }
        // Hears of its stop by a callback alone.
        7 => {
            let (close, socket) = bounded::<()>(0);
            let is_clumsy = dice.roll(4) == 0;
            let _guard = ctx.on_stop(move || {
                drop(close);
                if is_clumsy {
                    resume_unwind(Box::new(token));
                }
            });
            let _ = socket.recv();
            Ok(())
        }
        // Leaves callbacks behind.
        8 => {
            std::mem::forget(ctx.on_stop(move || drop(token)));
            dice.dawdle();
            Err("no".into())
        }
        // Falls silent.
        9 => {
            ctx.heartbeat("nothing");
            if dice.roll(2) == 0 { silent(ctx) } else { idle(ctx) }
        }
        10 => loop {
            ctx.heartbeat("something");
            ctx.sleep(MS)?;
        },
        // Has a helper, which outlives it a little.
        11 => {
            let helper = ctx.clone();
            thread::spawn(move || {
                let _token = token;
                let _ = helper.sleep(HOUR);
            });
            dice.dawdle();
            Ok(())
        }
        12 if is_wild(ctx.id()) => {
            match dice.roll(3) {
                0 => ctx.supervisor().restart(ctx.id())?,
                1 => ctx.supervisor().reset(ctx.id())?,
                _ => drop(
                    ctx.supervisor()
                        .breaker(ctx.id())
                        .map(|breaker| breaker.report_failure("says the body")),
                ),
            }
            idle(ctx)
        }
        13 if is_wild(ctx.id()) => {
            let child = ChildSpec::new("crashing", move |_| {
                let _ = &token;
                Err("no".into())
            });
            Supervisor::builder()
                .telemetry(())
                .backoff(constant(MS))
                .child(child)
                .child(idler("idle"))
                .run(ctx)
        }
        _ => idle(ctx),
    }
}

/// A child with random settings.
fn child(id: &str, chronicle: &Chronicle, stack: usize, mut dice: Dice) -> ChildSpec {
    let (its, mut fate) = (chronicle.clone(), Dice(dice.roll(u64::MAX)));
    let body = chronicle.body(move |ctx| go(ctx, &its, &mut fate));
    let is_wild = is_wild(id);
    let mut spec = if is_wild && dice.roll(5) == 0 {
        ChildSpec::once(id, body)
    } else {
        ChildSpec::new(id, body)
    };
    spec = spec.stack_size(stack).fresh_thread(dice.roll(3) == 0);
    if dice.roll(2) == 0 {
        spec = spec.watchdog(Duration::from_millis(2 + dice.roll(4)));
    }
    if dice.roll(3) == 0 {
        let (token, its) = (chronicle.token(), chronicle.clone());
        spec = spec.backoff(Backoff::from_fn(move |attempt| {
            let _ = &token;
            // The default takes its place, which is for ever here: nobody may wait for this child.
            if is_wild && attempt % 5 == 4 {
                resume_unwind(Box::new(its.token()));
            }
            Duration::from_micros(u64::from(attempt % 9) * 20)
        }));
    }
    if is_wild && dice.roll(3) == 0 {
        spec = spec.restart(RestartPolicy::Transient);
    }
    if is_wild && dice.roll(3) == 0 {
        spec = spec
            .max_restarts(u32::try_from(dice.roll(20)).unwrap())
            .significant(dice.roll(20) == 0);
    }
    spec
}

/// What the operators of one round share.
struct Stage {
    handle: Handle,
    chronicle: Chronicle,
    /// One for each child.
    turns: [Mutex<()>; 8],
    over: AtomicBool,
    stack: usize,
}

impl Stage {
    /// Gives random commands until it is over.
    fn operate(&self, mut dice: Dice) {
        let Self { handle, chronicle, turns, over, stack } = self;
        while !over.load(Ordering::SeqCst) {
            let number = usize::try_from(dice.roll(8)).unwrap();
            let id = STEADY.iter().chain(&WILD).nth(number).unwrap();
            // One at a time, so that it is known what is forbidden when they have returned. All
            // other commands come in between.
            let turn = || turns[number].lock();
            let _ = match dice.roll(16) {
                0 | 1 => {
                    let _turn = turn();
                    chronicle.hold(handle, id);
                    Ok(())
                }
                2..=4 => {
                    let _turn = turn();
                    chronicle.release(handle, id);
                    Ok(())
                }
                5 => handle.poll_now(),
                6 => {
                    if let Some(breaker) = handle.breaker(id) {
                        breaker.report_failure("says an operator");
                    }
                    Ok(())
                }
                7 => {
                    if let Some(permit) =
                        handle.breaker(id).and_then(|breaker| breaker.permit().ok())
                    {
                        permit.success();
                    }
                    Ok(())
                }
                8 => {
                    assert!(handle.snapshot().to_string().contains("running"));
                    Ok(())
                }
                9 => {
                    let _ = handle.wait_for(
                        id,
                        Duration::from_micros(dice.roll(500)),
                        ChildInfo::is_running,
                    );
                    Ok(())
                }
                10 | 11 if is_wild(id) => handle.restart(id),
                12 if is_wild(id) => handle.reset(id),
                13 if is_wild(id) => {
                    let _turn = turn();
                    chronicle.remove(handle, id);
                    Ok(())
                }
                14 | 15 if is_wild(id) => {
                    let _turn = turn();
                    chronicle.add(handle, child(id, chronicle, *stack, Dice(dice.roll(u64::MAX))));
                    Ok(())
                }
                _ => Ok(()),
            };
            dice.dawdle();
        }
    }

    /// Looks at the children without pause until it is over. Returns the runs that it has seen:
    /// each was told of as started, or is at once.
    fn observe(&self) -> HashSet<(String, u64)> {
        let mut seen = HashSet::new();
        while !self.over.load(Ordering::SeqCst) {
            for id in STEADY.iter().chain(&WILD) {
                let is_permitted =
                    self.handle.breaker(id).is_some_and(|breaker| breaker.is_call_permitted());
                let Some(child) = self.handle.child(id) else { continue };
                if child.is_running() {
                    seen.insert((child.id.to_string(), child.run));
                }
                // Whoever may be called has been started; it may have gone since, and another one
                // come.
                if is_permitted && child.run == 0 {
                    assert!(self.chronicle.was_started(id), "{child}, and could be called");
                }
            }
        }
        seen
    }

    /// After all of it, children of whom nothing bad is known run again when they are wanted.
    fn check_alive(&self) {
        let Self { handle, chronicle, turns, .. } = self;
        for (id, turn) in STEADY.iter().zip(turns) {
            let _turn = turn.lock();
            // Down, and up again: each is owed, unless a child that is significant has ended
            // everything.
            chronicle.hold(handle, id);
            let down = handle.wait_for(id, DEADLINE, |child| !child.is_running()).is_ok();
            let last = handle.child(id).map_or(0, |child| child.run);
            chronicle.release(handle, id);
            let up = down && handle.wait_for(id, DEADLINE, |child| child.run > last).is_ok();
            assert!(
                up || handle.wait_until_stopped(DEADLINE).is_ok(),
                "{id} is not started:\n{}",
                handle.snapshot()
            );
        }
    }
}

/// One supervisor, from its start to its end, after which the process has so many threads again.
/// Returns how many starts found no thread.
fn storm(seed: u64, threads: usize, are_threads_scarce: bool) -> usize {
    let _seed = OnDrop(|| {
        if thread::panicking() {
            eprintln!("STRESS_SEED={seed} begins with this schedule");
        }
    });
    let mut dice = Dice(seed);
    let (chronicle, stack) =
        (Chronicle::default(), if are_threads_scarce { 1 << 30 } else { 1 << 18 });
    let (is_honest, asked, flag_token) =
        (Arc::new(AtomicBool::new(false)), AtomicU64::new(dice.roll(1000)), chronicle.token());
    let (is_on, its) = (is_honest.clone(), chronicle.clone());
    let (told, teller) = (AtomicU64::new(0), chronicle.clone());
    let supervisor = Supervisor::builder()
        .name("storm")
        .on_event(move |_| {
            if told.fetch_add(1, Ordering::Relaxed) % 37 == 0 {
                resume_unwind(Box::new(teller.token()));
            }
        })
        .telemetry(chronicle.clone())
        .poll_interval(MS)
        .enabled(move |_| {
            let _ = &flag_token;
            match asked.fetch_add(1, Ordering::Relaxed) % 17 {
                _ if is_on.load(Ordering::SeqCst) => Some(true),
                0 | 1 => Some(false),
                2 => None,
                3 => resume_unwind(Box::new(its.token())),
                _ => Some(true),
            }
        })
        .backoff(Backoff::from_fn(|attempt| Duration::from_micros(u64::from(attempt % 7) * 10)))
        .healthy_after(
            [Duration::ZERO, Duration::from_micros(200), HOUR]
                [usize::try_from(dice.roll(3)).unwrap()],
        )
        .stop_timeout([Duration::ZERO, MS, DEADLINE][usize::try_from(dice.roll(3)).unwrap()])
        .children(
            STEADY
                .iter()
                .chain(&WILD)
                .map(|id| child(id, &chronicle, stack, Dice(dice.roll(u64::MAX)))),
        )
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    let stage = Stage {
        handle,
        chronicle,
        turns: [(); 8].map(|()| Mutex::new(())),
        over: AtomicBool::new(false),
        stack,
    };
    let (report, seen) = thread::scope(|scope| {
        let observer = scope.spawn(|| stage.observe());
        for _ in 0..=dice.roll(4) {
            let dice = Dice(dice.roll(u64::MAX));
            scope.spawn(|| stage.operate(dice));
        }
        let (since, wanted) = (Instant::now(), usize::try_from(dice.roll(4000)).unwrap());
        while stage.chronicle.len() < wanted && since.elapsed() < 50 * MS {
            thread::yield_now();
        }
        // Half of them are still at it as the supervisor ends.
        if dice.roll(2) == 0 {
            stage.over.store(true, Ordering::SeqCst);
            // Where there are too few threads, nobody is owed one.
            if dice.roll(2) == 0 && !are_threads_scarce {
                is_honest.store(true, Ordering::SeqCst);
                stage.check_alive();
            }
        }
        let report = end(supervisor, &stage.chronicle, &mut dice);
        stage.over.store(true, Ordering::SeqCst);
        (report, observer.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let Stage { chronicle, handle, .. } = stage;
    drop(handle);
    eventually("all threads are gone", || thread_count() == threads);
    chronicle.check_seen(&seen);
    let not_spawned =
        chronicle.stops().iter().filter(|cause| **cause == StopCause::NotSpawned).count();
    chronicle.check(report, is_wild);
    not_spawned
}

/// Ends it in one of the ways in which that can be done.
fn end(supervisor: Supervisor, chronicle: &Chronicle, dice: &mut Dice) -> ShutdownReport {
    let handle = supervisor.handle().clone();
    chronicle.is_ending();
    match dice.roll(4) {
        0 => {
            chronicle.close(&handle);
            let _ = supervisor.wait();
        }
        1 => drop(supervisor),
        2 => drop(supervisor.shutdown()),
        _ => drop(supervisor.shutdown_within(Duration::from_micros(dice.roll(2000)))),
    }
    chronicle.close(&handle);
    handle.wait_until_stopped(DEADLINE).unwrap()
}

/// One after the other, for so many seconds in the normal run.
fn check_storms(seconds: u64, are_threads_scarce: bool) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("STRESS_SECONDS").unwrap_or(seconds);
    let seed = number("STRESS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    // That of the round itself among them.
    let threads = thread_count() + 1;
    let since = Instant::now();
    let (mut rounds, mut not_spawned) = (0, 0);
    while since.elapsed() < Duration::from_secs(seconds) {
        let seed = seed.wrapping_add(rounds);
        let (sender, ended) = bounded::<()>(0);
        // On a thread of its own, so that one that hangs is noticed.
        let round = thread::spawn(move || {
            let _ended = sender;
            storm(seed, threads, are_threads_scarce)
        });
        let error = ended.recv_timeout(4 * DEADLINE).unwrap_err();
        assert!(!error.is_timeout(), "hangs: STRESS_SEED={seed} begins with this schedule");
        let Ok(count) = round.join() else {
            panic!("STRESS_SEED={seed} begins with the schedule that failed")
        };
        not_spawned += count;
        rounds += 1;
    }
    println!("{rounds} supervisors, {not_spawned} starts without a thread: {DONE}");
}

#[test]
fn random_children_and_operators_break_no_law() {
    if is_inside() {
        check_storms(2, false);
    } else {
        print!(
            "{}",
            run_to_the_end(again("storm::random_children_and_operators_break_no_law")).out
        );
    }
}

#[test]
fn they_break_no_law_either_where_threads_are_scarce() {
    if is_inside() {
        check_storms(1, true);
    } else {
        // 8 GiB of address space, for eight children of which each wants one for its stack.
        let name = "storm::they_break_no_law_either_where_threads_are_scarce";
        if let Some(command) = again_within(8 << 20, name) {
            print!("{}", run_to_the_end(command).out);
        }
    }
}
