//! The one place that catches panics, notes where they happened, and drops user values.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    mem,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::sync::panic::{Panic, Text};

/// The hook that records locations is set. Relaxed is enough: a thread that sees this late only
/// misses the location of a panic.
static IS_CAPTURING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// How many nested catches this thread is in.
    static CATCHES: Cell<u32> = const { Cell::new(0) };
    /// The location of this thread's last panic, until a catch takes it.
    static LOCATION: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Makes [`Panic::location`](crate::Panic::location) known, for all supervisors of the process and
/// from now on.
///
/// Only the process-wide panic hook learns a panic's file and line. So this chains a hook to
/// the one that is set now, which is still called for every panic; it looks only at panics in code
/// that a supervisor calls, bodies and callbacks, and silences nothing. It is the only thing global
/// to the process that this crate ever does, and for the program to decide: best at the beginning
/// of `main`, after any other hook was set. Calling it again does nothing.
///
/// # Panics
///
/// On a thread that is panicking, as [`std::panic::set_hook`] does.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{
///     ChildSpec, Exit, Supervisor, capture_panic_locations,
/// };
/// use std::time::Duration;
///
/// capture_panic_locations();
/// let supervisor = Supervisor::builder()
///     .child(ChildSpec::new("worker", |_| panic!("boom")))
///     .start()?;
/// let worker =
///     supervisor.handle().wait_for("worker", Duration::from_secs(10), |worker| {
///         worker.last_stop.is_some()
///     })?;
/// let Some(Exit::Panicked(panic)) = worker.last_stop.map(|stop| stop.exit) else {
///     unreachable!()
/// };
/// assert!(panic.location().is_some_and(|location| location.contains(".rs:")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[expect(
    clippy::disallowed_methods,
    reason = "the program asked for it, and the hook that was there is called on"
)]
pub fn capture_panic_locations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if is_supervised() {
                // `try_with`, since an ending thread may have no thread-local variables any more,
                // and a panic in a hook aborts the process.
                let location = info.location().map(|at| Arc::from(at.to_string()));
                let _ = LOCATION.try_with(|last| last.replace(location));
            }
            before(info);
        }));
        IS_CAPTURING.store(true, Ordering::Relaxed);
    });
}

/// Returns whether a panic on this thread, right now, is caught by a supervisor: in a body, a
/// callback, a sink, or the `Drop` of what a supervisor was given.
///
/// It is for the panic hook of a program that is to end at any other panic. It is `false` on
/// threads that a body starts, whose panics nobody catches, and wherever the program is built with
/// `panic = "abort"`. A second panic during a first one ends the process, whatever this says.
///
/// # Examples
///
/// ```standalone_crate
/// use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor, is_supervised};
/// use std::{panic, process, time::Duration};
///
/// let hook = panic::take_hook();
/// panic::set_hook(Box::new(move |info| {
///     hook(info);
///     if !is_supervised() {
///         process::exit(101);
///     }
/// }));
/// let supervisor = Supervisor::builder()
///     .child(ChildSpec::new("worker", |_| panic!("boom")))
///     .start()?;
/// supervisor.handle().wait_for("worker", Duration::from_secs(10), |worker| {
///     worker.status == ChildStatus::BackingOff
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn is_supervised() -> bool {
    // `try_with`, since this may be asked in an ending thread.
    cfg!(panic = "unwind") && CATCHES.try_with(Cell::get).is_ok_and(|catches| catches > 0)
}

/// Calls user code; a panic becomes an `Err`.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_both(f).map_err(|(panic, _)| panic)
}

/// Calls user code; a panic becomes an `Err`, together with a second panic from the `Drop` of its
/// payload.
///
/// `AssertUnwindSafe` holds because a panic can leave only the user's own state half-done, whose
/// survival is documented: the state of this crate that the closures borrow is whole at every call
/// of user code.
#[expect(clippy::disallowed_methods, reason = "the one place that catches")]
pub(crate) fn catch_both<R>(f: impl FnOnce() -> R) -> Result<R, (Panic, Option<Panic>)> {
    let result = count(|| catch_unwind(AssertUnwindSafe(f)));
    result.map_err(|(payload, location)| {
        (Panic::new(message(&*payload), location), discard_payload(payload))
    })
}

/// Counts this catch while `f` runs, for [`is_supervised`], and adds the location to a panic if the
/// hook records locations.
///
/// A catch may happen in a `Drop` while another panic unwinds: the location of that panic is put
/// aside and restored afterwards. The location of a panic that user code caught itself is cleared,
/// so that no later panic gets it. In an ending thread, which may have no thread-local variables
/// any more, panics have no location.
fn count<R>(f: impl FnOnce() -> Result<R, Payload>) -> Result<R, (Payload, Option<Arc<str>>)> {
    let is_capturing = IS_CAPTURING.load(Ordering::Relaxed);
    let under_way = if is_capturing { location() } else { None };
    let _ = CATCHES.try_with(|catches| catches.set(catches.get() + 1));
    let result = f();
    let _ = CATCHES.try_with(|catches| catches.set(catches.get() - 1));
    if !is_capturing {
        return result.map_err(|payload| (payload, None));
    }
    let location = location();
    let _ = LOCATION.try_with(|last| last.replace(under_way));
    result.map_err(|payload| (payload, location))
}

type Payload = Box<dyn Any + Send>;

fn location() -> Option<Arc<str>> {
    LOCATION.try_with(RefCell::take).ok().flatten()
}

/// Drops a user's value, whose `Drop` may panic.
pub(crate) fn discard<T>(value: T) -> Result<(), Panic> {
    catch(move || drop(value))
}

/// The result of dropping some of the user's values, if there were any: the first panic, or
/// success.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops(Option<Result<(), Panic>>);

impl Drops {
    /// Drops one more value.
    pub(crate) fn discard<T>(&mut self, value: T) {
        self.note(discard(value));
    }

    /// Notes the drop of one more value.
    pub(crate) fn note(&mut self, result: Result<(), Panic>) {
        let before = self.0.take().unwrap_or(Ok(()));
        self.0 = Some(before.and(result));
    }

    pub(crate) fn into_result(self) -> Option<Result<(), Panic>> {
        self.0
    }
}

fn message(payload: &(dyn Any + Send)) -> Text {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        Text::Literal(text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Text::Shared(text.as_str().into())
    } else {
        Text::Literal("unknown panic")
    }
}

/// Drops the payload of a panic, whose `Drop` may panic with a payload that does the same. The
/// second payload is leaked: otherwise this might never end, and a panic that escapes would end the
/// thread before it has reported its exit.
#[expect(clippy::disallowed_methods, reason = "the one place that catches")]
fn discard_payload(payload: Box<dyn Any + Send>) -> Option<Panic> {
    let (second, location) =
        count(|| catch_unwind(AssertUnwindSafe(move || drop(payload)))).err()?;
    let panic = Panic::new(message(&*second), location);
    mem::forget(second);
    Some(panic)
}

#[cfg(test)]
mod tests {
    use std::panic::{panic_any, resume_unwind};

    use super::*;

    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_any(Bomb(self.0 + 1));
        }
    }

    #[test]
    fn texts_of_panics_are_kept() {
        assert_eq!(catch(|| panic!("plain")).unwrap_err().message(), "plain");
        let number = 7;
        assert_eq!(catch(|| panic!("number {number}")).unwrap_err().message(), "number 7");
        assert_eq!(catch(|| panic_any(7u32)).unwrap_err().message(), "unknown panic");
        assert_eq!(catch(|| resume_unwind(Box::new("again"))).unwrap_err().message(), "again");
    }

    #[test]
    fn panic_is_supervised_within_a_catch_and_not_after_it_nor_on_another_thread() {
        assert!(!is_supervised());
        assert!(catch(is_supervised).unwrap());
        let nested = catch(|| {
            assert!(catch(|| panic!("inner")).is_err());
            is_supervised()
        });
        assert!(nested.unwrap());
        assert!(!is_supervised());
        let elsewhere = catch(|| std::thread::scope(|scope| scope.spawn(is_supervised).join()));
        assert!(!elsewhere.unwrap().unwrap());
    }

    #[test]
    fn payloads_that_panic_in_drop_for_ever_are_contained() {
        assert!(catch(|| panic_any(Bomb(0))).is_err());
        assert!(discard(Bomb(0)).is_err());
    }

    #[test]
    fn place_of_a_panic_survives_a_catch_in_the_midst_of_it() {
        struct Guard;
        impl Drop for Guard {
            fn drop(&mut self) {
                assert!(discard(()).is_ok());
                assert!(catch(|| panic!("a second")).is_err());
            }
        }
        capture_panic_locations();
        let line = line!() + 3;
        let result: Result<(), Panic> = catch(|| {
            let _guard = Guard;
            panic!("the first");
        });
        let panic = result.unwrap_err();
        assert_eq!(panic.message(), "the first");
        assert!(
            panic.location().is_some_and(|at| at.contains(&format!("unwind.rs:{line}:"))),
            "{panic}"
        );
        assert_eq!(location(), None, "nor is it lent to a later one");
    }
}
