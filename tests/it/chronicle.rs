//! Record of one supervisor in one order: its events, and what bodies and operators saw meanwhile.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use circuit_breaker_supervisor::{
    ChildContext, ChildResult, ChildSpec, Event, EventKind, Handle, ShutdownReport, StopCause,
    TelemetrySink,
};
use parking_lot::Mutex;

use crate::{laws::check_trace_of, support::*};

/// All that happened to one supervisor in one order: what it told, and what bodies and operators
/// saw. It is a sink.
#[derive(Clone, Default)]
pub(crate) struct Chronicle(Arc<Book>);

#[derive(Default)]
struct Book {
    entries: Mutex<Vec<Entry>>,
    bodies: AtomicU64,
    made: AtomicU64,
    dropped: AtomicU64,
}

enum Entry {
    Told(Event),
    /// The first instruction of a body.
    Began(Run),
    /// The last instruction of a body.
    Left(Run),
    /// A body, and all that it captured, is dropped.
    Dropped {
        body: u64,
    },
    /// A command has returned, after which no run of the child begins but those that it had seen.
    Denied {
        id: String,
        last: u64,
    },
    /// The child may start again: it is about to be released.
    Released {
        id: String,
    },
    /// A child is about to be added under the id of one that is gone, if there was one.
    Added {
        id: String,
    },
    /// The owner is about to end the supervisor. One who loses patience forbids runs that were told
    /// of already.
    Ending,
    /// The shutdown was asked for, and this is the last run of each child that had begun by then.
    Closed {
        last: HashMap<String, u64>,
    },
}

#[derive(Clone)]
struct Run {
    id: String,
    run: u64,
    failures: u32,
    body: u64,
}

impl TelemetrySink for Chronicle {
    fn record(&self, event: &Event) {
        self.note(Entry::Told(event.clone()));
    }
}

impl Chronicle {
    fn note(&self, entry: Entry) {
        self.0.entries.lock().push(entry);
    }

    /// How much has happened.
    pub(crate) fn len(&self) -> usize {
        self.0.entries.lock().len()
    }

    /// Something of which it is noticed if it is not dropped.
    pub(crate) fn token(&self) -> Token {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        Token(self.clone())
    }

    /// A body that notes when it runs, and when it is dropped.
    pub(crate) fn body(
        &self,
        mut body: impl FnMut(&ChildContext) -> ChildResult + Send + 'static,
    ) -> impl FnMut(&ChildContext) -> ChildResult + Send + 'static {
        let (chronicle, token, number) =
            (self.clone(), self.token(), self.0.bodies.fetch_add(1, Ordering::SeqCst));
        let its = self.clone();
        let dropped = OnDrop(move || its.note(Entry::Dropped { body: number }));
        move |ctx| {
            let _ = (&token, &dropped);
            let (id, run) = (ctx.id().to_string(), ctx.run());
            let run = Run { id, run, failures: ctx.failures(), body: number };
            chronicle.note(Entry::Began(run.clone()));
            // Also when it panics.
            let _left = OnDrop(|| chronicle.note(Entry::Left(run.clone())));
            body(ctx)
        }
    }

    // ── Commands ──
    //
    // Of these, one at a time for each child: then no run begins after the first two that had not
    // begun before, until one of the others is called.

    pub(crate) fn hold(&self, handle: &Handle, id: &str) {
        if handle.hold(id).is_ok() {
            self.deny(handle, id);
        }
    }

    pub(crate) fn remove(&self, handle: &Handle, id: &str) {
        if handle.remove(id).is_ok() {
            self.deny(handle, id);
        }
    }

    fn deny(&self, handle: &Handle, id: &str) {
        // One that is gone has no run at all.
        let last = handle.child(id).map_or(0, |child| child.run);
        self.note(Entry::Denied { id: id.to_owned(), last });
    }

    pub(crate) fn release(&self, handle: &Handle, id: &str) {
        self.note(Entry::Released { id: id.to_owned() });
        let _ = handle.release(id);
    }

    pub(crate) fn add(&self, handle: &Handle, spec: ChildSpec) {
        // What is held or removed stays so if its id is taken.
        if handle.child(spec.id()).is_none() {
            self.note(Entry::Added { id: spec.id().to_string() });
            let _ = handle.add(spec);
        }
    }

    /// To be called before the supervisor is ended by one who may lose patience with it.
    pub(crate) fn is_ending(&self) {
        self.note(Entry::Ending);
    }

    /// Asks for the shutdown, unless that was done: no run begins from now on.
    pub(crate) fn close(&self, handle: &Handle) {
        handle.request_shutdown();
        let last = handle
            .snapshot()
            .children
            .iter()
            .map(|child| (child.id.to_string(), child.run))
            .collect();
        self.note(Entry::Closed { last });
    }

    /// Whether a run of the child was told of as started.
    pub(crate) fn was_started(&self, id: &str) -> bool {
        self.started().any(|(other, _)| other == id)
    }

    /// Checks that of each run which somebody saw running it was told that it has started.
    #[track_caller]
    pub(crate) fn check_seen(&self, seen: &HashSet<(String, u64)>) {
        let started: HashSet<_> = self.started().collect();
        let unreported: Vec<_> = seen.difference(&started).collect();
        assert!(unreported.is_empty(), "seen running, and never reported: {unreported:?}");
    }

    /// The runs that were told of as started.
    fn started(&self) -> impl Iterator<Item = (String, u64)> {
        let entries = self.0.entries.lock();
        let started = entries.iter().filter_map(|entry| match entry {
            Entry::Told(event) if matches!(event.kind, EventKind::Started) => {
                Some((event.id.to_string(), event.run))
            }
            _ => None,
        });
        started.collect::<Vec<_>>().into_iter()
    }

    /// Why each run has ended so far.
    pub(crate) fn stops(&self) -> Vec<StopCause> {
        let entries = self.0.entries.lock();
        let told = entries.iter().filter_map(|entry| {
            if let Entry::Told(event) = entry { Some(&event.kind) } else { None }
        });
        told.filter_map(|kind| {
            if let EventKind::Stopped { cause, .. } = kind { Some(*cause) } else { None }
        })
        .collect()
    }

    // ── Judging ──

    /// Checks all of it, once the supervisor has ended, its threads have, and its handles are
    /// dropped.
    ///
    /// Each run is told of, before its first instruction and after its last; there is one at a time
    /// of each child; none begins that was forbidden; nothing is dropped that is still used, and
    /// everything in the end.
    #[track_caller]
    pub(crate) fn check(self, report: ShutdownReport, is_by_hand: impl Fn(&str) -> bool) {
        let entries = std::mem::take(&mut *self.0.entries.lock());
        let told = entries.iter().filter_map(|entry| {
            if let Entry::Told(event) = entry { Some(event.clone()) } else { None }
        });
        check_trace_of(&told.collect::<Vec<_>>(), Some(&report), is_by_hand);
        check_order(&entries);
        drop((entries, report));
        let (made, dropped) =
            (self.0.made.load(Ordering::SeqCst), self.0.dropped.load(Ordering::SeqCst));
        assert_eq!(made, dropped, "everything is dropped, and once");
    }
}

/// What the checker has seen of one child.
#[derive(Default)]
struct Seen {
    started: u64,
    began: u64,
    stopped: u64,
    inside: Option<u64>,
    /// No run above this one may begin.
    last: Option<u64>,
}

#[track_caller]
fn check_order(entries: &[Entry]) {
    let mut children: HashMap<&str, Seen> = HashMap::new();
    let mut bodies: HashMap<u64, bool> = HashMap::new();
    let mut is_ending = false;
    let mut closed: Option<&HashMap<String, u64>> = None;
    for (position, entry) in entries.iter().enumerate() {
        let context = || excerpt(entries, position);
        let check_permitted = |seen: &Seen, id: &str, run: u64| {
            assert!(
                seen.last.is_none_or(|last| run <= last),
                "it was held or removed before:{}",
                context()
            );
            let last = closed.map(|last| last.get(id).copied().unwrap_or(0));
            assert!(
                last.is_none_or(|last| run <= last),
                "the shutdown was asked for before:{}",
                context()
            );
        };
        match entry {
            Entry::Told(event) => {
                let seen = children.entry(&event.id).or_default();
                match &event.kind {
                    EventKind::Started => {
                        check_permitted(seen, &event.id, event.run);
                        assert_eq!(
                            seen.inside,
                            None,
                            "started while a run is inside:{}",
                            context()
                        );
                        seen.started = event.run;
                    }
                    EventKind::Stopped { cause, .. } => {
                        if *cause != StopCause::NotSpawned {
                            assert_eq!(
                                seen.inside,
                                None,
                                "stopped before its last instruction:{}",
                                context()
                            );
                            assert!(
                                is_ending || seen.began == event.run,
                                "told of, and never begun:{}",
                                context()
                            );
                        }
                        seen.stopped = event.run;
                    }
                    _ => {}
                }
            }
            Entry::Began(run) => {
                let seen = children.entry(&run.id).or_default();
                assert_eq!(seen.inside.replace(run.run), None, "two runs at a time:{}", context());
                assert!(
                    seen.started == run.run && seen.stopped < run.run,
                    "its start was not told:{}",
                    context()
                );
                assert!(
                    !bodies.insert(run.body, false).unwrap_or(false),
                    "its body was dropped:{}",
                    context()
                );
                check_permitted(seen, &run.id, run.run);
                seen.began = run.run;
            }
            Entry::Left(run) => {
                let seen = children.entry(&run.id).or_default();
                assert_eq!(
                    seen.inside.take(),
                    Some(run.run),
                    "left what it had not begun:{}",
                    context()
                );
                assert!(!bodies[&run.body], "its body was dropped:{}", context());
            }
            Entry::Dropped { body } => {
                assert!(
                    !bodies.insert(*body, true).unwrap_or(false),
                    "a body is dropped twice:{}",
                    context()
                );
            }
            Entry::Denied { id, last } => children.entry(id).or_default().last = Some(*last),
            Entry::Released { id } => children.entry(id).or_default().last = None,
            Entry::Added { id } => drop(children.insert(id, Seen::default())),
            Entry::Ending => is_ending = true,
            Entry::Closed { last } => closed = closed.or(Some(last)),
        }
    }
    let inside: Vec<_> =
        children.iter().filter(|(_, seen)| seen.inside.is_some()).map(|(id, _)| id).collect();
    assert!(inside.is_empty(), "all threads have ended, but no end was seen of {inside:?}");
}

/// What happened until then, as far as it is of use.
fn excerpt(entries: &[Entry], position: usize) -> String {
    entries[position.saturating_sub(40)..=position]
        .iter()
        .map(|entry| format!("\n  {entry}"))
        .collect()
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(event) => write!(f, "{}: {} (run {})", event.id, word(event), event.run),
            Self::Began(run) => {
                write!(f, "{}: run {} begins, attempt {}", run.id, run.run, run.failures)
            }
            Self::Left(run) => write!(f, "{}: run {} leaves", run.id, run.run),
            Self::Dropped { body } => write!(f, "body {body} is dropped"),
            Self::Denied { id, last } => {
                write!(f, "{id}: held or removed, run {last} was the last")
            }
            Self::Released { id } => write!(f, "{id}: is released"),
            Self::Added { id } => write!(f, "{id}: is added"),
            Self::Ending => f.write_str("the supervisor is about to be ended"),
            Self::Closed { .. } => f.write_str("the shutdown is asked for"),
        }
    }
}

/// An error, a payload, or what a closure captures: counted as it is made and as it is dropped.
pub(crate) struct Token(Chronicle);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no")
    }
}

impl Error for Token {}
