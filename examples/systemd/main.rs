//! A service of systemd: ready once all its children are well, with the worst of them as its
//! status, and its watchdog fed by the supervisor's pulse. If a child cannot be stopped, the
//! service ends itself and is started anew; if even that is impossible, it feeds its watchdog no
//! longer, and systemd ends it.
//!
//! ```ini
//! [Service]
//! ExecStart=/usr/bin/orders service
//! Type=notify
//! WatchdogSec=10
//! Restart=always
//! TimeoutStopSec=30
//! ```
//!
//! `cargo run --example systemd` has `stand_in.rs` start it, in place of systemd, and check what it
//! says: when all goes well, with a child that hears nothing, and with a stuck supervisor.
//!
//! Unix only.

#[cfg(unix)]
mod stand_in;

#[cfg(not(unix))]
fn main() {
    println!("there is no systemd here");
}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use std::process::Termination;

    let mut args = std::env::args().skip(1);
    if args.next().is_some_and(|arg| arg == "service") {
        service::main(&args.next().unwrap_or_default()).report()
    } else {
        stand_in::main().report()
    }
}

#[cfg(unix)]
mod service {
    use std::{
        error::Error,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
        time::Duration,
    };

    use circuit_breaker_supervisor::{
        ChildContext, ChildInfo, ChildResult, ChildSpec, ChildStatus, Handle, RestartPolicy,
        ShutdownReport, Snapshot, Supervisor,
    };
    use sd_notify::{NotifyState, notify};

    /// How long a child may be overdue before the watchdog is not fed any more. `printer` is
    /// abandoned sooner; for the others, and for a shutdown that does not end, this is the last
    /// step.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// `fault` says what goes wrong once the service is ready: `deaf`, `stuck`, or nothing.
    pub(super) fn main(fault: &str) -> Result<ShutdownReport, Box<dyn Error>> {
        let (is_deaf, is_stuck) = (fault == "deaf", fault == "stuck");
        // Several times within the limit, since a pulse may be late.
        let interval =
            sd_notify::watchdog_enabled().map_or(Duration::from_secs(5), |limit| limit / 4);
        let is_ready = Arc::new(AtomicBool::new(false));
        let (printer_is_ready, pulse_is_ready) = (is_ready.clone(), is_ready.clone());
        let mut is_stopping = false;
        let supervisor = Supervisor::builder()
            .name("orders")
            .stop_timeout(Duration::from_millis(200))
            // Standard error of a service goes to the journal.
            .on_event(|event| eprintln!("{event}"))
            .child(ChildSpec::new("migration", |_ctx| Ok(())).restart(RestartPolicy::Transient))
            .child(ChildSpec::new("orders", take_orders).after("migration"))
            .child(
                ChildSpec::new("printer", move |ctx| {
                    print(ctx, || is_deaf && printer_is_ready.load(Ordering::Relaxed))
                })
                .watchdog(Duration::from_millis(500))
                .abandon_after(Duration::from_millis(400)),
            )
            .pulse(interval, move |handle| {
                if is_stuck && pulse_is_ready.load(Ordering::Relaxed) {
                    wait_for_ever();
                }
                let _ = notify(&beat(handle, &mut is_stopping).as_states());
            })
            .start()?;
        let handle = supervisor.handle().clone();
        ctrlc::set_handler(move || handle.request_shutdown())?; // SIGTERM, too
        if supervisor.handle().wait_until_healthy(Duration::MAX).is_ok() {
            notify(&[NotifyState::Ready])?;
            is_ready.store(true, Ordering::Relaxed);
        }
        // Until a signal comes, or a child is abandoned: then the exit code is 1.
        Ok(supervisor.wait())
    }

    /// What systemd is told at each pulse.
    struct Beat {
        status: String,
        is_fed: bool,
        has_begun_to_stop: bool,
    }

    impl Beat {
        fn as_states(&self) -> Vec<NotifyState<'_>> {
            let status = NotifyState::Status(&self.status);
            let fed = self.is_fed.then_some(NotifyState::Watchdog);
            let stopping = self.has_begun_to_stop.then_some(NotifyState::Stopping);
            [Some(status), fed, stopping].into_iter().flatten().collect()
        }
    }

    fn beat(handle: &Handle, is_stopping: &mut bool) -> Beat {
        let snapshot = handle.snapshot();
        let mut children = Vec::new();
        collect(&snapshot, &mut children);
        let worst = children.iter().max_by_key(|child| trouble(child));
        let status = match worst.filter(|child| trouble(child) > 0) {
            Some(child) => child.to_string(),
            None => snapshot.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        let is_stuck = |child: &&ChildInfo| {
            let too_long = child.stopping.is_some_and(|(_, since)| since > PATIENCE);
            child.is_overdue && too_long
        };
        let is_fed = !children.iter().any(is_stuck);
        let was_stopping = std::mem::replace(is_stopping, !snapshot.is_running);
        Beat { status, is_fed, has_begun_to_stop: *is_stopping && !was_stopping }
    }

    /// All children, those of nested supervisors among them.
    fn collect<'a>(snapshot: &'a Snapshot, all: &mut Vec<&'a ChildInfo>) {
        for child in &snapshot.children {
            all.push(child);
            child.branch.iter().for_each(|branch| collect(branch, all));
        }
    }

    /// How much attention a child needs; none at 0.
    fn trouble(child: &ChildInfo) -> u32 {
        match child.status {
            _ if child.is_overdue => 5,
            ChildStatus::Stopping => 4,
            ChildStatus::GaveUp => 3,
            _ if child.failures > 0 => 2,
            ChildStatus::Waiting => 1,
            _ => 0,
        }
    }

    fn take_orders(ctx: &ChildContext) -> ChildResult {
        // … connect …
        ctx.mark_healthy();
        ctx.wait_until_stopped()
    }

    fn print(ctx: &ChildContext, is_deaf: impl Fn() -> bool) -> ChildResult {
        ctx.mark_healthy();
        while !ctx.is_stopping() {
            ctx.heartbeat("waiting for the printer");
            if is_deaf() {
                wait_for_ever(); // as in a driver that never answers
            }
            ctx.sleep(Duration::from_millis(50))?;
        }
        Ok(())
    }

    fn wait_for_ever() -> ! {
        loop {
            thread::park();
        }
    }
}
