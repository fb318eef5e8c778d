//! A process as a child's body: its output in the log, a stop that is polite before it is not, and
//! nothing left behind.
//!
//! A process is what can be ended by force, as a thread cannot. Each has a process group of its
//! own, so that what it has started ends with it: SIGTERM first, SIGKILL after its grace. That also
//! happens when the body panics. Out of reach is only what has left the group, as daemons do: as
//! long as it holds the output, the body does not return, and a shutdown names the child.
//!
//! Unix only.

#[cfg(not(unix))]
fn main() {
    println!("there are no process groups here");
}

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    unix::main()
}

#[cfg(unix)]
mod unix {
    use std::{
        error::Error,
        io::{self, BufRead, BufReader, Read},
        os::unix::process::CommandExt,
        process::{Child, Command, ExitStatus, Stdio},
        sync::Arc,
        thread::{self, Scope},
        time::Duration,
    };

    use circuit_breaker_supervisor::{
        Backoff, ChildContext, ChildInfo, ChildResult, ChildSpec, ChildStatus, Handle, Supervisor,
        WaitError,
    };
    use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
    use parking_lot::Mutex;
    use rustix::{
        io::{Errno, retry_on_intr},
        process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
    };

    type AnyResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

    /// How long a process has between SIGTERM and SIGKILL. The child's stop timeout is longer.
    const GRACE: Duration = Duration::from_millis(500);

    /// How long anything may take on a machine that is busy with other things.
    const LIMIT: Duration = Duration::from_secs(60);

    /// The processes: each starts a helper, which holds its output and would live for long.
    const POLITE: &str = "trap 'echo good-bye; exit 0' TERM; sleep 1000 & echo ready; wait";
    const STUBBORN: &str = "trap '' TERM; sleep 1000 & echo ready; wait";
    const CRASHING: &str = "sleep 1000 & echo ready; echo 'no such queue' >&2; exit 3";
    const POISONED: &str = "sleep 1000 & echo ready; echo poison; wait";

    pub(super) fn main() -> AnyResult<()> {
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
            .format_timestamp_millis()
            .init();
        let said = Arc::new(Mutex::new(Vec::new()));
        let child = |id: &str, script: &'static str| {
            let said = said.clone();
            ChildSpec::new(id, move |ctx| {
                supervise(ctx, Command::new("sh").args(["-c", script]), |line| {
                    log::info!("{}: {line}", ctx.id());
                    assert!(line != "poison", "cannot digest this");
                    if line == "ready" {
                        ctx.mark_healthy();
                    }
                    said.lock().push(format!("{}: {line}", ctx.id()));
                })
            })
        };
        let supervisor = Supervisor::builder()
            .name("processes")
            .backoff(Backoff::constant(Duration::from_millis(300)))
            .stop_timeout(GRACE + Duration::from_secs(10))
            .child(child("polite", POLITE))
            .child(child("stubborn", STUBBORN))
            .child(child("crashing", CRASHING))
            .child(child("poisoned", POISONED))
            .start()?;
        let handle = supervisor.handle();
        let has_said = |line: &str| said.lock().iter().any(|said| said == line);

        // These come back, which they could not while a helper held the output of an earlier run.
        let crashing = handle.wait_for("crashing", LIMIT, |child| child.run > 2)?;
        ensure(exit_of(&crashing) == "the process ended: exit status: 3", &crashing)?;
        ensure(has_said("crashing: no such queue"), &crashing)?;
        let poisoned = handle.wait_for("poisoned", LIMIT, |child| child.run > 2)?;
        ensure(exit_of(&poisoned) == "cannot digest this", &poisoned)?;

        let polite = hold(handle, "polite")?;
        ensure(exit_of(&polite) == "completed" && has_said("polite: good-bye"), &polite)?;
        let stubborn = hold(handle, "stubborn")?;
        ensure(exit_of(&stubborn).contains("signal: 9"), &stubborn)?;
        println!("\n{}\n", handle.snapshot());

        // Once more, and this time all at once.
        for id in ["polite", "stubborn"] {
            handle.release(id)?;
            wait_until_ready(handle, id)?;
        }
        let report = supervisor.shutdown();
        println!("{report}");
        if !report.is_clean() {
            return Err("all should have stopped, and their helpers with them".into());
        }
        // Neither a process of ours that lives nor one that nobody has waited for.
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Err(Errno::CHILD) => Ok(()),
            other => Err(format!("a process is left behind: {other:?}").into()),
        }
    }

    /// Stops the child when its process is ready, and waits until it has stopped.
    fn hold(handle: &Handle, id: &str) -> AnyResult<ChildInfo> {
        wait_until_ready(handle, id)?;
        handle.hold(id)?;
        Ok(handle.wait_for(id, LIMIT, |child| !child.is_running())?)
    }

    fn wait_until_ready(handle: &Handle, id: &str) -> Result<ChildInfo, WaitError> {
        handle.wait_for(id, LIMIT, |child| child.status == ChildStatus::Healthy)
    }

    fn exit_of(child: &ChildInfo) -> &str {
        let exit = child.last_stop.as_ref().map(|stop| &stop.exit);
        exit.map_or("none", |exit| exit.message().unwrap_or("completed"))
    }

    fn ensure(holds: bool, child: &ChildInfo) -> AnyResult<()> {
        if holds { Ok(()) } else { Err(format!("this is not as it should be: {child}").into()) }
    }

    // ── The body ──

    /// Runs the process until it ends or the child is asked to stop. `on_line` is called on the
    /// child's thread with each line of the output, and may panic.
    fn supervise(
        ctx: &ChildContext,
        command: &mut Command,
        mut on_line: impl FnMut(&str),
    ) -> ChildResult {
        thread::scope(|scope| {
            let (sender, lines) = bounded(64);
            let mut group = Group::start(command, scope, sender)?;
            let (silence, mut output) = (never(), &lines);
            let (mut stopped, mut grace) = (ctx.stopped().clone(), never());
            loop {
                // The output is read during the grace, too: a full pipe would use it up.
                select! {
                    recv(output) -> line => match line {
                        Ok(line) => on_line(&line),
                        // It has closed its output, and goes on.
                        Err(_) => output = &silence,
                    },
                    recv(stopped) -> _ => {
                        group.signal(Signal::TERM);
                        (stopped, grace) = (never(), after(GRACE));
                    }
                    recv(grace) -> _ => group.signal(Signal::KILL),
                    recv(group.has_ended) -> _ => break,
                }
            }
            let status = group.end()?;
            lines.iter().for_each(|line| on_line(&line));
            if status.success() {
                Ok(())
            } else {
                Err(format!("the process ended: {status}").into())
            }
        })
    }

    /// A process and what it has started, which end when this is dropped.
    struct Group {
        leader: Child,
        status: Option<ExitStatus>,
        /// Disconnected when the leader has ended. Until somebody waits for it, its id is not given
        /// to another process, so that a signal reaches this group or none.
        has_ended: Receiver<()>,
    }

    impl Group {
        fn start<'scope>(
            command: &mut Command,
            scope: &'scope Scope<'scope, '_>,
            lines: Sender<String>,
        ) -> io::Result<Self> {
            let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
            let leader = command.stderr(Stdio::piped()).process_group(0).spawn()?;
            let (sender, has_ended) = bounded(0);
            // From here on, whatever fails ends the group.
            let mut group = Self { leader, status: None, has_ended };
            let id = Pid::from_child(&group.leader);
            spawn(scope, move || {
                let _disconnected_at_the_end: Sender<()> = sender;
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                let _ = retry_on_intr(|| waitid(WaitId::Pid(id), options));
            })?;
            if let (Some(stdout), Some(stderr)) =
                (group.leader.stdout.take(), group.leader.stderr.take())
            {
                let its = lines.clone();
                spawn(scope, move || send_lines(stdout, &its))?;
                spawn(scope, move || send_lines(stderr, &lines))?;
            }
            Ok(group)
        }

        fn signal(&self, signal: Signal) {
            let _ = kill_process_group(Pid::from_child(&self.leader), signal);
        }

        /// Kills whoever is left of the group, and leaves no zombie.
        fn end(&mut self) -> io::Result<ExitStatus> {
            // Once the leader was waited for, its id may be that of another process.
            if let Some(status) = self.status {
                return Ok(status);
            }
            self.signal(Signal::KILL);
            let _ = self.has_ended.recv();
            let status = self.leader.wait()?;
            self.status = Some(status);
            Ok(status)
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = self.end();
        }
    }

    /// Fails where a scope's own `spawn` panics.
    fn spawn<'scope>(
        scope: &'scope Scope<'scope, '_>,
        body: impl FnOnce() + Send + 'scope,
    ) -> io::Result<()> {
        thread::Builder::new().spawn_scoped(scope, body).map(drop)
    }

    /// Sends each line until the last process that holds the output has ended, or nobody wants them
    /// any more.
    fn send_lines(output: impl Read, lines: &Sender<String>) {
        let mut output = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            // A line that is too long comes in parts.
            match (&mut output).take(8192).read_until(b'\n', &mut line) {
                Ok(count) if count > 0 => {}
                _ => return,
            }
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    }
}
