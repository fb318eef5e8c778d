//! bastion, of which a process has one.

use bastion::prelude::{
    ActorRestartStrategy, Bastion, Config, RestartPolicy, RestartStrategy, SupervisionStrategy,
};

use crate::{crasher::Plan, peers::Stop};

pub(crate) fn start(plan: Plan) -> Stop {
    Bastion::init_with(Config::new().hide_backtraces());
    let supervisor = Bastion::supervisor(|supervisor| {
        supervisor.with_strategy(SupervisionStrategy::OneForOne).with_restart_strategy(
            RestartStrategy::new(RestartPolicy::Always, ActorRestartStrategy::Immediate),
        )
    });
    let supervisor = supervisor.expect("a supervisor can be made");
    Bastion::start();
    for _ in 0..plan.idle {
        let plan = plan.clone();
        let children = supervisor.children(|children| {
            children.with_exec(move |ctx| {
                let plan = plan.clone();
                async move {
                    let _present = plan.arrive();
                    while ctx.recv().await.is_ok() {}
                    Ok(())
                }
            })
        });
        children.expect("children can be made");
    }
    if let Some(crasher) = plan.crasher {
        let children = supervisor.children(|children| {
            children.with_exec(move |ctx| {
                let crasher = crasher.clone();
                async move {
                    crasher.run();
                    while ctx.recv().await.is_ok() {}
                    Ok(())
                }
            })
        });
        children.expect("children can be made");
    }
    Box::new(|| {
        Bastion::stop();
        Bastion::block_until_stopped();
    })
}
