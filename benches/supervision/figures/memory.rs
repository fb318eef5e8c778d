//! What an idle child holds of memory, over a thread that is parked in a channel's `recv`.

use crate::{
    fleet::{Body, Fleet, Gate, let_come_to_rest},
    linux,
    measure::Rounds,
    options::Options,
    process::{self, Asked},
    report::{Figure, Limit},
};

pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    if !cfg!(target_os = "linux") {
        eprintln!("memory: skipped, for it reads /proc");
        return Vec::new();
    }
    let figure = |n| {
        let rounds = Rounds::take(options.launches(7), |side| {
            process::launch("memory", side, n, options.quick)[0]
        });
        Figure::difference("memory", n, "B", &rounds, Limit::AtMost(2.0 * 1024.0))
    };
    options.sizes(&[1_000, 10_000]).into_iter().map(figure).collect()
}

/// Bytes for each child.
pub(crate) fn launch(asked: &Asked) -> Vec<f64> {
    let gate = Gate::new(asked.n);
    let before = linux::held_bytes();
    let bodies = (0..asked.n).map(|_| -> Body {
        let gate = gate.clone();
        Box::new(move |ctx| {
            gate.arrive();
            ctx.idle()
        })
    });
    let fleet = Fleet::unsupervised(asked.side, bodies);
    gate.wait();
    let_come_to_rest(asked.n);
    let after = linux::held_bytes();
    fleet.stop();
    vec![(after - before) / asked.n as f64]
}
