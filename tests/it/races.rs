//! Races of the end that a run comes to by itself against a stop at the same moment: ten thousand,
//! over all causes.
//!
//! Whichever comes first is the cause, there is one end, and what was asked for holds either way.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildContext, ChildInfo, ChildResult, ChildSpec, ChildStatus, OffBy, ShutdownReport, StopCause,
    Supervisor, SupervisorBuilder,
};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{chronicle::Chronicle, support::*};

/// For each cause.
const RACES: u64 = 2000;

/// One child, each run of which waits for a signal to end, and ends by itself a little later.
struct Race {
    chronicle: Chronicle,
    start: Sender<()>,
    signal: Receiver<()>,
    dice: Dice,
}

impl Race {
    fn new(seed: u64) -> Self {
        // Without room, so that whoever has sent knows that a run is on its way out.
        let (start, signal) = bounded(0);
        Self { chronicle: Chronicle::default(), start, signal, dice: Dice(seed) }
    }

    fn child(&mut self) -> ChildSpec {
        let (signal, chronicle) = (self.signal.clone(), self.chronicle.clone());
        let mut dice = Dice(self.dice.roll(u64::MAX));
        let run = move |ctx: &ChildContext| -> ChildResult {
            let token = chronicle.token();
            ctx.recv(&signal)?;
            dice.dawdle();
            match dice.roll(4) {
                0 => resume_unwind(Box::new(token)),
                1 => Ok(()),
                _ => Err(token.into()),
            }
        };
        ChildSpec::new("child", self.chronicle.body(run)).fresh_thread(self.dice.roll(8) == 0)
    }

    fn supervisor(&mut self) -> SupervisorBuilder {
        Supervisor::builder()
            .telemetry(self.chronicle.clone())
            .poll_interval(HOUR)
            .backoff(constant(Duration::ZERO))
            .stop_timeout(DEADLINE)
            .child(self.child())
    }

    /// The present run is on its way out, and the stop may be as early or as late as it.
    fn begin(&mut self) {
        self.start.send_timeout((), DEADLINE).unwrap();
        self.dice.dawdle();
    }

    /// Ends it, and checks all that happened.
    fn end(self, supervisor: Supervisor, cause: StopCause) {
        let report = supervisor.shutdown();
        self.check(report, cause);
    }

    fn check(self, report: ShutdownReport, cause: StopCause) {
        assert!(report.is_clean(), "{report}");
        for stop in self.chronicle.stops() {
            assert!([cause, StopCause::Exited, StopCause::Shutdown].contains(&stop), "{stop}");
        }
        self.chronicle.check(report, |_| true);
    }
}

#[test]
fn exit_races_with_a_hold() {
    let mut race = Race::new(1);
    let supervisor = race.supervisor().start().unwrap();
    let handle = supervisor.handle();
    for _ in rounds(RACES) {
        race.begin();
        race.chronicle.hold(handle, "child");
        let last = wait_off(handle, "child", OffBy::Operator).run;
        race.chronicle.release(handle, "child");
        handle.wait_for("child", DEADLINE, |child| child.run > last && child.is_running()).unwrap();
    }
    race.end(supervisor, StopCause::Held);
}

#[test]
fn exit_races_with_a_flag() {
    let mut race = Race::new(2);
    let flag = Arc::new(AtomicBool::new(true));
    let its = flag.clone();
    let supervisor =
        race.supervisor().enabled(move |_| its.load(Ordering::SeqCst)).start().unwrap();
    let handle = supervisor.handle();
    for _ in rounds(RACES) {
        race.begin();
        flag.store(false, Ordering::SeqCst);
        handle.poll_now().unwrap();
        let last = wait_off(handle, "child", OffBy::Flag).run;
        flag.store(true, Ordering::SeqCst);
        handle.poll_now().unwrap();
        handle.wait_for("child", DEADLINE, |child| child.run > last && child.is_running()).unwrap();
    }
    race.end(supervisor, StopCause::Disabled);
}

#[test]
fn exit_races_with_a_restart() {
    let mut race = Race::new(3);
    let supervisor = race.supervisor().start().unwrap();
    let handle = supervisor.handle();
    for _ in rounds(RACES) {
        let last = handle.child("child").unwrap().run;
        race.begin();
        handle.restart("child").unwrap();
        handle.wait_for("child", DEADLINE, |child| child.run > last && child.is_running()).unwrap();
    }
    race.end(supervisor, StopCause::Restarted);
}

#[test]
fn exit_races_with_a_removal() {
    let mut race = Race::new(4);
    let supervisor = race.supervisor().start().unwrap();
    let handle = supervisor.handle();
    for _ in rounds(RACES) {
        race.begin();
        race.chronicle.remove(handle, "child");
        handle.wait_until_gone("child", DEADLINE).unwrap();
        let child = race.child();
        race.chronicle.add(handle, child);
        handle.wait_for("child", DEADLINE, ChildInfo::is_running).unwrap();
    }
    race.end(supervisor, StopCause::Removed);
}

#[test]
fn exit_races_with_a_shutdown() {
    for round in rounds(RACES) {
        let mut race = Race::new(round);
        let supervisor = race.supervisor().start().unwrap();
        race.begin();
        race.chronicle.close(supervisor.handle());
        let report = supervisor.wait();
        race.check(report, StopCause::Shutdown);
    }
}

/// What is added is either refused, or known to the supervisor when it ends.
#[test]
fn addition_races_a_shutdown() {
    let mut dice = Dice(11);
    for _ in rounds(RACES) {
        let supervisor = Supervisor::builder().telemetry(()).start().unwrap();
        let handle = supervisor.handle().clone();
        thread::scope(|scope| {
            let (ready, go) = bounded::<()>(0);
            let handle = &handle;
            scope.spawn(move || {
                let _ = go.recv();
                handle.request_shutdown();
            });
            drop(ready);
            dice.dawdle();
            let _ = handle.add(idler("late"));
        });
        let report = supervisor.shutdown();
        assert!(report.is_clean(), "{report}");
        if let Some(child) = handle.child("late") {
            assert_eq!(child.status, ChildStatus::Off { by: OffBy::Shutdown }, "{child}");
        }
    }
}
