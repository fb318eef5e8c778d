//! rust_supervisor, which looks after its threads every 100 ms.

use std::{thread, time::Duration};

use crossbeam_channel::{Receiver, bounded};
use rust_supervisor::{ChildType, RestartStrategy, ShutdownStrategy, Supervisor, SupervisorConfig};

use crate::{crasher::Plan, fleet::name, peers::Stop};

pub(crate) fn start(plan: Plan) -> Stop {
    let mut supervisor = Supervisor::new(SupervisorConfig {
        max_restarts: usize::MAX,
        max_time: Duration::from_nanos(1),
        restart_strategy: RestartStrategy::OneForOne,
        // With a time limit it waits for one child after the other, at least 10 ms for each.
        shutdown_strategy: ShutdownStrategy::BrutalKill,
    });
    // It gives its children no signal to wait for, only one to look at again and again.
    let (end, ended) = bounded::<()>(0);
    for index in 0..plan.idle {
        let (plan, ended) = (plan.clone(), ended.clone());
        supervisor.add_process(&name(index), ChildType::Permanent, move || {
            let (plan, ended) = (plan.clone(), ended.clone());
            spawn(move || {
                let _present = plan.arrive();
                wait(&ended);
            })
        });
    }
    if let Some(crasher) = plan.crasher {
        supervisor.add_process("crasher", ChildType::Permanent, move || {
            let (crasher, ended) = (crasher.clone(), ended.clone());
            spawn(move || {
                crasher.run();
                wait(&ended);
            })
        });
    }
    let supervisor = supervisor.start_monitoring();
    Box::new(move || {
        supervisor.shutdown();
        drop(end);
    })
}

fn spawn(f: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new().name("child".into()).spawn(f).expect("there is room for a thread")
}

fn wait(ended: &Receiver<()>) {
    let _ = ended.recv();
}
