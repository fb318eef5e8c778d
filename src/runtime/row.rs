//! Published state of one child, with the orders for it.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{
    breaker::Breaker,
    child::ChildSpec,
    core::{circuit::View, key::Key, rules::Policy},
    event::{LastStop, Order},
    id::ChildId,
    runtime::{
        breaker_state::BreakerState, shared::Shared, signs_of_life::Activity,
        thread_record::ThreadRecord,
    },
    snapshot::ChildInfo,
    status::ChildStatus,
    sync::{primitives::Mutex, unwind},
};

/// What all threads see of one child. An order holds as soon as it is noted here.
pub(crate) struct Row {
    key: Key,
    id: ChildId,
    /// The state that callers check and report to.
    pub(super) breaker: Arc<BreakerState>,
    /// What the child was doing at its last heartbeat, if it has a watchdog.
    activity: Option<Arc<Activity>>,
    /// The ids of those that it comes after.
    after: Box<[ChildId]>,
    policy: Policy,
    is_significant: bool,
    pub(super) state: Mutex<RowState>,
}

pub(super) struct RowState {
    pub(super) view: View,
    pub(super) last_stop: Option<LastStop>,
    pub(super) held: bool,
    pub(super) removing: bool,
    pub(super) gone: bool,
    /// The orders that the supervisor thread has yet to carry out, the latest at the end. An order
    /// may replace an earlier one ([`Order::replaces`]).
    pub(super) pending: Vec<Order>,
    /// The supervisor that its body runs, if there is one.
    branch: Option<Weak<Shared>>,
    /// The thread of the present run, once that was looked at because it is stuck.
    pub(super) stuck_thread: Option<Arc<ThreadRecord>>,
    /// The last view of a run that ended after its supervisor, until the message of its end is
    /// found.
    pub(super) outlived: Option<Box<View>>,
}

impl RowState {
    /// Notes an order. Returns whether a message for it has to be sent: that of a pending order
    /// which it replaces serves for it, too.
    pub(super) fn note(&mut self, order: Order) -> bool {
        match order {
            Order::Hold => self.held = true,
            Order::Release => self.held = false,
            Order::Remove => self.removing = true,
            Order::Add | Order::Restart | Order::Reset => {}
        }
        let replaced = self.pending.iter().position(|pending| order.replaces(*pending));
        if let Some(place) = replaced {
            self.pending.remove(place);
        }
        self.pending.push(order);
        replaced.is_none()
    }

    /// Whether an order forbids that a run begins.
    pub(super) fn forbids_start(&self) -> bool {
        self.removing || self.held
    }
}

impl Row {
    /// Makes the row of a child of which nothing is known but this view. It comes after those of
    /// these whole ids.
    pub(crate) fn new(
        key: Key,
        id: ChildId,
        spec: &ChildSpec,
        after: Box<[ChildId]>,
        view: View,
    ) -> Arc<Self> {
        let state = RowState {
            view,
            last_stop: None,
            held: false,
            removing: false,
            gone: false,
            pending: Vec::new(),
            branch: None,
            stuck_thread: None,
            outlived: None,
        };
        Arc::new(Self {
            key,
            id,
            breaker: spec.breaker.clone(),
            activity: spec.watchdog.map(|_| Arc::default()),
            after,
            policy: spec.policy,
            is_significant: spec.significant,
            state: Mutex::new(state),
        })
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn id(&self) -> &ChildId {
        &self.id
    }

    pub(crate) fn after(&self) -> &[ChildId] {
        &self.after
    }

    /// Whether the supervisor ends if the child is given up.
    pub(crate) fn is_significant(&self) -> bool {
        self.is_significant
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// The supervisor that its body runs, if that has not ended.
    pub(crate) fn branch(&self) -> Option<Arc<Shared>> {
        let branch = self.state.lock().branch.clone()?;
        branch.upgrade().filter(|branch| !branch.has_ended())
    }

    pub(crate) fn set_branch(&self, branch: Option<&Arc<Shared>>) {
        self.state.lock().branch = branch.map(Arc::downgrade);
        self.breaker.news.notify();
    }

    /// Notes the thread of a run that is stuck: whoever asks for the child is told what that thread
    /// is doing.
    pub(super) fn note_stuck_thread(&self, thread: Arc<ThreadRecord>) {
        self.state.lock().stuck_thread = Some(thread);
    }

    /// What is known of the child, but for whom it waits: [`Shared::info`] adds that.
    ///
    /// [`Shared::info`]: super::shared::Shared::info
    pub(super) fn info(&self, now: Instant) -> ChildInfo {
        let state = self.state.lock();
        let (view, last_stop) = (state.view, state.last_stop.clone());
        let stuck_thread = state.stuck_thread.clone();
        drop(state);
        let doing = self.doing(view.run);
        let mut info = ChildInfo::new(self.id.clone(), &view, doing, last_stop, now);
        info.thread = stuck_thread.and_then(|thread| thread.look_in(view.run));
        info
    }

    /// What this run was doing, by its last heartbeat.
    pub(super) fn doing(&self, run: u64) -> Option<&'static str> {
        self.activity.as_ref()?.of(run)
    }

    pub(crate) fn status(&self) -> ChildStatus {
        self.state.lock().view.status
    }

    /// Whether those that come after it may start, by what is published.
    pub(super) fn is_ready(&self) -> bool {
        self.policy.is_ready_in(self.status())
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
    /// otherwise like [`Watch::wait_for`](crate::sync::watch::Watch::wait_for).
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

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("id", &self.id).finish_non_exhaustive()
    }
}
