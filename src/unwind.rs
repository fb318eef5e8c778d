//! Catches the panics of user code: nothing else in the crate does.

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::exit::Panic;

/// Calls user code; a panic becomes an `Err`.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_both(f).map_err(|(panic, _)| panic)
}

/// Calls user code; a panic becomes an `Err`, and so does the panic of that panic's payload as it is dropped.
///
/// `AssertUnwindSafe` holds because what a panic may have left half-done is the user's own state, whose survival is
/// documented; state of this crate is never borrowed by the closures that come here.
#[expect(clippy::disallowed_methods, reason = "the one place that catches")]
pub(crate) fn catch_both<R>(f: impl FnOnce() -> R) -> Result<R, (Panic, Option<Panic>)> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| (Panic::new(message(&*payload)), discard_payload(payload)))
}

/// Drops a user's value, whose `Drop` may panic.
pub(crate) fn discard<T>(value: T) -> Result<(), Panic> {
    catch(move || drop(value))
}

fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "unknown panic"
    }
}

/// A payload may panic in its own `Drop`, with a payload that does so too. The second one is leaked: there is no end to it
/// otherwise, and an escaping panic would end the thread before it has said what became of it.
#[expect(clippy::disallowed_methods, reason = "the one place that catches")]
fn discard_payload(payload: Box<dyn Any + Send>) -> Option<Panic> {
    let second = catch_unwind(AssertUnwindSafe(move || drop(payload))).err()?;
    let panic = Panic::new(message(&*second));
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
    fn payloads_that_panic_in_drop_for_ever_are_contained() {
        assert!(catch(|| panic_any(Bomb(0))).is_err());
        assert!(discard(Bomb(0)).is_err());
    }
}
