//! Ours, and the two floors: bare threads that stay warm, and bare threads that are fresh for every
//! run.

use std::thread;

use crossbeam_channel::{Receiver, bounded, unbounded};

use crate::{
    bare,
    crasher::{Crasher, Plan},
    fleet::{Body, Fleet},
    measure::Side,
    peers::Stop,
};

pub(crate) fn ours(plan: Plan) -> Stop {
    let fleet = Fleet::supervised(Side::Ours, bodies(&plan));
    Box::new(move || fleet.stop())
}

pub(crate) fn warm(plan: Plan) -> Stop {
    let fleet = match plan.crasher {
        Some(_) => Fleet::supervised(Side::Baseline, bodies(&plan)),
        None => Fleet::unsupervised(Side::Baseline, bodies(&plan)),
    };
    Box::new(move || fleet.stop())
}

pub(crate) fn fresh(plan: Plan) -> Stop {
    let fleet = Fleet::unsupervised(Side::Baseline, idle_bodies(&plan));
    let controller = plan.crasher.clone().map(|crasher| {
        let (tell_end, ended) = bounded(0);
        let controller = bare::spawn(plan.idle, move || spawn_again_and_again(&crasher, &ended));
        (controller, tell_end)
    });
    Box::new(move || {
        if let Some((controller, tell_end)) = controller {
            drop(tell_end);
            controller.join().expect("the controller does not panic");
        }
        fleet.stop();
    })
}

fn bodies(plan: &Plan) -> impl Iterator<Item = Body> {
    let crasher = plan.crasher.clone().map(|crasher| -> Body {
        Box::new(move |ctx| {
            crasher.run();
            ctx.idle()
        })
    });
    idle_bodies(plan).chain(crasher)
}

fn idle_bodies(plan: &Plan) -> impl Iterator<Item = Body> {
    let plan = plan.clone();
    (0..plan.idle).map(move |_| -> Body {
        let plan = plan.clone();
        Box::new(move |ctx| {
            let _present = plan.arrive();
            ctx.idle()
        })
    })
}

/// The thread says that it ends before it does: the next need not wait until it is joined.
fn spawn_again_and_again(crasher: &Crasher, ended: &Receiver<()>) {
    let (exits, crashed) = unbounded();
    loop {
        let (crasher, exits, ended) = (crasher.clone(), exits.clone(), ended.clone());
        let thread = thread::Builder::new().name("crasher".into()).spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| crasher.run()));
            let is_done = outcome.is_ok();
            let _ = exits.send(outcome);
            if is_done {
                let _ = ended.recv();
            }
        });
        let thread = thread.expect("there is room for a thread");
        if matches!(crashed.recv(), Ok(Ok(()))) {
            let _ = thread.join();
            return;
        }
    }
}
