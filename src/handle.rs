//! Handle by which any thread queries and commands a supervisor.

use std::{
    collections::HashSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    breaker::Breaker,
    child::{AddError, ChildSpec},
    error::{CommandError, WaitError},
    event::Order,
    report::ShutdownReport,
    runtime::{
        row::Row,
        shared::Shared,
        tree::{self, Listed, Place},
    },
    snapshot::{ChildInfo, Snapshot},
    status::ChildStatus,
    sync::{clock::system_now, deadline},
};

/// How often [`Handle::wait_until_healthy`] looks again at a child that waits for another one, or
/// that is below another supervisor.
const LOOK: Duration = Duration::from_millis(100);

/// Handle by which any thread queries and commands a supervisor, for as long as it likes: a cheap
/// clone.
///
/// It keeps neither the supervisor nor a child alive, only what is known of them: it still answers
/// after the supervisor has ended.
///
/// A path is the id of a child or, for one of a [nested](crate::nesting) supervisor, the ids that
/// lead to it, such as `ingest/parser`: what events and tables show. A handle of a nested
/// supervisor also takes paths that begin there.
///
/// Every call is allowed from everywhere, bodies, sinks and callbacks included, and returns without
/// waiting for the supervisor thread, unless its name says `wait`. Commands are checked at once, on
/// the caller's thread. The supervisor carries them out in the order in which they were given, and
/// records an event, [`Ordered`](crate::EventKind::Ordered), for each command to one child.
///
/// Repeated commands are merged: while a command is still pending, giving it to the same child once
/// more moves it to the end of that child's commands. `hold` and `release` replace one another, so
/// a `hold` that is followed by a `release` soon enough stops nothing.
///
/// To see the effect of a command, wait for the state that it brings about: after a
/// [`hold`](Handle::hold) until the child is off, after a [`restart`](Handle::restart) for a
/// greater [`run`](ChildInfo::run). The event shows that a command has been carried
/// out, whatever it changed:
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, EventKind, Order, Supervisor};
/// use std::time::Duration;
///
/// let (orders, carried_out) = crossbeam_channel::unbounded();
/// let supervisor = Supervisor::builder()
///     .on_event(move |event| {
///         if let EventKind::Ordered { order, .. } = event.kind {
///             let _ = orders.send((event.id.clone(), order));
///         }
///     })
///     .child(ChildSpec::new("mailer", |ctx| ctx.wait_until_stopped()))
///     .start()?;
/// supervisor.handle().reset("mailer")?; // nothing to forgive, and nothing to be seen
/// let (id, order) = carried_out.recv_timeout(Duration::from_secs(10))?;
/// assert_eq!((id.as_str(), order), ("mailer", Order::Reset));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What a command does depends on what the child is doing; what it returns depends on whether there
/// is a child of that id and nothing else.
///
/// | | [`hold`](Handle::hold) | [`release`](Handle::release) | [`restart`](Handle::restart) | [`reset`](Handle::reset) | [`remove`](Handle::remove) |
/// | --- | --- | --- | --- | --- | --- |
/// | **running** | asked to stop, then held | nothing | failures forgiven; asked to stop, then started¹ | failures forgiven; runs on | asked to stop, then gone |
/// | **stopping** | held after its end | not held after its end | failures forgiven; started after its end¹ | failures forgiven | gone after its end |
/// | **waiting** | held | nothing | failures forgiven; goes on waiting | failures forgiven; goes on waiting | gone |
/// | **backing off** | held; the backoff goes on | nothing | failures forgiven; started¹ | failures forgiven; started¹ | gone |
/// | **off (flag)** | held | nothing | failures and backoff forgiven; stays off | failures and backoff forgiven; stays off | gone |
/// | **off (operator)** | nothing | its flag and its backoff decide | failures and backoff forgiven; stays held | failures and backoff forgiven; stays held | gone |
/// | **finished** | stays finished; held if restarted | not held if restarted | started¹ | failures forgiven; stays finished | gone |
/// | **gave up** | stays given up; held if reset | not held if reset | failures forgiven; started¹ | failures forgiven; started¹ | gone |
/// | **due** | held | nothing | started¹ | started¹ | gone |
///
/// ¹ unless by then its flag is off, it is held, or what it comes [after](ChildSpec::after) is not
/// ready. A [`once`](crate::ChildSpec::once) child whose run has started is gone at the end of that
/// run, whatever was commanded. While the supervisor shuts down, nothing starts, and a restart does
/// not bring a stop request forward.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    // ── Asking ──

    /// Returns what is known of one child, `None` if there is none of this path. Below a child
    /// whose body does not run now, there is none.
    ///
    /// After the supervisor has ended, it is the last that was known.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{Backoff, ChildSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .backoff(Backoff::constant(Duration::from_secs(600)).jitter(0.0))
    ///     .child(ChildSpec::new("orders", |_| Err("the broker hung up".into())))
    ///     .start()?;
    /// let limit = Duration::from_secs(10);
    /// supervisor.handle().wait_for("orders", limit, |orders| orders.failures == 1)?;
    ///
    /// let orders = supervisor.handle().child("orders").ok_or("not listed")?;
    /// assert!(orders.retry_in.is_some_and(|delay| delay > Duration::from_secs(60)));
    /// // `orders` is backing off: it failed after 9 µs: the broker hung up; 1 failure; tried
    /// // again in 9 min 59 s
    /// assert!(orders.to_string().starts_with("`orders` is backing off: it failed after"));
    /// assert!(supervisor.handle().child("parcels").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn child(&self, path: &str) -> Option<ChildInfo> {
        match tree::locate(&self.shared, path) {
            Place::Child(shared, row) => Some(shared.info(&row)),
            Place::Down(..) | Place::NotListed(_) | Place::Nowhere => None,
        }
    }

    /// Returns the breaker by which others call one of the supervisor's own children, `None` if
    /// there is none of this id.
    pub fn breaker(&self, id: &str) -> Option<Breaker> {
        Some(self.shared.row(id)?.breaker())
    }

    /// Returns what is known of all children, in list order, and of all below them.
    pub fn snapshot(&self) -> Snapshot {
        tree::snapshot(&self.shared)
    }

    // ── Commanding ──

    /// Has all flags queried now instead of at the next poll.
    ///
    /// # Errors
    ///
    /// [`CommandError::Ended`] if the supervisor has ended.
    pub fn poll_now(&self) -> Result<(), CommandError> {
        self.shared.poll_now()
    }

    /// Asks the supervisor to shut down, as [`Supervisor::shutdown`](crate::Supervisor::shutdown)
    /// does, and returns.
    ///
    /// Once this has returned, no run starts any more. Asking again does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::once("import", |ctx| {
    ///         // … the one thing that this program does …
    ///         ctx.supervisor().request_shutdown();
    ///         Ok(())
    ///     }))
    ///     .start()?;
    /// assert!(supervisor.wait().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_shutdown(&self) {
        self.request_shutdown_within(Duration::MAX);
    }

    /// Asks the supervisor to shut down, and gives each child at most `limit` to stop, counted from
    /// when the supervisor notices the request, even if its own stop timeout is longer.
    ///
    /// Asking again can only shorten the time, also of a shutdown that is under way: so a second
    /// ctrl-c hurries a shutdown that the first has begun.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// let (gate, closed) = crossbeam_channel::bounded::<()>(0);
    /// let deaf = ChildSpec::new("deaf", move |_ctx| Ok(closed.recv()?));
    /// let supervisor = Supervisor::builder().child(deaf).start()?;
    /// let handle = supervisor.handle().clone();
    /// handle.request_shutdown(); // would wait for 5 s
    /// handle.request_shutdown_within(Duration::from_millis(20));
    /// assert_eq!(supervisor.wait().unstopped[0].id, "deaf");
    /// drop(gate);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_shutdown_within(&self, limit: Duration) {
        self.shared.request_shutdown(limit);
    }

    /// Adds a child to the end of the supervisor's own list. `Ok` means accepted: the child is
    /// started at once, if its flag is on, what it comes [`after`](ChildSpec::after) is ready, and
    /// the start rate allows it. Only a shutdown that is requested meanwhile prevents the start:
    /// then the child is listed as [`Off`](crate::ChildStatus::Off) by the shutdown.
    ///
    /// # Errors
    ///
    /// [`AddError`] gives the spec back: if the id is empty, holds a NUL or a `/`, or is taken, if
    /// a setting is invalid, as at the start, if it comes after a child that is not listed or runs
    /// only once, if that makes a circle, or if the supervisor shuts down.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{AddErrorReason, ChildSpec, ConfigError, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder().start()?;
    /// let handle = supervisor.handle();
    /// let idle = || ChildSpec::new("tenant-7", |ctx| ctx.wait_until_stopped());
    /// handle.add(idle())?;
    ///
    /// let error = handle.add(idle()).unwrap_err();
    /// assert_eq!(error.to_string(), r#"cannot add the child: the id "tenant-7" is taken"#);
    /// assert!(matches!(error.reason(), AddErrorReason::Config(ConfigError::DuplicateId(_))));
    /// let spec = error.into_spec(); // to be tried again when the other one is gone
    /// handle.remove("tenant-7")?;
    /// handle.wait_until_gone("tenant-7", Duration::from_secs(10))?;
    /// handle.add(spec)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add(&self, spec: ChildSpec) -> Result<(), AddError> {
        self.shared.add(spec)
    }

    /// Stops a child and removes it from the list. Its id stays taken until its run has ended. Once
    /// this has returned, no run of it starts, as with [`hold`](Handle::hold).
    ///
    /// # Errors
    ///
    /// [`CommandError`] if there is no such child, or the supervisor has ended.
    pub fn remove(&self, path: &str) -> Result<(), CommandError> {
        self.order(path, Order::Remove)
    }

    /// Stops a running child and starts it again; a child that is stopping is started after its
    /// end. Its failures are forgiven, and a backoff ends. A child that is off or held stays so,
    /// and one that comes [`after`](ChildSpec::after) a child that is not ready waits for that,
    /// even if it was running.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if there is no such child, or the supervisor has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("orders", |ctx| ctx.wait_until_stopped()))
    ///     .start()?;
    /// supervisor.handle().restart("orders")?; // its configuration has changed
    /// let orders =
    ///     supervisor.handle().wait_for("orders", Duration::from_secs(10), |orders| {
    ///         orders.run == 2
    ///     })?;
    /// assert_eq!(orders.failures, 0); // a restart by hand is no failure
    ///
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart(&self, path: &str) -> Result<(), CommandError> {
        self.order(path, Order::Restart)
    }

    /// Forgives a child's failures: a backoff ends, and a given-up child is tried again. A running
    /// child keeps running.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if there is no such child, or the supervisor has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor};
    /// use std::time::Duration;
    ///
    /// let (repairs, repaired) = crossbeam_channel::unbounded::<()>();
    /// let supervisor = Supervisor::builder()
    ///     .child(
    ///         ChildSpec::new("printer", move |ctx| {
    ///             repaired.try_recv()?;
    ///             ctx.wait_until_stopped()
    ///         })
    ///         .max_restarts(0),
    ///     )
    ///     .start()?;
    /// let handle = supervisor.handle();
    /// handle.wait_for("printer", Duration::from_secs(10), |printer| {
    ///     printer.status == ChildStatus::GaveUp
    /// })?;
    ///
    /// repairs.send(())?;
    /// handle.reset("printer")?;
    /// handle
    ///     .wait_for("printer", Duration::from_secs(10), |printer| printer.is_running())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset(&self, path: &str) -> Result<(), CommandError> {
        self.order(path, Order::Reset)
    }

    /// Stops a child and keeps it down, whatever its flag says, until it is
    /// [released](Handle::release).
    ///
    /// Once this has returned, no run of the child starts; a run that was shown before, by
    /// [`run`](ChildInfo::run), may be just about to execute its first instruction,
    /// and is asked to stop. Holding a held child does nothing.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if there is no such child, or the supervisor has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("mailer", |ctx| ctx.wait_until_stopped()))
    ///     .start()?;
    /// let handle = supervisor.handle();
    /// handle.hold("mailer")?;
    /// handle.wait_for("mailer", Duration::from_secs(10), |mailer| {
    ///     matches!(mailer.status, ChildStatus::Off { .. })
    /// })?;
    /// handle.release("mailer")?;
    /// handle.wait_for("mailer", Duration::from_secs(10), |mailer| mailer.is_running())?;
    /// assert!(handle.hold("nobody").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hold(&self, path: &str) -> Result<(), CommandError> {
        self.order(path, Order::Hold)
    }

    /// Ends a [hold](Handle::hold). The flag decides again; a backoff that is not over goes on, and
    /// so does a wait for another child.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if there is no such child, or the supervisor has ended.
    pub fn release(&self, path: &str) -> Result<(), CommandError> {
        self.order(path, Order::Release)
    }

    // ── Waiting ──

    /// Waits until the predicate holds for a child.
    ///
    /// Below a child that runs a nested supervisor, this waits for that one, too, over its
    /// restarts.
    ///
    /// A command may be carried out only after it has returned; so a wait right after a command may
    /// find the state from before it. To wait for the effect of a [`restart`](Handle::restart),
    /// read the [`run`](ChildInfo::run) first and wait for a greater one.
    ///
    /// The predicate is called on this thread, with no lock held: once at first, then after each
    /// change of this child, and a last time when the limit is over. So it delays the end of the
    /// wait by its own time at most. States that pass quickly may be missed. A panic in it reaches
    /// the caller.
    ///
    /// # Errors
    ///
    /// [`WaitError`] if the first id of the path is not listed, the time is over, the child or the
    /// supervisor is gone, or this is the thread of a supervisor along the path.
    ///
    /// # Examples
    ///
    /// ```
    /// # use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// # use std::time::Duration;
    /// # let supervisor = Supervisor::builder()
    /// #     .child(ChildSpec::new("orders", |ctx| {
    /// #         ctx.mark_healthy();
    /// #         ctx.wait_until_stopped()
    /// #     }))
    /// #     .start()?;
    /// use circuit_breaker_supervisor::ChildStatus;
    ///
    /// let orders = supervisor.handle().wait_for("orders", Duration::from_secs(10), |child| {
    ///     child.status == ChildStatus::Healthy
    /// })?;
    /// assert_eq!(orders.failures, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for(
        &self,
        path: &str,
        timeout: Duration,
        mut predicate: impl FnMut(&ChildInfo) -> bool,
    ) -> Result<ChildInfo, WaitError> {
        let deadline = self.shared.wait_deadline(timeout);
        loop {
            // Nested supervisors may come and go faster than they are waited for.
            let is_over = deadline::is_reached(deadline, system_now());
            let (shared, row) = match tree::locate_to_wait(&self.shared, path)? {
                Place::Child(shared, row) => (shared, row),
                Place::Down(shared, row) if is_over => {
                    return Err(WaitError::TimedOut(Some(Box::new(shared.info(&row)))));
                }
                Place::Down(shared, row) => {
                    self.wait_for_branch(&shared, &row, deadline)?;
                    continue;
                }
                Place::NotListed(_) if is_over => return Err(WaitError::TimedOut(None)),
                Place::NotListed(branch) => {
                    self.wait_for_listing(&branch, path, deadline)?;
                    continue;
                }
                Place::Nowhere => return Err(WaitError::UnknownId(path.into())),
            };
            let waited = row.wait_for(deadline, || {
                // Checked before the child is: what ended afterwards is seen in the next round.
                let (is_gone, has_ended) = (row.is_gone(), shared.has_ended());
                let is_over = self.shared.has_ended();
                let info = shared.info(&row);
                if predicate(&info) {
                    Some(Ok(Some(info)))
                } else if is_gone {
                    Some(Err(WaitError::Gone(Box::new(info))))
                } else if is_over {
                    Some(Err(WaitError::Ended(Box::new(info))))
                } else {
                    // A nested supervisor may run again.
                    has_ended.then_some(Ok(None))
                }
            });
            match waited {
                Some(Ok(Some(info))) => return Ok(info),
                Some(Ok(None)) if !is_over => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(None)) | None => {
                    return Err(WaitError::TimedOut(Some(Box::new(shared.info(&row)))));
                }
            }
        }
    }

    /// Waits until the body of a child runs a nested supervisor.
    fn wait_for_branch(
        &self,
        shared: &Arc<Shared>,
        row: &Row,
        deadline: Option<Instant>,
    ) -> Result<(), WaitError> {
        let waited = row.wait_for(deadline, || {
            let (is_gone, has_ended) = (row.is_gone(), shared.has_ended());
            if row.branch().is_some() {
                return Some(Ok(()));
            }
            if self.shared.has_ended() {
                return Some(Err(WaitError::Ended(Box::new(shared.info(row)))));
            }
            (has_ended || is_gone).then_some(Ok(()))
        });
        waited.unwrap_or_else(|| Err(WaitError::TimedOut(Some(Box::new(shared.info(row))))))
    }

    /// Waits until a nested supervisor lists the child, or has ended.
    fn wait_for_listing(
        &self,
        branch: &Arc<Shared>,
        path: &str,
        deadline: Option<Instant>,
    ) -> Result<(), WaitError> {
        let is_there = || match tree::locate(&self.shared, path) {
            Place::NotListed(present) => !Arc::ptr_eq(&present, branch) || branch.has_ended(),
            Place::Child(..) | Place::Down(..) | Place::Nowhere => true,
        };
        let waited = branch.wait_for(deadline, || {
            if self.shared.has_ended() {
                return Some(Err(WaitError::ShuttingDown));
            }
            is_there().then_some(Ok(()))
        });
        waited.unwrap_or(Err(WaitError::TimedOut(None)))
    }

    /// Waits until all children are well at work, and all below them: each is
    /// [`Healthy`](crate::ChildStatus::Healthy) or [`Finished`](crate::ChildStatus::Finished), is
    /// off by its flag or by an operator, or waits for one that is off.
    ///
    /// It is for the end of a program's start, and for tests. A child is healthy once it has called
    /// [`mark_healthy`](crate::ChildContext::mark_healthy), or has run for `healthy_after`, a
    /// minute by default. The children are looked at one after another, so one that was healthy at
    /// first may have failed when the last has become so.
    ///
    /// # Errors
    ///
    /// [`WaitError::NotHealthy`] names the children that are not well, with their reasons: when the
    /// time is over, or at once if the child that is waited for was given up. It names the roots:
    /// not those that wait for one of these, nor a child that runs those below it.
    /// [`WaitError::ShuttingDown`], or [`WaitError::OnSupervisorThread`].
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("orders", |ctx| {
    ///         // … connect …
    ///         ctx.mark_healthy();
    ///         ctx.wait_until_stopped()
    ///     }))
    ///     .start()?;
    /// supervisor.handle().wait_until_healthy(Duration::from_secs(10))?;
    ///
    /// let refused = ChildSpec::new("parcels", |_| Err("no such queue".into()));
    /// supervisor.handle().add(refused)?;
    /// let limit = Duration::from_millis(50);
    /// let error = supervisor.handle().wait_until_healthy(limit).unwrap_err();
    /// assert!(error.to_string().starts_with("not healthy: `parcels` is"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_until_healthy(&self, timeout: Duration) -> Result<(), WaitError> {
        let deadline = self.shared.wait_deadline(timeout);
        loop {
            let ill = tree::ill(&self.shared)?;
            if !self.shared.is_running() {
                return Err(WaitError::ShuttingDown);
            }
            // Those that wait for others become well after these.
            let is_root = |(_, row): &&Listed| row.status() != ChildStatus::Waiting;
            let Some((shared, row)) = ill.iter().find(is_root).or(ill.first()) else {
                return Ok(());
            };
            let is_waiting = || row.status() == ChildStatus::Waiting;
            // A significant child that is given up takes its branch with it, which may run again.
            let is_own = Arc::ptr_eq(shared, &self.shared);
            let is_final = is_own || !row.is_significant();
            let has_given_up = || row.status() == ChildStatus::GaveUp && is_final;
            let (waits, had_branch) = (is_waiting(), row.branch().is_some());
            // Nobody notifies those that wait of what happens to the one they wait for, nor of what
            // happens above or below: so these are looked at now and then.
            let is_remote = waits || had_branch || !is_own;
            let look = deadline::after(system_now(), LOOK).filter(|_| is_remote);
            let waited = row.wait_for(deadline::sooner(deadline, look), || {
                let is_well = row.is_gone() || shared.info(row).is_at_work();
                let has_changed = waits != is_waiting() || had_branch != row.branch().is_some();
                let is_over = shared.has_ended() || !self.shared.is_running();
                (is_well || has_changed || has_given_up() || is_over).then_some(())
            });
            // States may change faster than they are looked at.
            let is_over = deadline::is_reached(deadline, system_now());
            if waited.is_none() && look.is_none() || has_given_up() || is_over {
                let ill = tree::ill(&self.shared)?;
                let ill: Vec<_> = ill.iter().map(|(shared, row)| shared.info(row)).collect();
                return if ill.is_empty() {
                    Ok(())
                } else {
                    Err(WaitError::NotHealthy(roots(ill)))
                };
            }
        }
    }

    /// Waits until a child is gone from the list: until a removed child, or a
    /// [`once`](crate::ChildSpec::once) child, has ended. Returns the child's last state, with how
    /// its last run ended; `None` if it was not listed, and so was gone already. To learn how a job
    /// ended that may be gone before this is called, keep its [breaker](crate::ChildSpec::breaker),
    /// whose [`wait_until_permitted`](crate::Breaker::wait_until_permitted) gives its last state,
    /// or listen for its `Stopped`.
    ///
    /// If the child was running, what its closure captured has been dropped by then; if it was
    /// down, that may still be dropped on a separate thread. A child of a nested supervisor is gone
    /// with that, too.
    ///
    /// # Errors
    ///
    /// [`WaitError`] if the time is over, the supervisor has ended with the child still listed, or
    /// this is the thread of a supervisor along the path.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder().start()?;
    /// let handle = supervisor.handle();
    /// handle.add(ChildSpec::once("job", |_ctx| Err("no paper".into())))?;
    /// if let Some(job) = handle.wait_until_gone("job", Duration::from_secs(10))? {
    ///     let stop = job.last_stop.ok_or("it has ended")?;
    ///     assert_eq!(stop.exit.message(), Some("no paper"));
    /// } // else it had ended before
    ///
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_until_gone(
        &self,
        path: &str,
        timeout: Duration,
    ) -> Result<Option<ChildInfo>, WaitError> {
        let place = tree::locate_to_wait(&self.shared, path)?;
        let Place::Child(shared, row) = place else { return Ok(None) };
        let is_own = Arc::ptr_eq(&shared, &self.shared);
        let waited = row.wait_for(self.shared.wait_deadline(timeout), || {
            let (is_gone, has_ended) = (row.is_gone(), shared.has_ended());
            // With its nested supervisor, a child is gone.
            let is_gone = is_gone || has_ended && !is_own;
            let is_over = is_gone || self.shared.has_ended();
            is_over.then(|| (is_gone, Box::new(shared.info(&row))))
        });
        match waited {
            Some((true, info)) => Ok(Some(*info)),
            Some((false, info)) => Err(WaitError::Ended(info)),
            None => Err(WaitError::TimedOut(Some(Box::new(shared.info(&row))))),
        }
    }

    /// Waits until the supervisor has ended, and returns its report.
    ///
    /// On a thread of one of its children this waits for itself, since the supervisor does not end
    /// before that child does or its stop timeout is over: for ever, if neither that nor `timeout`
    /// has a limit. A body that should notice the shutdown waits for its own stop request instead.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`], or [`WaitError::OnSupervisorThread`].
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{Supervisor, WaitError};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder().start()?;
    /// let handle = supervisor.handle().clone(); // for any other thread
    /// assert!(matches!(
    ///     handle.wait_until_stopped(Duration::ZERO),
    ///     Err(WaitError::TimedOut(None))
    /// ));
    /// handle.request_shutdown();
    /// assert!(handle.wait_until_stopped(Duration::from_secs(10))?.is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_until_stopped(&self, timeout: Duration) -> Result<ShutdownReport, WaitError> {
        tree::check_thread(&self.shared)?;
        self.shared
            .wait_for(self.shared.wait_deadline(timeout), || self.shared.end())
            .ok_or(WaitError::TimedOut(None))
    }

    fn order(&self, path: &str, order: Order) -> Result<(), CommandError> {
        if self.shared.has_ended() {
            return Err(CommandError::Ended);
        }
        let unknown = || CommandError::UnknownId(path.into());
        match tree::locate(&self.shared, path) {
            Place::Child(shared, row) => shared.order(&row, order).map_err(|error| match error {
                // The supervisor that has ended is a nested one.
                CommandError::Ended if !Arc::ptr_eq(&shared, &self.shared) => unknown(),
                CommandError::UnknownId(_) => unknown(),
                error => error,
            }),
            Place::Down(..) | Place::NotListed(_) | Place::Nowhere => Err(unknown()),
        }
    }
}

/// Leaves out the children that wait for another one of them, or for one that runs another one.
fn roots(children: Vec<ChildInfo>) -> Vec<ChildInfo> {
    // With each path, those above it.
    let ids: HashSet<String> = children
        .iter()
        .flat_map(|child| {
            let above = child.id.match_indices('/').map(|(place, _)| child.id[..place].to_owned());
            above.chain([child.id.to_string()]).collect::<Vec<_>>()
        })
        .collect();
    let waits = |child: &ChildInfo| {
        child.waiting_for.as_ref().is_some_and(|on| ids.contains(on.root.as_str()))
    };
    children.into_iter().filter(|child| !waits(child)).collect()
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
