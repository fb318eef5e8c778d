//! task-supervisor.

use std::time::Duration;

use task_supervisor::{CancellationToken, SupervisedTask, SupervisorBuilder, TaskResult};
use tokio::runtime::Runtime;

use crate::{
    crasher::{Crasher, Plan},
    fleet::name,
    peers::Stop,
};

pub(crate) fn on_two_threads(plan: Plan) -> Stop {
    start(plan, super::actors::two_threads())
}

pub(crate) fn on_one_thread(plan: Plan) -> Stop {
    start(plan, super::actors::one_thread())
}

#[derive(Clone)]
struct Idle(Plan);

impl SupervisedTask for Idle {
    async fn run(self, cancel: CancellationToken) -> TaskResult {
        let _present = self.0.arrive();
        cancel.cancelled().await;
        Ok(())
    }
}

#[derive(Clone)]
struct Crashing(Crasher);

impl SupervisedTask for Crashing {
    async fn run(self, cancel: CancellationToken) -> TaskResult {
        self.0.run();
        cancel.cancelled().await;
        Ok(())
    }
}

fn start(plan: Plan, runtime: Runtime) -> Stop {
    let mut builder = SupervisorBuilder::new()
        .with_unlimited_restarts()
        .with_base_restart_delay(Duration::ZERO)
        .with_restart_jitter(0.0);
    for index in 0..plan.idle {
        builder = builder.with_task(&name(index), Idle(plan.clone()));
    }
    if let Some(crasher) = plan.crasher {
        builder = builder.with_task("crasher", Crashing(crasher));
    }
    let handle = {
        let _guard = runtime.enter();
        builder.spawn()
    };
    Box::new(move || {
        runtime.block_on(async { handle.shutdown().await.expect("the supervisor ends in order") })
    })
}
