//! A machine's watchdog, which resets the machine unless it is fed: the pulse of the supervisor
//! feeds it, as long as no child is stuck. So it bites when a thread does not stop, when the
//! supervisor itself is stuck, or when the process is gone.
//!
//! ```sh
//! cargo run --example hardware_watchdog                  # a file in place of the device
//! cargo run --example hardware_watchdog /dev/watchdog    # think first: it may reset the machine
//! ```

use std::{
    env,
    error::Error,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    process,
    time::Duration,
};

use circuit_breaker_supervisor::{ChildInfo, ChildSpec, Handle, Snapshot, Supervisor};
use crossbeam_channel::{Receiver, bounded, unbounded};

const LIMIT: Duration = Duration::from_secs(60);

/// How long a child may be overdue before the machine is to be reset.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often the watchdog is fed: several times within its own limit, which is a minute or so.
const INTERVAL: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn Error>> {
    let device = env::args().nth(1).map(PathBuf::from);
    let path = device
        .clone()
        .unwrap_or_else(|| env::temp_dir().join(format!("watchdog-{}", process::id())));
    let mut watchdog = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut closing = watchdog.try_clone()?;
    let (looks, looked) = unbounded();
    let (gate, closed) = bounded::<()>(0);
    let supervisor = Supervisor::builder()
        .on_event(|event| println!("  {event}"))
        .child(ChildSpec::new("orders", |ctx| ctx.wait_until_stopped()))
        .child(
            // It does not obey its stop before the gate opens.
            ChildSpec::new("printer", move |_ctx| Ok(closed.recv()?))
                .stop_timeout(Duration::from_millis(20)),
        )
        .pulse(INTERVAL, move |handle| {
            let is_fed = feed_unless_stuck(handle, &mut watchdog).unwrap_or(false);
            let _ = looks.send(is_fed);
        })
        .start()?;
    let handle = supervisor.handle();
    wait_until(&looked, true)?;

    println!(
        "`printer` is held, and does not stop: after a while the watchdog is not fed any more"
    );
    handle.hold("printer")?;
    wait_until(&looked, false)?;
    println!("{}", handle.snapshot());

    println!("it stops after all, just in time");
    drop(gate);
    wait_until(&looked, true)?;

    let report = supervisor.shutdown();
    println!("{report}");
    if report.is_clean() {
        // Only now: a program that crashes leaves the watchdog armed.
        disarm(&mut closing)?;
    }
    if device.is_none() {
        let fed = std::fs::read(&path)?;
        std::fs::remove_file(&path)?;
        assert!(fed.len() > 2 && fed.ends_with(b"V"), "fed, and closed in the end");
    }
    Ok(())
}

/// Feeds the watchdog, if no child is stuck. Returns whether it did.
fn feed_unless_stuck(handle: &Handle, watchdog: &mut File) -> io::Result<bool> {
    let is_well = !is_anyone_stuck(&handle.snapshot());
    if is_well {
        watchdog.write_all(b"\0")?;
    }
    Ok(is_well)
}

fn is_anyone_stuck(snapshot: &Snapshot) -> bool {
    let is_stuck = |child: &ChildInfo| {
        let too_long = child.stopping.is_some_and(|(_, stopping_for)| stopping_for > PATIENCE);
        child.is_overdue && too_long || child.branch.as_ref().is_some_and(is_anyone_stuck)
    };
    snapshot.children.iter().any(is_stuck)
}

/// The "magic close": most devices count a close without it as a crash.
fn disarm(watchdog: &mut File) -> io::Result<()> {
    watchdog.write_all(b"V")
}

fn wait_until(looked: &Receiver<bool>, is_fed: bool) -> Result<(), Box<dyn Error>> {
    while looked.recv_timeout(LIMIT)? != is_fed {}
    Ok(())
}
