//! Calls that may block, on threads of their own.

use std::{sync::mpsc, thread, time::Duration};

use crate::sync::unwind;

/// Calls what may block, such as a logger, on a thread of its own, and waits no longer than `limit`
/// for it. If no thread can be spawned, it is not called.
pub(crate) fn within_limit(limit: Duration, f: impl FnOnce() + Send + 'static) {
    let (sender, done) = mpsc::channel::<()>();
    #[expect(clippy::disallowed_methods, reason = "it belongs to no supervisor")]
    let spawned = thread::Builder::new().name("supervisor:log".into()).spawn(move || {
        let _ = unwind::catch(f);
        drop(sender);
    });
    if spawned.is_ok() {
        let _ = done.recv_timeout(limit);
    }
}
