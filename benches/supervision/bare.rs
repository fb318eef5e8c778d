//! The baselines: the same work by the standard library and channels, with nothing on top.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::fleet::{Body, BodyResult, Context, name};

/// Named threads, each of which runs its body once and can be asked to stop. Nobody hears how they
/// end.
pub(crate) struct Threads {
    stops: Vec<Sender<Infallible>>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn start(bodies: impl IntoIterator<Item = Body>) -> Self {
        let (mut stops, mut threads) = (Vec::new(), Vec::new());
        for (index, mut body) in bodies.into_iter().enumerate() {
            let (stop, stopped) = bounded(0);
            stops.push(stop);
            threads.push(spawn(index, move || {
                let _ = catch_unwind(AssertUnwindSafe(|| body(Context::Bare(&stopped))));
            }));
        }
        Self { stops, threads }
    }

    pub(crate) fn stop(self) {
        drop(self.stops);
        join(self.threads);
    }
}

/// Warm threads and a controller, which has spawned them. A thread waits for the word to go, runs
/// its body with `catch_unwind`, and reports the exit on a shared channel; the controller gives it
/// the word to go again, after a backoff if there is one.
///
/// On which cores the kernel puts threads depends on who spawns them: if it were not the
/// controller, it would share its core with them more often than a supervisor of ours does.
pub(crate) struct Supervised {
    stops: Vec<Sender<Infallible>>,
    controller: JoinHandle<Vec<JoinHandle<()>>>,
}

struct Exit {
    index: usize,
    outcome: thread::Result<BodyResult>,
    at: Instant,
}

impl Supervised {
    pub(crate) fn start(backoff: Duration, bodies: impl IntoIterator<Item = Body>) -> Self {
        let bodies: Vec<Body> = bodies.into_iter().collect();
        let (stops, stopped): (Vec<_>, Vec<_>) = bodies.iter().map(|_| bounded(0)).unzip();
        let controller = thread::Builder::new().name("controller".into()).spawn(move || {
            let (exits, ended) = unbounded();
            let (mut words, mut threads) = (Vec::new(), Vec::new());
            for (index, (body, stopped)) in bodies.into_iter().zip(stopped).enumerate() {
                let ((word, heard), exits) = (bounded(1), exits.clone());
                let _ = word.send(());
                words.push(word);
                threads.push(spawn(index, move || work(index, body, &heard, &stopped, &exits)));
            }
            drop(exits);
            if backoff.is_zero() {
                restart_at_once(&ended, &words);
            } else {
                restart_after(backoff, &ended, &words);
            }
            threads
        });
        Self { stops, controller: controller.expect("there is room for a thread") }
    }

    pub(crate) fn stop(self) {
        drop(self.stops);
        join(self.controller.join().expect("the controller does not panic"));
    }
}

fn work(
    index: usize,
    mut body: Body,
    heard: &Receiver<()>,
    stopped: &Receiver<Infallible>,
    exits: &Sender<Exit>,
) {
    while heard.recv().is_ok() {
        let outcome = catch_unwind(AssertUnwindSafe(|| body(Context::Bare(stopped))));
        if matches!(outcome, Ok(Ok(()))) {
            return;
        }
        let _ = exits.send(Exit { index, outcome, at: Instant::now() });
    }
}

/// What came out of a body is dropped when its thread runs again: nobody waits for that.
fn restart_at_once(ended: &Receiver<Exit>, words: &[Sender<()>]) {
    for Exit { index, outcome, .. } in ended {
        let _ = words[index].send(());
        drop(outcome);
    }
}

/// Has one child to wait for at a time, which is all that its workload asks.
fn restart_after(backoff: Duration, ended: &Receiver<Exit>, words: &[Sender<()>]) {
    for Exit { index, at, .. } in ended {
        let _ = ended.recv_deadline(at + backoff);
        let _ = words[index].send(());
    }
}

pub(crate) fn spawn(index: usize, f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name(name(index)).spawn(f).expect("there is room for a thread")
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("what bodies panic is caught");
    }
}
