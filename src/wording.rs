//! Wording of what people read: durations, counts, and how runs ended.

use std::{fmt, time::Duration};

use crate::{
    exit::Exit,
    sync::{deadline, one_line::OneLine},
    verdict::Advice,
};

/// Shows a duration as a person would say it: `850 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0 if self.0.as_millis() == 0 => format!("{} µs", self.0.as_micros()),
            0 => format!("{} ms", self.0.as_millis()),
            1..60 => format!("{}.{} s", seconds, self.0.subsec_millis() / 100),
            60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
            3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
        };
        f.pad(&text)
    }
}

/// Shows a number of failures: `1 failure`, `3 failures in a row`.
pub(crate) struct Failures(pub(crate) u32);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 failure"),
            count => write!(f, "{count} failures in a row"),
        }
    }
}

/// Shows how a body ended and after how long: `panicked after 3.2 s: index out of bounds`.
pub(crate) struct Ran<'a>(pub(crate) &'a Exit, pub(crate) Duration);

impl fmt::Display for Ran<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(exit, uptime) = self;
        let span = Span(*uptime);
        match exit {
            Exit::Completed => write!(f, "returned after {span}"),
            Exit::Failed(failure) => write!(f, "failed after {span}: {failure}"),
            Exit::Panicked(panic) => write!(f, "panicked after {span}: {panic}"),
        }
    }
}

/// Shows when a child is tried again, and whether its own verdict decided that.
pub(crate) struct Retry(pub(crate) Option<Advice>, pub(crate) Duration);

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(advice, delay) = self;
        In(*delay).fmt(f)?;
        let is_advised = *advice == Some(Advice::RetryAfter(*delay));
        if is_advised { f.write_str(", as the error demands") } else { Ok(()) }
    }
}

/// Shows when something happens, or that it never happens by itself.
pub(crate) struct In(pub(crate) Duration);

impl fmt::Display for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            f.write_str("now")
        } else if deadline::is_never(self.0) {
            f.write_str("only after a reset")
        } else {
            write!(f, "in {}", Span(self.0))
        }
    }
}

/// Shows why a child could not be started.
pub(crate) struct GotNoThread<'a>(pub(crate) &'a Exit);

impl fmt::Display for GotNoThread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "got no thread: {}", OneLine(self.0.message().unwrap_or_default()))
    }
}
