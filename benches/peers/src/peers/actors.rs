//! ractor-supervisor, with its static supervisor.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_supervisor::{
    ChildSpec, Restart, SpawnFn, Supervisor, SupervisorArguments, SupervisorOptions,
    SupervisorStrategy,
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    crasher::{Crasher, Plan, Present},
    fleet::name,
    peers::Stop,
};

pub(crate) fn on_two_threads(plan: Plan) -> Stop {
    start(plan, two_threads())
}

pub(crate) fn on_one_thread(plan: Plan) -> Stop {
    start(plan, one_thread())
}

pub(crate) fn two_threads() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

/// One worker, rather than a runtime that runs only while it is waited for.
pub(crate) fn one_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

struct Idle(Plan);

impl Actor for Idle {
    type Msg = ();
    type State = Present;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<Present, ActorProcessingErr> {
        Ok(self.0.arrive())
    }
}

struct Crashing(Crasher);

impl Actor for Crashing {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    /// The first that runs on a task of its own: `pre_start` runs on the supervisor's, and a panic
    /// there counts as a failure to spawn.
    async fn post_start(&self, _: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.0.run();
        Ok(())
    }
}

fn start(plan: Plan, runtime: Runtime) -> Stop {
    let spec = |id: String, spawn_fn| ChildSpec {
        id,
        restart: Restart::Permanent,
        spawn_fn,
        backoff_fn: None,
        reset_after: None,
    };
    let mut child_specs = Vec::new();
    for index in 0..plan.idle {
        let plan = plan.clone();
        child_specs.push(spec(
            name(index),
            SpawnFn::new(move |cell, id| {
                let idle = Idle(plan.clone());
                async move { Ok(Supervisor::spawn_linked(id, idle, (), cell).await?.0.get_cell()) }
            }),
        ));
    }
    if let Some(crasher) = plan.crasher {
        child_specs.push(spec(
            "crasher".into(),
            SpawnFn::new(move |cell, id| {
                let crashing = Crashing(crasher.clone());
                async move {
                    let (child, _) = Supervisor::spawn_linked(id, crashing, (), cell).await?;
                    Ok(child.get_cell())
                }
            }),
        ));
    }
    let options = SupervisorOptions {
        strategy: SupervisorStrategy::OneForOne,
        max_restarts: usize::MAX,
        // The log of restarts is searched at each of them: it is to hold one.
        max_window: Duration::from_nanos(1),
        reset_after: None,
    };
    let arguments = SupervisorArguments { child_specs, options };
    let spawned = runtime.block_on(Supervisor::spawn("supervisor".into(), arguments));
    let (supervisor, ended) = spawned.expect("the supervisor starts");
    Box::new(move || {
        supervisor.stop(None);
        runtime.block_on(ended).expect("the supervisor ends in order");
    })
}
