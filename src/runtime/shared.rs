//! Shared state of one supervisor, as handles and all its threads use it.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use parking_lot::Mutex as StaticMutex;

use crate::{
    child::{AddError, AddErrorReason, ChildSpec},
    core::{
        circuit::{Circuit, View},
        interface::StartDenied,
        key::Key,
        rules::Defaults,
    },
    error::{CommandError, ConfigError},
    event::{LastStop, Order, StopCause},
    id::ChildId,
    report::{ChildGaveUp, ShutdownCause, ShutdownReport, StuckIn, Unstopped},
    runtime::{
        breaker_state::Last,
        directory::Directory,
        inbox::{Message, RunEnd},
        lifecycle::{Lifecycle, Noticed},
        row::Row,
        user_call::UserCall,
    },
    snapshot::ChildInfo,
    status::{ChildStatus, CircuitState, OffBy},
    sync::{
        clock::Clock,
        deadline,
        primitives::{
            Mutex, RwLock,
            atomic::{AtomicBool, Ordering},
        },
        unwind,
        watch::Watch,
    },
};

/// The state that handles, worker threads and the supervisor thread share. No lock is held while
/// user code runs.
///
/// Locks are taken in this order: `directory`, `lifecycle`, a row.
pub(crate) struct Shared {
    me: Weak<Self>,
    pub(crate) name: Arc<str>,
    /// Unique among all supervisors of the process.
    pub(crate) number: u64,
    outer: Option<OuterChild>,
    pub(crate) defaults: Defaults,
    clock: Clock,
    inbox: Sender<Message>,
    pub(super) directory: RwLock<Directory>,
    lifecycle: Mutex<Lifecycle>,
    /// `PollNow` was sent, and the supervisor thread has not received it yet.
    poll_is_sent: AtomicBool,
    pub(crate) user_call: UserCall,
    /// Notified of a child that is added, of the shutdown and of the end. Each child has a
    /// [`Watch`] of its own.
    watch: Watch,
}

/// The child of an outer supervisor whose body runs a nested one.
pub(crate) struct OuterChild {
    /// Its id, which is the first part of the ids of all children of the nested supervisor.
    id: ChildId,
    /// The outer supervisor, which lives as long as that child's body runs. Weak, since a user's
    /// error that it holds may hold a handle of the nested one.
    supervisor: Weak<Shared>,
    /// Until when it has time to stop, once it was asked to; `None` is without end.
    until: OnceLock<Option<Instant>>,
}

impl OuterChild {
    pub(crate) fn new(id: ChildId, supervisor: &Arc<Shared>) -> Self {
        Self { id, supervisor: Arc::downgrade(supervisor), until: OnceLock::new() }
    }

    /// The whole id of a child of the nested supervisor.
    fn path(&self, id: &str) -> ChildId {
        ChildId::from(format!("{}/{id}", self.id.as_str()))
    }
}

impl Shared {
    pub(crate) fn new(
        name: Arc<str>,
        outer: Option<OuterChild>,
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
            outer,
            defaults,
            clock,
            inbox,
            directory: RwLock::default(),
            lifecycle: Mutex::default(),
            poll_is_sent: AtomicBool::new(false),
            user_call: UserCall::default(),
            watch: Watch::default(),
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
        if let Err(invalid) = spec.check() {
            return Err(AddError::new(AddErrorReason::Config(invalid), spec));
        }
        let mut directory = self.directory.write();
        // Held until `Add` is sent: behind `Shutdown` in the inbox, it might never be received.
        let lifecycle = self.lifecycle.lock();
        if !lifecycle.is_running() {
            return Err(AddError::new(AddErrorReason::Ended, spec));
        }
        let checked = self.check_dependencies(&directory, &spec);
        let row = match checked.and_then(|()| self.list_in(&mut directory, &spec)) {
            Ok(row) => row,
            Err(invalid) => return Err(AddError::new(AddErrorReason::Config(invalid), spec)),
        };
        // Sent under the lock, so that keys reach the supervisor thread in their order. To send to
        // an unbounded channel does not block.
        let _ = self.tell(Message::Add { row, spec: Box::new(spec) });
        drop(lifecycle);
        drop(directory);
        self.watch.notify();
        Ok(())
    }

    /// Lists a child of the builder.
    pub(crate) fn list(&self, spec: &ChildSpec) -> Arc<Row> {
        self.list_in(&mut self.directory.write(), spec).expect("the builder's ids were checked")
    }

    fn list_in(
        &self,
        directory: &mut Directory,
        spec: &ChildSpec,
    ) -> Result<Arc<Row>, ConfigError> {
        let now = self.now();
        let mut circuit = Circuit::new(spec.rules(self.defaults), now);
        let after: Box<[ChildId]> = spec.after.iter().map(|id| self.path(id)).collect();
        if !after.iter().all(|id| directory.find(id).is_some_and(|row| row.is_ready())) {
            circuit.dependency_failed();
        }
        let view = circuit.view(now);
        let row = directory
            .list(self.path(&spec.id), |key, id| Row::new(key, id, spec, after, view))
            .map_err(ConfigError::DuplicateId)?;
        row.breaker.place(self.me.clone(), Arc::downgrade(&row));
        Ok(row)
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

    /// Gives an order to one of its children, which holds as soon as this has returned.
    pub(crate) fn order(&self, row: &Row, order: Order) -> Result<(), CommandError> {
        if self.has_ended() {
            return Err(CommandError::Ended);
        }
        let mut state = row.state.lock();
        if state.gone {
            return Err(CommandError::UnknownId(row.id().clone()));
        }
        // Sent under the lock, so that messages arrive in the order of the orders.
        if state.note(order) { self.tell(Message::Order { key: row.key() }) } else { Ok(()) }
    }

    /// Requests a shutdown. Once this has returned, no run starts. A further request counts only if
    /// its limit is shorter.
    pub(crate) fn request_shutdown(&self, limit: Duration) {
        let now = self.now();
        self.shut_down(|lifecycle| lifecycle.request_shutdown(limit, now));
    }

    /// Has the supervisor shut down because it gave up a child, unless it shuts down already.
    pub(crate) fn give_up(&self, cause: ChildGaveUp) {
        let mut unused = None;
        self.shut_down(|lifecycle| {
            lifecycle.give_up(cause).unwrap_or_else(|cause| {
                unused = Some(cause);
                false
            })
        });
        let _ = unwind::discard(unused);
    }

    /// Wakes all who wait for something here: no child has to change at once in a shutdown.
    fn notify_all(&self) {
        self.watch.notify();
        for row in self.rows() {
            row.breaker.news.notify();
        }
    }

    /// Has the life cycle changed by `request`, which returns whether `Shutdown` has to be sent, as
    /// this does.
    fn shut_down(&self, request: impl FnOnce(&mut Lifecycle) -> bool) -> bool {
        let mut lifecycle = self.lifecycle.lock();
        let is_new = request(&mut lifecycle);
        if is_new {
            // Under the lock, so that it comes before what is sent by those who see the change.
            let _ = self.tell(Message::Shutdown);
        }
        drop(lifecycle);
        self.notify_all();
        is_new
    }

    /// Notes that the supervisor thread has noticed the shutdown.
    pub(crate) fn notice_shutdown(&self) -> Noticed {
        let closing = self.lifecycle.lock().notice(self.now());
        self.watch.notify();
        closing
    }

    /// When the supervisor thread noticed the shutdown, or ended, if it has.
    pub(crate) fn noticed_at(&self) -> Option<Instant> {
        self.lifecycle.lock().noticed_at()
    }

    /// Notes that the outer child was asked to stop, and until when it has time: `None` is without
    /// end.
    pub(crate) fn note_outer_stop(&self, until: Option<Instant>) {
        if let Some(outer) = &self.outer {
            let _ = outer.until.set(until);
        }
    }

    /// When the time of a shutdown is over, by its own limit or, once the outer child was asked to
    /// stop, by those of that child and of the outer supervisor: the time of the outer child is
    /// that of all below it.
    pub(crate) fn closing_cap(&self) -> Option<Instant> {
        let own = self.lifecycle.lock().cap();
        let of_outer = |outer: &OuterChild| {
            let of_supervisor = || outer.supervisor.upgrade()?.closing_cap();
            deadline::sooner(*outer.until.get()?, of_supervisor())
        };
        deadline::sooner(own, self.outer.as_ref().and_then(of_outer))
    }

    /// Has the outermost supervisor shut down because this child, here or nested deeper, does not
    /// stop. Returns `false` if that shuts down already, for whatever reason.
    pub(crate) fn abandon(&self, child: Unstopped) -> bool {
        if let Some(outer) = &self.outer {
            return outer.supervisor.upgrade().is_some_and(|outer| outer.abandon(child));
        }
        self.shut_down(|lifecycle| lifecycle.abandon(child))
    }

    /// Whether no shutdown was requested.
    pub(crate) fn is_running(&self) -> bool {
        self.lifecycle.lock().is_running()
    }

    /// Why the supervisor shuts down.
    pub(crate) fn cause(&self) -> ShutdownCause {
        self.lifecycle.lock().cause()
    }

    /// A child's whole id. In a nested supervisor it begins with the id of the child that runs that
    /// supervisor.
    pub(super) fn path(&self, id: &ChildId) -> ChildId {
        self.outer.as_ref().map_or_else(|| id.clone(), |outer| outer.path(id))
    }

    // ── The state of children ──

    /// Looks one of its own children up by its whole id or, in a nested supervisor, by its id
    /// without the prefix.
    pub(crate) fn row(&self, id: &str) -> Option<Arc<Row>> {
        let by_whole_id = self.directory.read().find(id).cloned();
        by_whole_id.or_else(|| self.own_row(id))
    }

    /// Looks one of its own children up by nothing but its whole id.
    pub(super) fn listed(&self, id: &ChildId) -> Option<Arc<Row>> {
        self.directory.read().find(id).cloned()
    }

    /// The same by an id without the prefix.
    pub(super) fn own_row(&self, id: &str) -> Option<Arc<Row>> {
        let directory = self.directory.read();
        match &self.outer {
            Some(outer) => directory.find(&outer.path(id)),
            None => directory.find(id),
        }
        .cloned()
    }

    /// A path within this supervisor, if this is one that begins at the outermost one.
    pub(super) fn without_prefix<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.outer.as_ref()?.id)?.strip_prefix('/')
    }

    /// What is known of a child.
    pub(crate) fn info(&self, row: &Row) -> ChildInfo {
        let now = self.now();
        let mut info = row.info(now);
        if info.status == ChildStatus::Waiting {
            info.waiting_for = Some(self.waiting_for(row, now));
        }
        info
    }

    pub(super) fn row_of(&self, key: Key) -> Option<Arc<Row>> {
        self.directory.read().get(key).cloned()
    }

    /// All rows in list order.
    pub(crate) fn rows(&self) -> Vec<Arc<Row>> {
        self.directory.read().rows().cloned().collect()
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
        if last_stop.is_some() {
            state.stuck_thread = None;
        }
        row.breaker.show(&view);
        let before = last_stop.and_then(|last_stop| state.last_stop.replace(last_stop));
        drop(state);
        row.breaker.news.notify();
        before
    }

    /// Checks whether a run may begin.
    pub(crate) fn check_start(&self, row: &Row) -> Result<(), StartDenied> {
        let may_start = self.is_running() && !row.state.lock().forbids_start();
        if may_start { Ok(()) } else { Err(StartDenied) }
    }

    /// Publishes that a run begins, unless an order or a shutdown forbids it. Both happen under the
    /// locks, so that no run begins once an order has been given.
    pub(crate) fn publish_begin(&self, row: &Row, view: View) -> Result<(), StartDenied> {
        let lifecycle = self.lifecycle.lock();
        let mut state = row.state.lock();
        if !lifecycle.is_running() || state.forbids_start() {
            return Err(StartDenied);
        }
        state.view = view;
        row.breaker.show(&view);
        drop(state);
        drop(lifecycle);
        row.breaker.news.notify();
        Ok(())
    }

    /// Takes a child off the list, which frees its id. Its breaker stays open for good.
    ///
    /// The breaker is opened before the child is gone, and both before anybody can look for the
    /// child again: the breaker says so, too, to whoever has seen that the child is gone.
    #[must_use = "it holds a user's error, whose drop may panic"]
    pub(crate) fn forget(&self, row: &Row) -> Option<Arc<Row>> {
        let last = Last::Gone(Box::new(self.info(row).without_error()));
        let mut directory = self.directory.write();
        let row = directory.forget(row)?;
        row.breaker.open_for_good(Some(last));
        row.state.lock().gone = true;
        drop(directory);
        row.breaker.news.notify();
        Some(row)
    }

    /// The user callback that the supervisor thread is in now.
    pub(crate) fn stuck_in(&self) -> Option<StuckIn> {
        let (callback, key) = self.user_call.now()?;
        Some(StuckIn { callback, id: self.row_of(key).map(|row| row.id().clone()) })
    }

    // ── The end ──

    /// Takes no more children and begins no more runs, as the supervisor thread ends.
    pub(crate) fn refuse_starts(&self) {
        let now = self.now();
        self.lifecycle.lock().request_shutdown(Duration::ZERO, now);
    }

    /// Publishes that the supervisor has ended. The first report stays.
    pub(crate) fn ended(&self, report: ShutdownReport) {
        self.refuse_starts();
        let rows = self.rows();
        let now = self.now();
        let lasts: Vec<_> =
            rows.iter().map(|row| Last::Ended(Box::new(self.info(row).without_error()))).collect();
        let mut lifecycle = self.lifecycle.lock();
        // Opened under the lock: the breakers say so, too, to whoever has seen that the supervisor
        // has ended.
        for (row, last) in rows.iter().zip(lasts) {
            row.breaker.open_for_good(Some(last));
        }
        let unused = lifecycle.end(report, now);
        drop(lifecycle);
        let _ = unwind::discard(unused);
        // The watch in a child's breaker wakes the threads that wait for that child.
        for row in &rows {
            row.breaker.news.notify();
            // A branch may outlive this supervisor, and somebody wait for it by a path from here.
            row.branch().iter().for_each(|branch| branch.wake_tree());
        }
        self.watch.notify();
    }

    /// Wakes all who wait for something here or below.
    fn wake_tree(&self) {
        self.notify_all();
        for row in self.rows() {
            row.branch().iter().for_each(|branch| branch.wake_tree());
        }
    }

    /// Publishes that the children are stopped without the supervisor thread. If that returns from
    /// its callback, it publishes its own views again; the breakers stay open.
    pub(crate) fn show_take_over(&self) {
        self.lifecycle.lock().take_over();
        let now = self.now();
        for row in self.rows() {
            let mut state = row.state.lock();
            let view = &mut state.view;
            if view.since.is_some() {
                view.stop.get_or_insert((StopCause::Shutdown, now));
                (view.status, view.circuit) = (ChildStatus::Stopping, CircuitState::Open);
            } else if matches!(
                view.status,
                ChildStatus::Waiting | ChildStatus::BackingOff | ChildStatus::Due
            ) {
                (view.status, view.until) = (ChildStatus::Off { by: OffBy::Shutdown }, None);
            }
            drop(state);
            row.breaker.open_for_good(None);
        }
    }

    /// Whether the supervisor thread may never publish the end of a run: it has ended, or was found
    /// stuck.
    pub(crate) fn shows_no_more(&self) -> bool {
        self.lifecycle.lock().shows_no_more()
    }

    /// Publishes the end of a run in place of the supervisor thread, which has ended or is stuck.
    pub(crate) fn publish_missed_end(&self, key: Key, run: u64, end: Option<RunEnd>) {
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
                until: None,
                ..before
            };
            state.outlived = Some(Box::new(before));
        }
        // There may be two calls for one run: the child's thread, whose message was accepted,
        // passes no `end`; and the supervisor thread passes it when it drains its inbox.
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
        self.lifecycle.lock().report().cloned()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lifecycle.lock().report().is_some()
    }

    /// Waits for a child that is added, and for the shutdown or the end, otherwise like
    /// [`Watch::wait_for`].
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

/// Drops the cause and the report, and catches their panics: like a row, they may hold a user's
/// error.
impl Drop for Shared {
    fn drop(&mut self) {
        let _ = unwind::discard(std::mem::take(self.lifecycle.get_mut()));
    }
}
