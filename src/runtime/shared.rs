//! The shared state of one supervisor: its inbox, its shutdown, the rows of its children.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use parking_lot::Mutex as StaticMutex;

use crate::{
    breaker::Breaker,
    child::ChildSpec,
    context::Activity,
    core::{
        circuit::{Circuit, Rules, View},
        key::Key,
        roster::StartDenied,
    },
    error::{AddError, AddErrorReason, CommandError, ConfigError},
    event::{Callback, LastStop, Order, StopCause},
    id::ChildId,
    report::{ShutdownCause, ShutdownReport, StuckIn},
    runtime::{
        breaker_state::{BreakerState, Last},
        inbox::{Message, RunEnd},
    },
    snapshot::ChildInfo,
    status::{ChildStatus, CircuitState, OffBy},
    sync::{
        clock::Clock,
        primitives::{
            Mutex, RwLock,
            atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        },
        unwind,
        watch::Watch,
    },
};

/// The state that handles, worker threads and the supervisor thread share. No lock is held while
/// user code runs.
///
/// Locks are taken in this order: `directory`, `closing`, a row.
pub(crate) struct Shared {
    me: Weak<Self>,
    pub(crate) name: Arc<str>,
    /// Unique among all supervisors of the process.
    pub(crate) number: u64,
    /// The child of an outer supervisor whose body runs this one. Its id is the first part of the
    /// ids of all children here.
    prefix: Option<ChildId>,
    /// The builder's settings for all children; a child's own settings override them.
    pub(crate) defaults: Defaults,
    clock: Clock,
    inbox: Sender<Message>,
    directory: RwLock<Directory>,
    closing: Mutex<ClosingState>,
    /// `PollNow` was sent, and the supervisor thread has not received it yet.
    poll_is_sent: AtomicBool,
    /// Why the supervisor shuts down, if no caller requested it.
    given_up: Mutex<Option<ShutdownCause>>,
    /// The children were stopped without the supervisor thread, which may be stuck for ever and
    /// publish nothing any more.
    is_taken_over: AtomicBool,
    pub(crate) doing: Doing,
    /// Notified of the shutdown and of the end. Each child has a [`Watch`] of its own.
    watch: Watch,
    end: Mutex<Option<ShutdownReport>>,
}

/// The shutdown that was requested, if any.
#[derive(Default)]
struct ClosingState {
    /// The shortest of the requested limits for the children to stop. `None` means that no shutdown
    /// was requested, and runs may begin.
    limit: Option<Duration>,
    /// `Shutdown` was sent, and the supervisor thread has not received it yet.
    is_sent: bool,
    /// When the supervisor thread noticed it.
    noticed_at: Option<Instant>,
}

/// Settings that a child may have of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) healthy_after: Duration,
    pub(crate) stop_timeout: Duration,
}

impl Defaults {
    pub(crate) fn rules(&self, spec: &ChildSpec) -> Rules {
        Rules {
            policy: spec.policy,
            healthy_after: spec.healthy_after.unwrap_or(self.healthy_after),
            stop_timeout: spec.stop_timeout.unwrap_or(self.stop_timeout),
            max_restarts: spec.max_restarts,
            significant: spec.significant,
            watchdog: spec.watchdog,
        }
    }
}

#[derive(Default)]
struct Directory {
    closed: bool,
    next_key: u64,
    keys: HashMap<ChildId, Key>,
    rows: BTreeMap<Key, Arc<Row>>,
}

/// The published state of one child, and the orders for it, which hold as soon as they are given.
pub(crate) struct Row {
    key: Key,
    id: ChildId,
    /// The state that callers check and report to.
    breaker: Arc<BreakerState>,
    /// What the child was doing at its last heartbeat, if it has a watchdog.
    activity: Option<Arc<Activity>>,
    state: Mutex<RowState>,
}

struct RowState {
    view: View,
    last_stop: Option<LastStop>,
    held: bool,
    removing: bool,
    gone: bool,
    /// The orders that the supervisor thread has yet to carry out, the latest at the end. An order
    /// may replace an earlier one ([`Order::replaces`]).
    pending: Vec<Order>,
    /// The last view of a run that ended after its supervisor, until its [`RunEnd`] is found.
    outlived: Option<View>,
}

impl Shared {
    pub(crate) fn new(
        name: Arc<str>,
        prefix: Option<ChildId>,
        defaults: Defaults,
        clock: Clock,
        inbox: Sender<Message>,
    ) -> Arc<Self> {
        // A real lock under loom, too: loom's locks cannot be static, and no thread waits while it
        // holds this one.
        static NEXT: StaticMutex<u64> = StaticMutex::new(0);
        let number = {
            let mut next = NEXT.lock();
            *next += 1;
            *next
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            name,
            number,
            prefix,
            defaults,
            clock,
            inbox,
            directory: RwLock::default(),
            closing: Mutex::default(),
            poll_is_sent: AtomicBool::new(false),
            given_up: Mutex::new(None),
            is_taken_over: AtomicBool::new(false),
            doing: Doing::default(),
            watch: Watch::default(),
            end: Mutex::new(None),
        })
    }

    /// The time of the supervisor's clock.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The deadline of a wait that begins now.
    pub(crate) fn wait_deadline(&self, timeout: Duration) -> Option<Instant> {
        self.clock.wait_deadline(timeout)
    }

    // ── Messages to the supervisor thread ──

    pub(crate) fn inbox(&self) -> &Sender<Message> {
        &self.inbox
    }

    pub(crate) fn tell(&self, message: Message) -> Result<(), CommandError> {
        self.inbox.send(message).map_err(|_| CommandError::Ended)
    }

    /// Lists a child, and sends it to the supervisor thread.
    pub(crate) fn add(&self, spec: ChildSpec) -> Result<(), AddError> {
        if let Err(invalid) = check_spec(&spec) {
            return Err(AddError::new(AddErrorReason::Config(invalid), spec));
        }
        let mut directory = self.directory.write();
        // Held until `Add` is sent: behind `Shutdown` in the inbox, it might never be received.
        let closing = self.closing.lock();
        if directory.closed || closing.limit.is_some() {
            return Err(AddError::new(AddErrorReason::Ended, spec));
        }
        let row = match directory.list(self, &spec) {
            Ok(row) => row,
            Err(invalid) => return Err(AddError::new(AddErrorReason::Config(invalid), spec)),
        };
        // Sent under the lock, so that keys reach the supervisor thread in their order. To send to
        // an unbounded channel does not block.
        let _ = self.tell(Message::Add { key: row.key, spec: Box::new(spec) });
        drop(closing);
        Ok(())
    }

    /// Lists a child of the builder.
    pub(crate) fn list(&self, spec: &ChildSpec) -> Arc<Row> {
        self.directory.write().list(self, spec).expect("the builder's ids were checked")
    }

    /// Has the supervisor thread ask all flags.
    pub(crate) fn poll_now(&self) -> Result<(), CommandError> {
        if self.has_ended() {
            return Err(CommandError::Ended);
        }
        // AcqRel: if a message is under way, its round sees what was done before this call.
        if self.poll_is_sent.swap(true, Ordering::AcqRel) {
            Ok(())
        } else {
            self.tell(Message::PollNow)
        }
    }

    /// Notes that the supervisor thread has received the message of
    /// [`poll_now`](Shared::poll_now).
    pub(crate) fn poll_is_taken_up(&self) {
        self.poll_is_sent.swap(false, Ordering::AcqRel);
    }

    /// Gives an order, which holds as soon as this has returned.
    pub(crate) fn order(&self, id: &str, order: Order) -> Result<(), CommandError> {
        if self.has_ended() {
            return Err(CommandError::Ended);
        }
        let row = self.row(id).ok_or_else(|| CommandError::UnknownId(id.into()))?;
        let mut state = row.state.lock();
        match order {
            _ if state.gone => return Err(CommandError::UnknownId(id.into())),
            Order::Hold => state.held = true,
            Order::Release => state.held = false,
            Order::Remove => state.removing = true,
            Order::Add | Order::Restart | Order::Reset => {}
        }
        if let Some(place) = state.pending.iter().position(|pending| order.replaces(*pending)) {
            // The message of the replaced order serves for this one.
            state.pending.remove(place);
            state.pending.push(order);
            return Ok(());
        }
        state.pending.push(order);
        // Sent under the lock, so that messages arrive in the order of the orders.
        self.tell(Message::Order { key: row.key })
    }

    /// Requests a shutdown. Once this has returned, no run starts. A further request counts only if
    /// its limit is shorter.
    pub(crate) fn request_shutdown(&self, limit: Duration) {
        let mut closing = self.closing.lock();
        if closing.limit.is_some_and(|before| before <= limit) {
            return;
        }
        closing.limit = Some(limit);
        if !std::mem::replace(&mut closing.is_sent, true) {
            let _ = self.tell(Message::Shutdown);
        }
        drop(closing);
        self.watch.notify();
    }

    /// Stores why the supervisor shuts down by itself. Returns `false` if there is a reason
    /// already, which stays.
    pub(crate) fn give_up(&self, cause: ShutdownCause) -> bool {
        let mut given_up = self.given_up.lock();
        if given_up.is_some() {
            drop(given_up);
            let _ = unwind::discard(cause);
            return false;
        }
        *given_up = Some(cause);
        true
    }

    /// Why the supervisor shuts down.
    pub(crate) fn cause(&self) -> ShutdownCause {
        self.given_up.lock().clone().unwrap_or(ShutdownCause::Requested)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.lock().limit.is_some()
    }

    /// Notes that the supervisor thread has noticed the shutdown. Returns the limit for the
    /// children to stop.
    pub(crate) fn acknowledge(&self) -> Duration {
        let mut closing = self.closing.lock();
        closing.is_sent = false;
        closing.noticed_at.get_or_insert_with(|| self.now());
        let limit = closing.limit.unwrap_or(Duration::MAX);
        drop(closing);
        self.watch.notify();
        limit
    }

    /// When the supervisor thread noticed the shutdown, if it has.
    pub(crate) fn acknowledged_at(&self) -> Option<Instant> {
        self.closing.lock().noticed_at
    }

    /// A child's whole id. In a nested supervisor it begins with the id of the child that runs that
    /// supervisor.
    fn path(&self, id: &str) -> ChildId {
        match &self.prefix {
            Some(prefix) => ChildId::from(format!("{}/{id}", prefix.as_str())),
            None => ChildId::from(id),
        }
    }

    // ── The state of children ──

    /// Looks a child up by its whole id or, in a nested supervisor, by its id without the prefix.
    pub(crate) fn row(&self, id: &str) -> Option<Arc<Row>> {
        let directory = self.directory.read();
        let within = || self.prefix.as_ref().and_then(|_| directory.keys.get(&*self.path(id)));
        let key = directory.keys.get(id).or_else(within)?;
        directory.rows.get(key).cloned()
    }

    pub(crate) fn row_of(&self, key: Key) -> Option<Arc<Row>> {
        self.directory.read().rows.get(&key).cloned()
    }

    /// All rows in list order.
    pub(crate) fn rows(&self) -> Vec<Arc<Row>> {
        self.directory.read().rows.values().cloned().collect()
    }

    /// Publishes a child's view, and how its last run ended if that is new. Returns the end that
    /// this replaces, which the caller drops with no lock held.
    #[must_use = "it holds a user's error, whose drop may panic"]
    pub(crate) fn publish(
        &self,
        row: &Row,
        view: View,
        last_stop: Option<LastStop>,
    ) -> Option<LastStop> {
        let mut state = row.state.lock();
        state.view = view;
        row.breaker.show(&view);
        let before = last_stop.and_then(|last_stop| state.last_stop.replace(last_stop));
        drop(state);
        row.breaker.news.notify();
        before
    }

    /// Checks whether a run may begin.
    pub(crate) fn check_start(&self, row: &Row) -> Result<(), StartDenied> {
        let closing = self.closing.lock();
        let state = row.state.lock();
        if closing.limit.is_some() || state.removing || state.held {
            Err(StartDenied)
        } else {
            Ok(())
        }
    }

    /// Publishes that a run begins, unless an order or a shutdown forbids it. Both happen under the
    /// locks, so that no run begins once an order has been given.
    pub(crate) fn publish_begin(&self, row: &Row, view: View) -> Result<(), StartDenied> {
        let closing = self.closing.lock();
        let mut state = row.state.lock();
        if closing.limit.is_some() || state.removing || state.held {
            return Err(StartDenied);
        }
        state.view = view;
        row.breaker.show(&view);
        drop(state);
        drop(closing);
        row.breaker.news.notify();
        Ok(())
    }

    /// Takes a child off the list, which frees its id. Its breaker stays open for good.
    ///
    /// The breaker is opened before the child is gone, and both before anybody can look for the
    /// child again: who has seen that it is gone is told so by its breaker.
    #[must_use = "it holds a user's error, whose drop may panic"]
    pub(crate) fn forget(&self, row: &Row) -> Option<Arc<Row>> {
        let last = Last::Gone(Box::new(row.info(self.now()).without_error()));
        let mut directory = self.directory.write();
        directory.keys.remove(&row.id);
        let row = directory.rows.remove(&row.key)?;
        row.breaker.open_for_good(Some(last));
        row.state.lock().gone = true;
        drop(directory);
        row.breaker.news.notify();
        Some(row)
    }

    /// The user callback that the supervisor thread is in now.
    pub(crate) fn stuck_in(&self) -> Option<StuckIn> {
        let (callback, key) = self.doing.now()?;
        let id = self.directory.read().rows.get(&key).map(|row| row.id.clone());
        Some(StuckIn { callback, id })
    }

    /// The number of the call of user code that the supervisor thread is in now.
    pub(crate) fn call_in_progress(&self) -> Option<u64> {
        self.doing.now().map(|_| self.doing.calls.load(Ordering::Relaxed))
    }

    // ── The end ──

    /// Takes no more children.
    pub(crate) fn close_directory(&self) {
        self.directory.write().closed = true;
    }

    /// Publishes that the supervisor has ended. The first report stays.
    pub(crate) fn ended(&self, report: ShutdownReport) {
        self.close_directory();
        self.closing.lock().limit = Some(Duration::ZERO);
        let rows = self.rows();
        let now = self.now();
        let lasts: Vec<_> =
            rows.iter().map(|row| Last::Ended(Box::new(row.info(now).without_error()))).collect();
        let mut end = self.end.lock();
        // Opened under the lock: who has seen that the supervisor has ended is told so by the
        // breakers.
        for (row, last) in rows.iter().zip(lasts) {
            row.breaker.open_for_good(Some(last));
        }
        let unused = if end.is_none() { end.replace(report) } else { Some(report) };
        drop(end);
        drop(unused);
        // The watch in a child's breaker wakes the threads that wait for that child.
        for row in &rows {
            row.breaker.news.notify();
        }
        self.watch.notify();
    }

    /// Publishes that the children are stopped without the supervisor thread. If that returns from
    /// its callback, it publishes its own views again; the breakers stay open.
    pub(crate) fn show_take_over(&self) {
        self.is_taken_over.store(true, Ordering::SeqCst);
        let now = self.now();
        for row in self.rows() {
            let mut state = row.state.lock();
            let view = &mut state.view;
            if view.since.is_some() {
                view.stop.get_or_insert((StopCause::Shutdown, now));
                (view.status, view.circuit) = (ChildStatus::Stopping, CircuitState::Open);
            } else if matches!(view.status, ChildStatus::BackingOff | ChildStatus::Due) {
                (view.status, view.retry_at) = (ChildStatus::Off { by: OffBy::Shutdown }, None);
            }
            drop(state);
            row.breaker.open_for_good(None);
        }
    }

    /// Whether the supervisor thread may never publish the end of a run: it has ended, or was found
    /// stuck.
    pub(crate) fn shows_no_more(&self) -> bool {
        self.is_taken_over.load(Ordering::SeqCst) || self.has_ended()
    }

    /// Publishes the end of a run in place of the supervisor thread, which has ended or is stuck.
    pub(crate) fn run_ended_late(&self, key: Key, run: u64, end: Option<RunEnd>) {
        let Some(row) = self.row_of(key) else { return drop(unwind::discard(end)) };
        let now = self.now();
        let mut state = row.state.lock();
        let before = state.view;
        if before.run == run && before.since.is_some() {
            let (status, circuit) = (ChildStatus::Off { by: OffBy::Shutdown }, CircuitState::Open);
            state.view = View {
                status,
                circuit,
                since: None,
                stop: None,
                is_overdue: false,
                retry_at: None,
                ..before
            };
            state.outlived = Some(before);
        }
        // There may be two calls for one run: the worker thread, whose message was accepted, passes
        // no `end`; and the supervisor thread passes it when it drains its inbox.
        let outlived = state.outlived.take_if(|outlived| outlived.run == run && end.is_some());
        let unused = match (outlived, end) {
            (Some(outlived), Some(end)) => Ok(state.last_stop.replace(LastStop {
                cause: outlived.stop.map_or(StopCause::Shutdown, |(cause, _)| cause),
                uptime: end.at.saturating_duration_since(outlived.since.unwrap_or(now)),
                exit: end.exit,
                failed: false,
            })),
            (_, end) => Err(end),
        };
        drop(state);
        let _ = unwind::discard(unused);
        row.breaker.news.notify();
    }

    pub(crate) fn end(&self) -> Option<ShutdownReport> {
        self.end.lock().clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.lock().is_some()
    }

    /// Waits for the shutdown or the end of the supervisor, otherwise like [`Watch::wait_for`].
    pub(crate) fn wait_for<T>(
        &self,
        deadline: Option<Instant>,
        check: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        self.watch.wait_for(deadline, check)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Directory {
    fn list(&mut self, shared: &Shared, spec: &ChildSpec) -> Result<Arc<Row>, ConfigError> {
        let id = shared.path(&spec.id);
        if self.keys.contains_key(&id) {
            return Err(ConfigError::DuplicateId(id));
        }
        let key = Key(self.next_key);
        self.next_key += 1;
        let rules = shared.defaults.rules(spec);
        let now = shared.now();
        let view = Circuit::new(rules, now).view(now);
        let state = RowState {
            view,
            last_stop: None,
            held: false,
            removing: false,
            gone: false,
            pending: Vec::new(),
            outlived: None,
        };
        let activity = spec.watchdog.map(|_| Arc::default());
        let row = Arc::new(Row {
            key,
            id: id.clone(),
            breaker: spec.breaker.clone(),
            activity,
            state: Mutex::new(state),
        });
        row.breaker.place(shared.me.clone(), Arc::downgrade(&row));
        self.keys.insert(id, key);
        self.rows.insert(key, row.clone());
        Ok(row)
    }
}

impl Row {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn id(&self) -> &ChildId {
        &self.id
    }

    pub(crate) fn info(&self, now: Instant) -> ChildInfo {
        let state = self.state.lock();
        let (view, last_stop) = (state.view, state.last_stop.clone());
        drop(state);
        let doing = self.activity.as_ref().and_then(|activity| activity.of(view.run));
        ChildInfo::new(self.id.clone(), &view, doing, last_stop, now)
    }

    pub(crate) fn activity(&self) -> Option<&Arc<Activity>> {
        self.activity.as_ref()
    }

    pub(crate) fn breaker(&self) -> Breaker {
        Breaker::new(self.breaker.clone())
    }

    /// Whether the last stop holds a user's error.
    pub(crate) fn holds_error(&self) -> bool {
        self.state.lock().last_stop.as_ref().is_some_and(LastStop::holds_error)
    }

    /// Takes the oldest pending order.
    pub(crate) fn take_order(&self) -> Option<Order> {
        let pending = &mut self.state.lock().pending;
        if pending.is_empty() { None } else { Some(pending.remove(0)) }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state.lock().gone
    }

    /// Waits for a change of this child, for its removal, or for the end of its supervisor,
    /// otherwise like [`Watch::wait_for`].
    pub(crate) fn wait_for<T>(
        &self,
        deadline: Option<Instant>,
        check: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        self.breaker.news.wait_for(deadline, check)
    }
}

/// Drops the user's error, and catches its panic. The last reference may be dropped by a caller
/// that waits for the shutdown's report, or by a child's thread that runs the destructors of its
/// thread-local variables, where a panic would end the process.
impl Drop for Row {
    fn drop(&mut self) {
        let _ = unwind::discard(self.state.get_mut().last_stop.take());
    }
}

/// Drops the cause and the report, and catches their panics: like a row, they may hold a user's
/// error.
impl Drop for Shared {
    fn drop(&mut self) {
        let _ = unwind::discard(self.given_up.get_mut().take());
        let _ = unwind::discard(self.end.get_mut().take());
    }
}

/// Checks a child's settings, except whether its id is taken.
pub(crate) fn check_spec(spec: &ChildSpec) -> Result<(), ConfigError> {
    let id = &spec.id;
    if spec.watchdog.is_some_and(|limit| limit.is_zero()) {
        Err(ConfigError::ZeroWatchdog(id.clone()))
    } else if spec.breaker.threshold() == 0 {
        Err(ConfigError::ZeroFailureThreshold(id.clone()))
    } else if id.is_empty() {
        Err(ConfigError::EmptyId)
    } else if id.contains('\0') {
        Err(ConfigError::NulInId(id.clone()))
    } else {
        Ok(())
    }
}

/// The user callback that the supervisor thread is in. That thread writes it around each call;
/// threads that wait for it read it, to find out whether it is stuck.
#[derive(Debug, Default)]
pub(crate) struct Doing {
    /// 0 for none.
    callback: AtomicU8,
    key: AtomicU64,
    /// The number of calls so far.
    calls: AtomicU64,
}

impl Doing {
    /// The key of a call for no child; no supervisor lists so many children.
    const NOBODY: u64 = u64::MAX;
    const CALLBACKS: [Callback; 4] =
        [Callback::Enabled, Callback::Backoff, Callback::Sink, Callback::Drop];

    /// Calls user code on the supervisor thread.
    ///
    /// Relaxed stores are enough: a reader acts only after the thread has been stuck for long, and
    /// the callback's name goes into a report for people.
    pub(crate) fn call<R>(
        &self,
        callback: Callback,
        key: impl Into<Option<Key>>,
        f: impl FnOnce() -> R,
    ) -> R {
        let position = Self::CALLBACKS
            .iter()
            .position(|known| *known == callback)
            .map_or(0, |position| position + 1);
        self.key.store(key.into().map_or(Self::NOBODY, |key| key.0), Ordering::Relaxed);
        // No other thread writes to it.
        self.calls.store(self.calls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.callback.store(u8::try_from(position).unwrap_or(0), Ordering::Relaxed);
        let result = f();
        self.callback.store(0, Ordering::Relaxed);
        result
    }

    fn now(&self) -> Option<(Callback, Key)> {
        let position = usize::from(self.callback.load(Ordering::Relaxed)).checked_sub(1)?;
        Some((*Self::CALLBACKS.get(position)?, Key(self.key.load(Ordering::Relaxed))))
    }
}
