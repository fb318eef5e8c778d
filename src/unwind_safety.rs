//! The promise that a panic leaves nothing of this crate half-done.
//!
//! A body, a callback or a caller may catch a panic of its own, with one of these types at hand.
//! That is safe, since no code of the user runs in the midst of a change of this crate's state: not
//! while a lock is held, nor between two writes that belong together. The locks are parking_lot's,
//! which a panic does not poison; what waits registers by guards, whose drop a panic runs too; and
//! a call through a breaker that unwinds is counted as it leaves. The compiler cannot see that
//! through locks, atomics and boxed closures, and would make the user say `AssertUnwindSafe`.

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
// depends on what it does. With it, events, snapshots and reports are unwind-safe, too.
impl UnwindSafe for Failure {}
impl RefUnwindSafe for Failure {}
