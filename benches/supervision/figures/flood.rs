//! Whether memory grows with what is asked for again and again while nobody can carry it out.

use circuit_breaker_supervisor::Supervisor;
use crossbeam_channel::bounded;

use crate::{
    fleet::{idle_bodies, name, spec},
    linux,
    measure::{Rounds, Side},
    options::Options,
    process::{self, Asked},
    report::{Figure, Limit},
};

const WISHES: usize = 1_000_000;

/// Four orders, a poll, and a failure that a caller reports.
const WISHES_AT_ONCE: usize = 6;

/// The baseline is the same without the wishes.
pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    if !cfg!(target_os = "linux") {
        eprintln!("flood: skipped, for it reads /proc");
        return Vec::new();
    }
    let rounds = Rounds::take(options.launches(5), |side| {
        process::launch("flood", side, WISHES, options.quick)[0]
    });
    vec![Figure::difference("flood", WISHES, "KiB", &rounds, Limit::AtMost(64.0))]
}

/// By how much the memory grows, in KiB.
pub(crate) fn launch(asked: &Asked) -> Vec<f64> {
    let (gate, bar) = bounded::<()>(0);
    let (sender, held) = bounded::<()>(1);
    let children = idle_bodies(1).enumerate().map(|(index, body)| spec(index, body));
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            // The first order holds the supervisor thread up.
            if event.name().ends_with(".order") {
                let _ = sender.try_send(());
                let _ = bar.recv();
            }
        })
        .children(children)
        .start()
        .expect("the children are in order");
    let (handle, id) = (supervisor.handle(), name(0));
    handle.reset(&id).expect("it is listed");
    held.recv().expect("the order is told");
    let breaker = handle.breaker(&id).expect("it is listed");
    let wish = || {
        let orders =
            [handle.hold(&id), handle.release(&id), handle.restart(&id), handle.reset(&id)];
        assert!(orders.into_iter().chain([handle.poll_now()]).all(|order| order.is_ok()));
        breaker.report_failure("no");
        handle.snapshot().counts().children
    };
    // What is allocated once does not count.
    (0..100).for_each(|_| assert_eq!(wish(), 1));
    let before = linux::held_bytes();
    if asked.side == Side::Ours {
        (0..asked.n / WISHES_AT_ONCE).for_each(|_| assert_eq!(wish(), 1));
    }
    let after = linux::held_bytes();
    drop(gate);
    drop(supervisor);
    vec![(after - before) / 1024.0]
}
