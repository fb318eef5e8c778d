//! Which callbacks of a child panicked when they were called last.

use crate::event::Callback;

/// A set in one byte, since each child has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Faults(u8);

impl Faults {
    pub(super) fn contains(self, callback: Callback) -> bool {
        self.0 & Self::bit(callback) != 0
    }

    /// Notes how a call went. Returns whether that differs from the call before.
    pub(super) fn note(&mut self, callback: Callback, panicked: bool) -> bool {
        let before = *self;
        if panicked {
            self.0 |= Self::bit(callback);
        } else {
            self.0 &= !Self::bit(callback);
        }
        before != *self
    }

    fn bit(callback: Callback) -> u8 {
        const { assert!((Callback::Pulse as u8) < 8, "the last of them has a bit") };
        1 << callback as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_callback_is_remembered_by_itself() {
        let mut faults = Faults::default();
        assert!(!faults.note(Callback::Enabled, false));
        assert!(faults.note(Callback::Enabled, true) && faults.note(Callback::Pulse, true));
        assert!(!faults.note(Callback::Pulse, true), "of panics in a row, the first differs");
        assert!(faults.note(Callback::Pulse, false));
        assert!(faults.contains(Callback::Enabled) && !faults.contains(Callback::Pulse));
    }
}
