//! The figures, in groups that are measured together.

mod allocations;
mod backoff;
mod breaker;
mod flood;
mod idle;
mod lifetime;
mod memory;
mod poll;
mod rate;
mod recovery;
mod restart;
mod scale;
mod size;
mod waiters;

pub(crate) use lifetime::lifetime;
pub(crate) use poll::poll;
pub(crate) use restart::{How, crash};

use crate::{options::Options, process::Asked, report::Figure};

pub(crate) struct Group {
    pub(crate) figures: &'static [&'static str],
    pub(crate) measure: fn(&Options) -> Vec<Figure>,
}

pub(crate) const GROUPS: &[Group] = &[
    Group { figures: &["restart_p50", "restart_growth", "restart_p99"], measure: restart::hot },
    Group { figures: &["restart_err_p50"], measure: restart::hot_errors },
    Group { figures: &["restart_cold_p50"], measure: restart::cold },
    Group { figures: &["restart_rate"], measure: rate::figures },
    Group { figures: &["waiters"], measure: waiters::figures },
    Group { figures: &["recovery"], measure: recovery::figures },
    Group { figures: &["start", "stop"], measure: lifetime::figures },
    Group { figures: &["memory"], measure: memory::figures },
    Group { figures: &["flood"], measure: flood::figures },
    Group { figures: &["size", "compile"], measure: size::figures },
    Group { figures: &["poll", "poll_growth"], measure: poll::figures },
    Group { figures: &["exit_at_scale"], measure: scale::figures },
    Group { figures: &["backoff_lateness", "backoff_early"], measure: backoff::figures },
    Group { figures: &["idle_switches", "idle_cpu"], measure: idle::figures },
    Group { figures: breaker::PERMITTED, measure: breaker::permitted },
    Group { figures: breaker::REJECTED, measure: breaker::rejected },
    Group { figures: &["event", "event_silent"], measure: allocations::event },
    Group { figures: &["steady_state", "steady_state_err"], measure: allocations::steady_state },
];

pub(crate) fn names() -> Vec<&'static str> {
    GROUPS.iter().flat_map(|group| group.figures).copied().collect()
}

/// One launch, in the process that was made for it.
pub(crate) fn launch(asked: &Asked) -> Vec<f64> {
    match asked.workload.as_str() {
        "lifetime" => lifetime::launch(asked),
        "memory" => memory::launch(asked),
        "flood" => flood::launch(asked),
        "poll" => poll::launch(asked),
        "scale" => scale::launch(asked),
        "idle_switches" => idle::switches(asked),
        "idle_cpu" => idle::cpu(asked),
        "event" => allocations::event_launch(asked),
        "steady_state" => allocations::steady_state_launch(asked, How::Panic),
        "steady_state_err" => allocations::steady_state_launch(asked, How::Error),
        "growth" => crate::growth::launch(asked),
        unknown => panic!("no workload is called `{unknown}`"),
    }
}
