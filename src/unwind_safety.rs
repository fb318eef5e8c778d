//! Unwind safety: a panic leaves no state of this crate half-changed.
//!
//! A body, a callback or a caller may catch a panic of its own while it uses one of these types.
//! That is safe, since no user code runs in the midst of a change of this crate's state: not while
//! a lock is held, nor between two writes that belong together. The locks that guard something are
//! parking_lot's, which a panic does not poison; waiters register by guards, whose drop a panic
//! runs too; and a call through a breaker that unwinds is counted as it leaves. The compiler cannot
//! see that through locks, atomics and boxed closures, and would make the user write
//! `AssertUnwindSafe`.

use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::{
    breaker::{Breaker, Permit, Rejected},
    context::{ChildContext, StopGuard},
    exit::Failure,
    handle::Handle,
    supervisor::Supervisor,
};

impl UnwindSafe for Supervisor {}
impl RefUnwindSafe for Supervisor {}

impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

impl UnwindSafe for ChildContext {}
impl RefUnwindSafe for ChildContext {}

impl UnwindSafe for StopGuard<'_> {}
impl RefUnwindSafe for StopGuard<'_> {}

impl UnwindSafe for Breaker {}
impl RefUnwindSafe for Breaker {}

impl UnwindSafe for Permit {}
impl RefUnwindSafe for Permit {}

impl UnwindSafe for Rejected {}
impl RefUnwindSafe for Rejected {}

// This crate uses the error that it holds by a shared reference only, and keeps nothing that
// depends on what the error does. With this impl, events, snapshots and reports are unwind-safe,
// too.
impl UnwindSafe for Failure {}
impl RefUnwindSafe for Failure {}
