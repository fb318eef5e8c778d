//! Circuit breaker of a child, as its callers use it.

use std::{error::Error, fmt, ops::Deref, sync::Arc, time::Duration};

use crate::{
    error::WaitError,
    exit::{Exit, chain::text_of_one},
    id::ChildId,
    runtime::{
        breaker_state::{BreakerState, Last, Presence},
        lineage,
    },
    snapshot::ChildInfo,
    status::{ChildStatus, CircuitState},
    sync::{clock::Clock, one_line::OneLine},
};

/// Circuit breaker of one child: a cheap clone that tells callers at once whether to call the
/// child, and takes their reports of failures.
///
/// It comes from [`ChildSpec::breaker`](crate::ChildSpec::breaker), before the start, or from
/// [`Handle::breaker`](crate::Handle::breaker). It belongs to that child, through all its restarts,
/// and is open for ever once the child is gone from the list or its supervisor has ended; a later
/// child of the same id has another breaker. The child's last state, with the text of its last
/// error, is kept for as long as a breaker of the child exists.
///
/// ```text
///                        run starts, nothing has failed
///          ┌───────────────────────────────────────────────────────┐
///          │                                                       ▼
///     ┌────┴─────┐    run starts    ┌───────────┐     healthy   ┌────────┐
///     │   open   │ ───────────────▶ │ half-open │ ────────────▶ │ closed │
///     └──────────┘   after failures └───────────┘               └────────┘
///        ▲    ▲                           │                         │
///        │    │  1 reported failure       │                         │
///        │    └───────────────────────────┘                         │
///        └──────────────────────────────────────────────────────────┘
///          failure_threshold reported failures with no success between;
///            from either: the run ended, or was asked to stop
/// ```
///
/// Each report belongs to a run: the outcome of a call that began in an earlier run changes
/// nothing. The report that reaches [`failure_threshold`](crate::ChildSpec::failure_threshold)
/// opens the breaker itself, at once and for all callers. Then the child is asked to stop, with the
/// cause [`Tripped`](crate::StopCause::Tripped), and the end of that run is a failure, to which the
/// child's backoff applies. A breaker does not stay half-open: the child becomes healthy, by its
/// uptime or by [`mark_healthy`](crate::ChildContext::mark_healthy), or fails.
///
/// Threads that call often should each have a clone, so that their rejections do not slow one
/// another down.
///
/// The idea that callers are answered `off` at once, and that their reports trip the child, is that
/// of Erlang's `breaky`; the three states are those of Michael Nygard's "Release It!".
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{CallError, ChildSpec, Supervisor};
/// use crossbeam_channel::{Sender, bounded, unbounded};
/// use std::time::Duration;
///
/// let (requests, inbox) = unbounded::<(u32, Sender<u32>)>();
/// let doubler = ChildSpec::new("doubler", move |ctx| {
///     loop {
///         let (number, reply) = ctx.recv(&inbox)?;
///         let _ = reply.send(number * 2);
///     }
/// });
/// let breaker = doubler.breaker();
/// let supervisor = Supervisor::builder().child(doubler).start()?;
///
/// let double = |number| {
///     breaker.call(|| {
///         let (reply, answer) = bounded(1);
///         requests.send((number, reply)).map_err(|_| "nobody listens")?;
///         answer.recv_timeout(Duration::from_secs(10)).map_err(|_| "no answer in time")
///     })
/// };
/// assert_eq!(double(21)?, 42);
///
/// supervisor.handle().hold("doubler")?;
/// let limit = Duration::from_secs(10);
/// supervisor.handle().wait_for("doubler", limit, |doubler| !doubler.is_running())?;
/// // At once, and nothing was sent.
/// assert!(matches!(double(21), Err(CallError::Rejected(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Breaker {
    state: Arc<BreakerState>,
    share: Arc<CloneShare>,
}

/// The pointer that the permits and rejections of one clone share. If they shared the state itself,
/// every thread that is rejected would write to the memory that all others read.
struct CloneShare(Arc<BreakerState>);

impl Deref for CloneShare {
    type Target = BreakerState;

    fn deref(&self) -> &BreakerState {
        &self.0
    }
}

impl Clone for Breaker {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}

impl Breaker {
    pub(crate) fn new(state: Arc<BreakerState>) -> Self {
        Self { share: Arc::new(CloneShare(state.clone())), state }
    }

    /// Returns the id of the child.
    pub fn id(&self) -> &ChildId {
        &self.state.id
    }

    /// Returns the state of the breaker.
    pub fn state(&self) -> CircuitState {
        self.state.packed().state()
    }

    /// Returns whether the child may be called now: whether the breaker is closed or half-open.
    ///
    /// It costs one relaxed atomic load: no lock, no clock, no allocation. On a machine without
    /// 64-bit atomics it costs a short lock instead.
    #[inline]
    pub fn is_call_permitted(&self) -> bool {
        self.state.packed().is_permitted()
    }

    /// Calls the child by `f` if that is permitted. An `Err` of `f`, or a panic in it, counts as a
    /// failure of the child, which may trip it; an `Ok` counts as a success. A panic continues to
    /// the caller.
    ///
    /// The error may be of any type, whether it has a text or not. So if this call is the one that
    /// trips the child, the event [`Tripped`](crate::EventKind::Tripped) says `a call failed` or
    /// `a call panicked`, and not what the error was: only the caller gets the error. To have the
    /// error in the event and in the log, call with a [`permit`](Breaker::permit) and report the
    /// error to it.
    ///
    /// # Errors
    ///
    /// [`CallError::Rejected`] at once, without running `f`, if the breaker is open.
    /// [`CallError::Failed`] with the error of `f`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use circuit_breaker_supervisor::{Breaker, CallError, ChildSpec, EventKind, Supervisor};
    /// # use std::io;
    /// # fn request() -> io::Result<String> { Err(io::ErrorKind::ConnectionRefused.into()) }
    /// // As `store.call(request)`, but a trip says what failed.
    /// fn ask(store: &Breaker) -> Result<String, CallError<io::Error>> {
    ///     let permit = store.permit().map_err(CallError::Rejected)?;
    ///     match request() {
    ///         Ok(answer) => {
    ///             permit.success();
    ///             Ok(answer)
    ///         }
    ///         Err(error) => {
    ///             permit.failure(&error);
    ///             Err(CallError::Failed(error))
    ///         }
    ///     }
    /// }
    /// # let spec = ChildSpec::new("store", |ctx| ctx.wait_until_stopped());
    /// # let spec = spec.failure_threshold(1);
    /// # let store = spec.breaker();
    /// # let (sink, events) = crossbeam_channel::unbounded();
    /// # let _supervisor = Supervisor::builder().telemetry(sink).child(spec).start()?;
    ///
    /// assert!(ask(&store).is_err());
    /// let tripped = events.iter().find(|event| matches!(event.kind, EventKind::Tripped { .. }));
    /// let text = tripped.ok_or("it was tripped")?.to_string();
    /// assert!(text.ends_with("its callers reported 1 failure, the last: connection refused"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, CallError<E>> {
        self.call_with(f, |_| true)
    }

    /// Calls the child as [`call`](Breaker::call) does, except that an error for which `is_failure`
    /// returns `false` is not the child's fault, and counts neither as a failure nor as a success.
    /// As with `call`, the event of a trip does not say what the error was.
    ///
    /// # Errors
    ///
    /// As for [`call`](Breaker::call), whatever `is_failure` returns.
    ///
    /// # Examples
    ///
    /// ```
    /// # use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// # let spec = ChildSpec::new("store", |ctx| ctx.wait_until_stopped());
    /// # let store = spec.breaker();
    /// # let _supervisor = Supervisor::builder().child(spec).start()?;
    /// let missing: Result<(), _> =
    ///     store.call_with(|| Err("no such key"), |error| *error != "no such key");
    /// assert!(missing.is_err());
    /// assert!(store.is_call_permitted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_with<T, E>(
        &self,
        f: impl FnOnce() -> Result<T, E>,
        is_failure: impl FnOnce(&E) -> bool,
    ) -> Result<T, CallError<E>> {
        let packed = self.state.packed();
        if !packed.is_permitted() {
            return Err(CallError::Rejected(Rejected { share: self.share.clone() }));
        }
        let unwinding = Unwinding { state: &self.state, run: packed.run() };
        let result = f();
        std::mem::forget(unwinding);
        match result {
            Ok(value) => {
                self.state.succeed(packed.run());
                Ok(value)
            }
            Err(error) => {
                if is_failure(&error) {
                    report(&self.state, packed.run(), "a call failed");
                }
                Err(CallError::Failed(error))
            }
        }
    }

    /// Requests a permit for a call that does not fit into a closure. Report the outcome to the
    /// permit.
    ///
    /// # Errors
    ///
    /// [`Rejected`] if the breaker is open.
    ///
    /// # Examples
    ///
    /// ```
    /// # use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// # let spec = ChildSpec::new("store", |ctx| ctx.wait_until_stopped());
    /// # let store = spec.breaker();
    /// # let _supervisor = Supervisor::builder().child(spec).start()?;
    /// let permit = store.permit()?;
    /// // … send the request, and when the answer has come, perhaps on another thread …
    /// permit.success();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn permit(&self) -> Result<Permit, Rejected> {
        let packed = self.state.packed();
        if packed.is_permitted() {
            Ok(Permit { share: self.share.clone(), run: packed.run() })
        } else {
            Err(Rejected { share: self.share.clone() })
        }
    }

    /// Reports, outside of any call, that the child has failed: breaky's `failure/1`. The report is
    /// about the present run; without one, it changes nothing. [`Permit::failure`] describes how
    /// the error's text is used.
    pub fn report_failure(&self, error: impl fmt::Display) {
        report(&self.state, self.state.packed().run(), error);
    }

    /// Reports, outside of any call, that the child does its job: the failures reported so far are
    /// no longer in a row.
    pub fn report_success(&self) {
        self.state.succeed(self.state.packed().run());
    }

    /// Waits until the child may be called, instead of polling.
    ///
    /// # Errors
    ///
    /// [`WaitError::Gone`] if the child is gone from the list and [`WaitError::Ended`] if its
    /// supervisor has ended, whether before or during the wait, and even if a
    /// [`Handle`](crate::Handle) still exists: both hold the child's last state.
    /// [`WaitError::TimedOut`] if the time is over, and [`WaitError::OnSupervisorThread`] if this
    /// is the supervisor's own thread. If the child is not listed yet, this waits for it.
    pub fn wait_until_permitted(&self, timeout: Duration) -> Result<(), WaitError> {
        let shared = self.state.place.get().and_then(|(shared, _)| shared.upgrade());
        if shared.as_ref().is_some_and(|shared| lineage::is_supervisor(shared.number)) {
            return Err(WaitError::OnSupervisorThread);
        }
        let deadline = shared.map_or_else(
            || Clock::System.wait_deadline(timeout),
            |shared| shared.wait_deadline(timeout),
        );
        let answer = self.state.news.wait_for(deadline, || {
            if self.is_call_permitted() {
                return Some(Ok(()));
            }
            Some(Err(match self.state.last()? {
                Last::Gone(info) => WaitError::Gone(info),
                Last::Ended(info) => WaitError::Ended(info),
            }))
        });
        answer.unwrap_or_else(|| Err(WaitError::TimedOut(self.state.info().map(Box::new))))
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("id", self.id()).field("state", &self.state()).finish()
    }
}

/// Counts a failure, and reports to the supervisor if this failure trips the child. The report is
/// sent even if the error cannot be shown, since the breaker is open by now, and nothing else would
/// end this run.
fn report(state: &BreakerState, run: u64, error: impl fmt::Display) {
    if let Some(failures) = state.fail(run) {
        state.tell_of_trip(run, failures, &text_of_one(&error));
    }
}

/// Permit for one call of a child, from [`Breaker::permit`]. If it is dropped without a report, the
/// call counts as neither a success nor a failure.
#[must_use = "a permit that is dropped tells nothing of how the call went"]
pub struct Permit {
    share: Arc<CloneShare>,
    run: u64,
}

impl Permit {
    /// Reports that the call succeeded.
    pub fn success(self) {
        self.share.succeed(self.run);
    }

    /// Reports that the call failed.
    ///
    /// Only for the failure that trips the child is the error's `Display` called, on this thread;
    /// the event [`Tripped`](crate::EventKind::Tripped) holds its text. The text has at most
    /// 64 KiB, and ends with `…` if it was cut. A panic in the `Display` ends the text, which says
    /// so.
    pub fn failure(self, error: impl fmt::Display) {
        report(&self.share, self.run, error);
    }
}

/// Counts a call that unwinds; after a call that returned, it is forgotten.
struct Unwinding<'a> {
    state: &'a BreakerState,
    run: u64,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        report(self.state, self.run, "a call panicked");
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("run", &self.run).finish_non_exhaustive()
    }
}

/// Rejection of a call that was not permitted. It takes some nanoseconds to make; it looks up what
/// it says only when asked.
///
/// Its `Display` says what the child is doing and when it is tried again. Where there is no child
/// to be called, it says why: the child has not been started yet, it is gone from the list, or its
/// supervisor shuts down or has ended. Then the methods return `None`, even if a
/// [`Handle`](crate::Handle) still exists.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
///
/// let mailer = ChildSpec::new("mailer", |ctx| ctx.wait_until_stopped());
/// let breaker = mailer.breaker();
/// let Err(rejected) = breaker.permit() else { unreachable!() };
/// assert_eq!(
///     rejected.to_string(),
///     "the call was rejected: `mailer` has not been started yet"
/// );
/// assert!(rejected.status().is_none());
///
/// Supervisor::builder().child(mailer).start()?.shutdown();
/// assert_eq!(
///     rejected.to_string(),
///     "the call was rejected: the supervisor of `mailer` has ended"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Rejected {
    share: Arc<CloneShare>,
}

impl Rejected {
    /// Returns the time until the child is tried again, if it backs off.
    pub fn retry_in(&self) -> Option<Duration> {
        self.child()?.retry_in
    }

    /// Returns what the child is doing; `None` if it has not been started yet, is gone from the
    /// list, or its supervisor has ended.
    pub fn status(&self) -> Option<ChildStatus> {
        let status = self.child()?.status;
        Some(if self.share.packed().is_tripped() && status.is_running() {
            ChildStatus::Stopping
        } else {
            status
        })
    }

    /// Returns how the child's last run ended; `None` if none has, and wherever
    /// [`status`](Self::status) is `None`. For a child that is gone, or whose supervisor has ended,
    /// the error of [`wait_until_permitted`](Breaker::wait_until_permitted) holds its last state.
    pub fn last_exit(&self) -> Option<Exit> {
        Some(self.child()?.last_stop?.exit)
    }

    fn child(&self) -> Option<ChildInfo> {
        match self.share.presence() {
            Presence::Listed(child) => Some(*child),
            _ => None,
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call was rejected: ")?;
        match self.share.presence() {
            Presence::Listed(child) if self.share.packed().is_tripped() => {
                write!(f, "failures that callers reported have just tripped `{}`", child.id)
            }
            Presence::Listed(child) => child.fmt(f),
            Presence::NotListed => write!(f, "`{}` has not been started yet", self.share.id),
            Presence::Gone(id) => write!(f, "`{id}` is gone from the list of its supervisor"),
            Presence::ShuttingDown(id) => write!(f, "the supervisor of `{id}` shuts down"),
            Presence::Ended(id) => write!(f, "the supervisor of `{id}` has ended"),
        }
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("status", &self.status())
            .field("retry_in", &self.retry_in())
            .finish_non_exhaustive()
    }
}

impl Error for Rejected {}

/// Error of a call through a [`Breaker`].
#[derive(Clone, Debug)]
pub enum CallError<E> {
    /// The breaker was open: the call was not made.
    Rejected(Rejected),
    /// The call was made, and failed with this error.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejected) => rejected.fmt(f),
            Self::Failed(error) => OneLine(&error.to_string()).fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for CallError<E> {}
