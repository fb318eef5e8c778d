//! Texts of users' errors and their sources, of bounded length.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use crate::sync::{panic::Panic, unwind};

/// The maximal number of errors in one text. A chain of sources may be circular.
const MOST_ERRORS: usize = 16;

/// The maximal number of bytes of a text. A `Display` may write without end.
const LONGEST: usize = 64 * 1024;

const SEPARATOR: &str = ": ";

const ELLIPSIS: &str = "…";

/// Joins the texts of an error and of its sources by `: `.
///
/// Leaves out a source if the text of the error before it already ends with the text of that
/// source. A text that reaches a bound ends with `…`. A panic in a `Display` or a `source` ends the
/// text with a note, and is returned.
pub(crate) fn text_of(error: &(dyn Error + 'static)) -> (String, Option<Panic>) {
    made_by(|text| text.follow(error))
}

/// The text of one value, without sources. It has the same bounds as that of [`text_of`], and a
/// panic ends it in the same way.
pub(crate) fn text_of_one(value: &dyn fmt::Display) -> String {
    made_by(|text| text.show(value)).0
}

fn made_by(write: impl FnOnce(&mut ChainText)) -> (String, Option<Panic>) {
    let mut text = ChainText::default();
    match unwind::catch(|| write(&mut text)) {
        Ok(()) => {
            text.cut_to(LONGEST);
            (text.finish(), None)
        }
        Err(panic) => {
            text.note_panic();
            (text.finish(), Some(panic))
        }
    }
}

#[derive(Default)]
struct ChainText {
    text: String,
    /// Where the text of the present error begins.
    start: usize,
    /// The text of the present error was cut, for want of room.
    is_full: bool,
    /// The `Display` of the present error has returned. A panic now comes from its `source`.
    is_shown: bool,
}

impl ChainText {
    fn follow(&mut self, error: &(dyn Error + 'static)) {
        let mut next = Some(error);
        for _ in 0..MOST_ERRORS {
            let Some(error) = next else { return };
            self.show(&error);
            if self.is_full || self.text.len() > LONGEST {
                return;
            }
            next = error.source();
        }
        if next.is_some() {
            self.text.push_str(SEPARATOR);
            self.text.push_str(ELLIPSIS);
        }
    }

    fn show(&mut self, error: &dyn fmt::Display) {
        let (end, before) = (self.text.len(), self.start);
        if end > 0 {
            self.text.push_str(SEPARATOR);
        }
        self.start = self.text.len();
        self.is_shown = false;
        // A `Display` fails when `write_str` has refused more text, or for a reason of its own. In
        // either case, what it has written stays.
        let _ = write!(self, "{error}");
        self.is_shown = true;
        // A text that was cut cannot be compared: its end is unknown.
        if !self.is_full && self.text[before..end].ends_with(&self.text[self.start..]) {
            let length = self.text.len() - self.start;
            self.text.truncate(end);
            self.start = end - length;
        }
    }

    /// Notes which method of the present error panicked, after the part of its text that was
    /// written.
    fn note_panic(&mut self) {
        let culprit = if self.is_shown { "source" } else { "Display" };
        let is_silent = self.text.len() == self.start && (!self.is_shown || self.text.is_empty());
        let note = if is_silent {
            format!("an error whose `{culprit}` panicked")
        } else {
            format!(" (its `{culprit}` panicked)")
        };
        self.cut_to(LONGEST - note.len());
        self.text.push_str(&note);
    }

    fn cut_to(&mut self, length: usize) {
        if self.is_full || self.text.len() > length {
            let mut end = self.text.len().min(length - ELLIPSIS.len());
            while !self.text.is_char_boundary(end) {
                end -= 1;
            }
            self.text.truncate(end);
            self.text.push_str(ELLIPSIS);
        }
    }

    /// Frees unused capacity, since the text may be kept for a long time; but not a little, for
    /// which each failure would allocate once more.
    fn finish(mut self) -> String {
        if self.text.capacity() - self.text.len() > 64 {
            self.text.shrink_to_fit();
        }
        self.text
    }
}

/// Accepts up to `LONGEST` bytes from the present error, whatever the length of the text before it,
/// so that even a long source can be compared with that text.
impl fmt::Write for ChainText {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.start + LONGEST - self.text.len();
        if part.len() <= room && !self.is_full {
            self.text.push_str(part);
            return Ok(());
        }
        if !self.is_full {
            let mut end = room;
            while !part.is_char_boundary(end) {
                end -= 1;
            }
            self.text.push_str(&part[..end]);
            self.is_full = true;
        }
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    type Show = Box<dyn Fn(&mut fmt::Formatter<'_>) -> fmt::Result>;

    /// An error whose text and source a test determines.
    struct Link {
        show: Show,
        source: Source,
    }

    enum Source {
        None,
        Link(Box<Link>),
        Itself,
        Panics,
    }

    impl fmt::Debug for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Link")
        }
    }

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (self.show)(f)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            match &self.source {
                Source::None => None,
                Source::Link(link) => Some(&**link),
                Source::Itself => Some(self),
                Source::Panics => panic!("no source"),
            }
        }
    }

    fn showing(
        show: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result + 'static,
        source: Source,
    ) -> Link {
        Link { show: Box::new(show), source }
    }

    fn link(text: &str, source: Source) -> Link {
        let text = text.to_owned();
        showing(move |f| f.write_str(&text), source)
    }

    /// A chain of errors with these texts, the outermost first. `end` is the source of the
    /// innermost.
    fn chain<'a>(
        texts: impl IntoIterator<Item = &'a str, IntoIter: DoubleEndedIterator>,
        end: Source,
    ) -> Link {
        let Source::Link(outermost) = texts
            .into_iter()
            .rev()
            .fold(end, |source, text| Source::Link(Box::new(link(text, source))))
        else {
            panic!("a chain has a link")
        };
        *outermost
    }

    /// The text of an error in which nothing panics.
    #[track_caller]
    fn text_only(error: &Link) -> String {
        let (text, panic) = text_of(error);
        assert_eq!(panic, None);
        assert!(text.len() <= LONGEST);
        text
    }

    #[test]
    fn texts_of_all_sources_are_joined() {
        assert_eq!(text_only(&link("alone", Source::None)), "alone");
        assert_eq!(
            text_only(&chain(["cannot send", "no connection", "refused"], Source::None)),
            "cannot send: no connection: refused"
        );
    }

    #[test]
    fn source_that_the_error_before_it_ends_with_is_left_out() {
        for (texts, text) in [
            (&["no connection: refused", "refused"][..], "no connection: refused"),
            (&["a: b: c", "b: c", "c"], "a: b: c"),
            (&["same", "same", "same"], "same"),
            (&["a: b", "b", "c"], "a: b: c"),
            (&["refused by peer", "refused"], "refused by peer: refused"),
            // Only the text of the error before is compared, not the whole text so far.
            (&["a", "b", "a: b"], "a: b: a: b"),
            (&["a", "b", "a", "b"], "a: b: a: b"),
            (&["transparent", "", "cause"], "transparent: cause"),
            (&["", "cause"], "cause"),
            (&["", ""], ""),
        ] {
            assert_eq!(text_only(&chain(texts.iter().copied(), Source::None)), text, "{texts:?}");
        }
    }

    #[test]
    fn sixteen_errors_are_shown() {
        let texts: Vec<_> = (1..=17).map(|number| number.to_string()).collect();
        let of = |count: usize| {
            text_only(&chain(texts[..count].iter().map(String::as_str), Source::None))
        };
        assert_eq!(of(16), texts[..16].join(": "));
        assert_eq!(of(17), texts[..16].join(": ") + ": …");
    }

    #[test]
    fn circle_of_errors_is_followed_for_sixteen() {
        assert_eq!(text_only(&link("round", Source::Itself)), "round: …");
        assert_eq!(text_only(&chain(["once", "round"], Source::Itself)), "once: round: …");
    }

    #[test]
    fn text_is_cut_after_64_kib_between_two_characters() {
        let longest = "x".repeat(LONGEST);
        assert_eq!(text_only(&link(&longest, Source::None)), longest);
        assert_eq!(
            text_only(&link(&format!("{longest}x"), Source::None)),
            longest[3..].to_owned() + "…"
        );
        // Cut at each byte of a four-byte character, in one error and in the source of a short one.
        for shift in 0..4 {
            let text = "x".repeat(shift) + &"🦀".repeat(LONGEST / 4);
            for cut in [
                text_only(&link(&text, Source::Itself)),
                text_only(&chain([".", &text], Source::None)),
            ] {
                let (kept, rest) = cut.split_at(cut.len() - "…".len());
                assert_eq!((rest, cut.len() > LONGEST - 4), ("…", true), "{shift}");
                assert!(format!(".: {text}").contains(kept) || text.starts_with(kept));
            }
        }
        // Many small parts, and many errors.
        let parts = showing(|f| (0..LONGEST).try_for_each(|_| f.write_str("äb")), Source::None);
        assert_eq!(text_only(&parts), "äb".repeat(LONGEST / 3 - 1) + "…");
        let half = ["a", "b", "c"].map(|text| text.repeat(LONGEST / 2));
        let text = text_only(&chain(half.iter().map(String::as_str), Source::None));
        assert!(
            text.starts_with(&format!("{}: bb", half[0]))
                && text.ends_with("b…")
                && text.len() == LONGEST
        );
    }

    #[test]
    fn long_source_is_left_out_as_a_short_one_is() {
        let tail = "x".repeat(LONGEST - 3);
        assert_eq!(
            text_only(&chain([&*format!("a: {tail}"), &tail], Source::None)),
            format!("a: {tail}")
        );
    }

    #[test]
    fn endless_texts_end() {
        let endless = || {
            showing(
                |f| loop {
                    f.write_str("on and ")?
                },
                Source::None,
            )
        };
        let text = text_only(&endless());
        assert!(text.starts_with("on and on and ") && text.ends_with('…'));
        let text = text_only(&link("it goes", Source::Link(Box::new(endless()))));
        assert!(text.starts_with("it goes: on and on and ") && text.ends_with('…'));
    }

    #[test]
    fn text_of_one_value_is_bounded_as_that_of_a_chain() {
        assert_eq!(text_of_one(&"refused"), "refused");
        assert_eq!(
            text_of_one(&link("no connection", Source::Panics)),
            "no connection",
            "its source is not asked for"
        );
        let longest = "x".repeat(LONGEST);
        assert_eq!(text_of_one(&longest), longest);
        assert_eq!(text_of_one(&format!("{longest}x")), longest[3..].to_owned() + "…");
        assert_eq!(
            text_of_one(&showing(|_| panic!("no"), Source::None)),
            "an error whose `Display` panicked"
        );
        let halfway = showing(|f| f.write_str("half").map(|()| panic!("no")), Source::None);
        assert_eq!(text_of_one(&halfway), "half (its `Display` panicked)");
    }

    #[test]
    fn error_of_a_display_that_has_room_is_no_matter() {
        let failing = showing(
            |f| f.write_str("half").and(Err(fmt::Error)),
            Source::Link(Box::new(link("cause", Source::None))),
        );
        assert_eq!(text_only(&failing), "half: cause");
    }

    #[test]
    fn text_before_a_panic_is_kept() {
        let silent = || showing(|_| panic!("cannot be shown"), Source::None);
        let halfway =
            || showing(|f| f.write_str("half").map(|()| panic!("cannot be shown")), Source::None);
        let below = |outer: &str, inner| link(outer, Source::Link(Box::new(inner)));
        for (error, text, message) in [
            (silent(), "an error whose `Display` panicked", "cannot be shown"),
            (halfway(), "half (its `Display` panicked)", "cannot be shown"),
            (
                below("no connection", silent()),
                "no connection: an error whose `Display` panicked",
                "cannot be shown",
            ),
            (
                below("no connection", halfway()),
                "no connection: half (its `Display` panicked)",
                "cannot be shown",
            ),
            (
                link("no connection", Source::Panics),
                "no connection (its `source` panicked)",
                "no source",
            ),
            (chain(["a: b", "b"], Source::Panics), "a: b (its `source` panicked)", "no source"),
            (
                chain(["no connection", ""], Source::Panics),
                "no connection (its `source` panicked)",
                "no source",
            ),
            (link("", Source::Panics), "an error whose `source` panicked", "no source"),
            (
                showing(|_| panic_any(7), Source::None),
                "an error whose `Display` panicked",
                "unknown panic",
            ),
        ] {
            let (shown, panic) = text_of(&error);
            assert_eq!((&*shown, panic.unwrap().message()), (text, message));
        }
    }

    #[test]
    fn panic_of_a_long_text_is_noted_within_the_bound() {
        let note = "… (its `Display` panicked)";
        for count in [LONGEST - 1, LONGEST, LONGEST + 1] {
            // This `Display` panics when it cannot write.
            let error = showing(
                move |f| {
                    f.write_str(&"x".repeat(count)).map(|()| panic!("no")).map_err(|_| panic!("no"))
                },
                Source::None,
            );
            let (text, panic) = text_of(&error);
            assert!(panic.is_some());
            assert_eq!(text, "x".repeat(LONGEST - note.len()) + note);
        }
    }
}
