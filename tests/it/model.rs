//! The supervisor on virtual time beside one that was written from the documentation alone:
//! whatever a test does, both say the same.

use std::{
    collections::BTreeMap,
    env, fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    Backoff, ChildSpec, Event, EventKind, Exit, RestartPolicy, ShutdownCause, Simulation,
    StopCause, Supervisor, Verdict, WaitError, WaitingFor,
};
use parking_lot::Mutex;
use proptest::{
    prelude::*,
    sample::{select, subsequence},
    test_runner::{Config, RngSeed},
};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use crate::{program::*, reference::Reference, support::*};

const IDS: [Id; 4] = ["a", "b", "c", "d"];

fn config() -> Config {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    // The normal run tries the same cases each time, so that it fails only for what has changed.
    if env::var_os("PROPTEST_CASES").is_none() && config.rng_seed == RngSeed::Random {
        // These find all the deliberate faults with which the test was tried; 256 cases do not.
        config.rng_seed = RngSeed::Fixed(4);
        config.cases = 4096;
    }
    config
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn supervisor_does_what_its_documentation_says(sequential 1..40 => Documented);
}

// ── What is tried ──

/// Of whom a child comes after, in any order.
fn befores() -> impl Strategy<Value = Vec<Id>> {
    prop_oneof![
        1 => Just(Vec::new()),
        1 => subsequence(IDS.to_vec(), 1..=3).prop_shuffle(),
    ]
}

/// The children that there are at first: none comes after one that is not among them, or runs only
/// once, and the order of the ranks allows no circle.
fn first_specs() -> impl Strategy<Value = Vec<Spec>> {
    let specs = (1..=IDS.len())
        .prop_flat_map(|count| IDS[..count].iter().map(|id| spec(Just(*id))).collect::<Vec<_>>());
    let ranks = Just(IDS.to_vec()).prop_shuffle();
    (specs, prop::bool::weighted(0.7), ranks).prop_map(|(mut specs, has_after, ranks)| {
        let rank = |id: Id| ranks.iter().position(|other| *other == id);
        let can_be_before: Vec<Id> =
            specs.iter().filter(|spec| spec.policy != Policy::Once).map(|spec| spec.id).collect();
        for spec in &mut specs {
            let its = rank(spec.id);
            spec.after.retain(|id| has_after && can_be_before.contains(id) && rank(id) < its);
        }
        specs
    })
}

/// A child of any kind; the first of each choice is the plain one, to which a failing case shrinks.
fn spec(id: impl Strategy<Value = Id>) -> impl Strategy<Value = Spec> {
    let constant = |millis| Delays::Constant(Duration::from_millis(millis));
    let delays = vec![constant(3000), Delays::Doubling, constant(0), Delays::Constant(MAX)];
    (
        (
            id,
            select(vec![Policy::Permanent, Policy::Permanent, Policy::Transient, Policy::Once]),
            select(delays),
        ),
        select(vec![10 * SECOND, 2 * SECOND, Duration::ZERO, MAX]),
        select(vec![5 * SECOND, SECOND, MAX]),
        (
            select(vec![None, None, Some(2), Some(1), Some(0)]),
            prop::bool::weighted(0.2),
            any::<bool>(),
        ),
        (
            select(vec![None, Some(Duration::from_nanos(4_000_000_011))]),
            select(vec![3u32, 2, 1]),
            befores(),
            select(vec![None, None, None, Some(3_000_000_019), Some(700_000_019)]),
        ),
    )
        .prop_map(
            |(
                (id, policy, delays),
                healthy_after,
                stop_timeout,
                (max_restarts, significant, fresh_thread),
                rest,
            )| {
                Spec {
                    id,
                    policy,
                    delays,
                    healthy_after,
                    stop_timeout,
                    max_restarts,
                    significant,
                    fresh_thread,
                    watchdog: rest.0,
                    failure_threshold: rest.1,
                    after: rest.2,
                    abandon_after: rest.3.map(Duration::from_nanos),
                }
            },
        )
}

/// How far to go: to some deadline, a little less or more, or anywhere.
fn durations(reference: &Reference) -> impl Strategy<Value = Duration> + use<> {
    let nano = Duration::from_nanos(1);
    let mut durations = vec![Duration::ZERO];
    for left in reference.deadlines().iter().take(4).filter_map(|at| at.checked_sub(reference.now))
    {
        durations.extend([left, left.saturating_sub(nano), left + MS]);
    }
    let anywhere = (1..60u64).prop_map(|quarters| Duration::from_millis(250 * quarters));
    prop_oneof![3 => select(durations), 1 => anywhere]
}

/// How long a child may be deaf to stops.
fn deafness(id: impl Strategy<Value = Id>) -> impl Strategy<Value = Transition> {
    let millis = select(vec![Some(0), None, Some(50), Some(1500), Some(6000)]);
    (id, millis).prop_map(|(id, millis)| {
        let odd = (70_007..).zip(IDS).find(|(_, other)| *other == id).map_or(0, |(odd, _)| odd);
        let duration = match millis {
            Some(0) => Duration::ZERO,
            Some(millis) => Duration::from_millis(millis) + Duration::from_nanos(odd),
            None => MAX,
        };
        Transition::IgnoreStopFor(id, duration)
    })
}

/// What a case begins with, and how far it has come.
#[derive(Clone)]
struct State {
    specs: Vec<Spec>,
    /// How many runs may start in one second.
    rate: Option<u32>,
    reference: Reference,
}

/// Shows how to begin; the transitions are shown beside it.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (&self.specs, self.rate).fmt(f)
    }
}

struct Documented;

impl ReferenceStateMachine for Documented {
    type State = State;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self::State> {
        let rate = prop_oneof![3 => Just(None), 1 => (1..3u32).prop_map(Some)];
        (first_specs(), rate)
            .prop_map(|(mut specs, rate)| {
                // The documentation does not say in which order the first turns of a start rate
                // and the first looks at those that wait come; those that are added may wait.
                if rate.is_some() {
                    specs.iter_mut().for_each(|spec| spec.after.clear());
                }
                State { reference: Reference::new(&specs, rate), specs, rate }
            })
            .boxed()
    }

    fn transitions(State { reference, .. }: &State) -> BoxedStrategy<Transition> {
        let change = (select(IDS.to_vec()), select(vec![Some(true), Some(false), None]))
            .prop_map(|(id, answer)| Transition::Flag(id, answer));
        if reference.has_to_settle() {
            return prop_oneof![
                6 => durations(reference).prop_map(Transition::Advance),
                2 => change,
                1 => select(IDS.to_vec()).prop_map(Transition::FailNextSpawn),
                1 => deafness(select(IDS.to_vec())),
            ]
            .boxed();
        }
        let listed: Vec<Id> = reference.children.iter().map(|child| child.spec.id).collect();
        // Now and then one that is not listed.
        let id = move || {
            if listed.is_empty() {
                select(IDS.to_vec()).boxed()
            } else {
                prop_oneof![15 => select(listed.clone()), 1 => select(IDS.to_vec())].boxed()
            }
        };
        let endings = vec![Ending::Failed, Ending::Completed, Ending::Panicked];
        let orders = vec![
            Order::Hold,
            Order::Release,
            Order::Restart,
            Order::Reset,
            Order::Release,
            Order::Remove,
        ];
        prop_oneof![
            12 => durations(reference).prop_map(Transition::Advance),
            8 => (id(), select(endings)).prop_map(|(id, ending)| Transition::Exit(id, ending)),
            1 => (id(), (1..9u64).prop_map(Duration::from_secs))
                .prop_map(|(id, wait)| Transition::Demand(id, wait)),
            4 => id().prop_map(Transition::MarkHealthy),
            4 => (id(), select(vec!["reading", "writing"]))
                .prop_map(|(id, doing)| Transition::Heartbeat(id, doing)),
            3 => (id(), select(vec![Some(true), Some(false), None]))
                .prop_map(|(id, answer)| Transition::Flag(id, answer)),
            10 => (id(), select(orders)).prop_map(|(id, order)| Transition::Order(id, order)),
            2 => spec(select(IDS.to_vec())).prop_map(Transition::Add),
            2 => Just(Transition::PollNow),
            1 => prop::bool::weighted(0.3)
                .prop_map(|is_it| if is_it { Transition::Shutdown } else { Transition::PollNow }),
            6 => id().prop_map(Transition::ReportFailure),
            1 => id().prop_map(Transition::ReportSuccess),
            2 => id().prop_map(Transition::FailNextSpawn),
            3 => deafness(id()),
        ]
        .boxed()
    }

    fn preconditions(State { reference, .. }: &State, transition: &Transition) -> bool {
        let comes_after = matches!(transition, Transition::Add(spec) if !spec.after.is_empty());
        if reference.is_starting_in_turns() && matches!(transition, Transition::FailNextSpawn(_)) {
            return false;
        }
        let asks_nothing = matches!(
            transition,
            Transition::Advance(_)
                | Transition::Flag(..)
                | Transition::FailNextSpawn(_)
                | Transition::IgnoreStopFor(..)
        );
        asks_nothing || !(reference.has_to_settle() || comes_after && reference.is_asked())
    }

    fn apply(mut state: State, transition: &Transition) -> State {
        // Here it only guides the choice; which silences are noticed when, a real one has to say.
        state.reference.apply(transition, None);
        state
    }
}

// ── What is compared ──

struct Pair {
    simulation: Simulation,
    reference: Reference,
    flags: Arc<Mutex<BTreeMap<Id, Option<bool>>>>,
    /// How many events were looked at.
    seen: usize,
    told: BTreeMap<Id, Vec<Told>>,
    runs: BTreeMap<Id, u64>,
}

impl StateMachineTest for Documented {
    type SystemUnderTest = Pair;
    type Reference = Self;

    fn init_test(State { specs, rate, .. }: &State) -> Pair {
        let flags = Arc::new(Mutex::new(BTreeMap::new()));
        let its = flags.clone();
        let builder = Supervisor::builder()
            .poll_interval(POLL)
            .telemetry(())
            .enabled(move |id| its.lock().get(id).copied().unwrap_or(Some(true)))
            .children(specs.iter().map(describe));
        let builder = match rate {
            Some(most) => builder.max_starts_per_second(*most),
            None => builder,
        };
        Pair {
            simulation: Simulation::new(builder, 1).unwrap(),
            reference: Reference::new(specs, *rate),
            flags,
            seen: 0,
            told: BTreeMap::new(),
            runs: BTreeMap::new(),
        }
    }

    fn apply(mut pair: Pair, _: &State, transition: Transition) -> Pair {
        let was_accepted = pair.perform(&transition);
        let hangs = pair.take_events();
        let is_accepted = pair.reference.apply(&transition, Some(&hangs));
        assert_eq!(was_accepted, is_accepted, "whether it is accepted: {transition:?}");
        pair.compare();
        pair
    }

    fn teardown(pair: Pair, _: State) {
        let report = pair.simulation.handle().wait_until_stopped(Duration::ZERO).ok();
        check_trace(pair.simulation.events(), report.as_ref(), true);
    }
}

fn describe(spec: &Spec) -> ChildSpec {
    let body = |_: &_| unreachable!("a simulation calls no body");
    let described = match spec.policy {
        Policy::Once => ChildSpec::once(spec.id, body),
        Policy::Permanent => ChildSpec::new(spec.id, body),
        Policy::Transient => ChildSpec::new(spec.id, body).restart(RestartPolicy::Transient),
    };
    let backoff = match spec.delays {
        Delays::Constant(delay) => Backoff::constant(delay),
        Delays::Doubling => Backoff::exponential(SECOND, 8 * SECOND),
    };
    let described = described
        .backoff(backoff.jitter(0.0))
        .healthy_after(spec.healthy_after)
        .stop_timeout(spec.stop_timeout)
        .significant(spec.significant)
        .fresh_thread(spec.fresh_thread)
        .failure_threshold(spec.failure_threshold)
        .watchdog(spec.watchdog.unwrap_or(MAX))
        .abandon_after(spec.abandon_after.unwrap_or(MAX));
    let described = spec.after.iter().fold(described, |described, id| described.after(*id));
    match spec.max_restarts {
        Some(most) => described.max_restarts(most),
        None => described,
    }
}

fn known_id(id: &str) -> Id {
    IDS.into_iter().find(|known| *known == id).unwrap()
}

fn waits_for(waiting: &WaitingFor) -> WaitsFor {
    WaitsFor { id: known_id(&waiting.id), root: known_id(&waiting.root) }
}

fn ending(exit: &Exit) -> Ending {
    match exit {
        Exit::Completed => Ending::Completed,
        Exit::Failed(_) => Ending::Failed,
        Exit::Panicked(_) => Ending::Panicked,
        other => panic!("unexpected: {other}"),
    }
}

impl Pair {
    /// Does it to the simulation. Returns whether that was accepted.
    fn perform(&mut self, transition: &Transition) -> bool {
        let Self { simulation, flags, .. } = self;
        let handle = simulation.handle().clone();
        match *transition {
            Transition::Advance(duration) => simulation.advance(duration),
            Transition::Exit(id, ending) => {
                let exit = match ending {
                    Ending::Completed => Exit::Completed,
                    Ending::Failed => Exit::failed("no"),
                    Ending::Panicked => Exit::panicked("no"),
                };
                return simulation.exit(id, exit).is_ok();
            }
            Transition::Demand(id, wait) => {
                let error = Verdict::retry_after(wait, "no");
                return simulation.exit(id, Exit::failed(error)).is_ok();
            }
            Transition::MarkHealthy(id) => return simulation.mark_healthy(id).is_ok(),
            Transition::Heartbeat(id, doing) => return simulation.heartbeat(id, doing).is_ok(),
            Transition::Flag(id, answer) => drop(flags.lock().insert(id, answer)),
            Transition::Order(_, Order::Add) => unreachable!("that is another transition"),
            Transition::Order(id, Order::Hold) => return handle.hold(id).is_ok(),
            Transition::Order(id, Order::Release) => return handle.release(id).is_ok(),
            Transition::Order(id, Order::Restart) => return handle.restart(id).is_ok(),
            Transition::Order(id, Order::Reset) => return handle.reset(id).is_ok(),
            Transition::Order(id, Order::Remove) => return handle.remove(id).is_ok(),
            Transition::Add(ref spec) => return handle.add(describe(spec)).is_ok(),
            Transition::PollNow => return handle.poll_now().is_ok(),
            Transition::Shutdown => handle.request_shutdown(),
            Transition::ReportFailure(id) => {
                return handle.breaker(id).map(|breaker| breaker.report_failure("no")).is_some();
            }
            Transition::ReportSuccess(id) => {
                return handle.breaker(id).map(|breaker| breaker.report_success()).is_some();
            }
            Transition::FailNextSpawn(id) => simulation.fail_next_spawn(id),
            Transition::IgnoreStopFor(id, duration) => simulation.ignore_stop_for(id, duration),
        }
        true
    }

    /// Notes what was told since the last time. Returns the silences that were noticed.
    fn take_events(&mut self) -> Vec<(Duration, Id)> {
        let origin = self.simulation.origin();
        let mut hangs = Vec::new();
        for event in &self.simulation.events()[self.seen..] {
            let id = known_id(&event.id);
            let told = told(event, origin);
            let never_ran = matches!(told.what, What::Stopped { cause: StopCause::NotSpawned, .. });
            if told.what == What::Ordered(Order::Add) {
                self.runs.remove(id);
            }
            let is_first = never_ran || told.what == What::Started;
            if is_first {
                let last = self.runs.insert(id, event.run).unwrap_or(0);
                assert_eq!(event.run, last + 1, "starts are counted: {event}");
            }
            assert_eq!(
                event.run,
                self.runs.get(id).copied().unwrap_or(0),
                "it is about the child's last run: {event}"
            );
            if let What::Hung { .. } = told.what {
                hangs.push((told.at, id));
            }
            self.told.entry(id).or_default().push(told);
        }
        self.seen = self.simulation.events().len();
        hangs
    }

    fn compare(&self) {
        let Self { simulation, reference, .. } = self;
        let handle = simulation.handle();
        for id in IDS {
            assert_eq!(self.told.get(id), reference.told.get(id), "what is told of {id}");
        }
        let listed: Vec<_> =
            handle.snapshot().children.iter().map(|child| child.id.to_string()).collect();
        let expected: Vec<_> = reference.children.iter().map(|child| child.spec.id).collect();
        assert_eq!(listed, expected, "the list");
        for id in expected {
            let info = handle.child(id).unwrap();
            let shown = Shown {
                status: info.status,
                circuit: info.circuit,
                failures: info.failures,
                retry_in: info.retry_in,
                waits_for: info.waiting_for.as_ref().map(waits_for),
                uptime: info.uptime,
                stopping: info.stopping,
                is_overdue: info.is_overdue,
                last_stop: info.last_stop.map(|stop| (stop.cause, ending(&stop.exit), stop.uptime)),
            };
            assert_eq!(Some(shown), reference.shown(id), "what is shown of {id}");
            assert_eq!(
                handle.breaker(id).map(|breaker| breaker.state()),
                reference.breaker(id),
                "the breaker of {id}"
            );
        }
        assert_eq!(
            handle.snapshot().is_healthy(),
            reference.is_well(),
            "whether all is well:\n{}",
            handle.snapshot()
        );
        match handle.wait_until_stopped(Duration::ZERO) {
            Ok(report) => {
                assert!(reference.has_ended, "it has ended: {report}");
                let (gave_up, abandoned) = match &report.cause {
                    ShutdownCause::GaveUp(child) => (Some(known_id(&child.id)), None),
                    ShutdownCause::Abandoned(child) => (None, Some(known_id(&child.id))),
                    _ => (None, None),
                };
                assert_eq!((gave_up, abandoned), (reference.gave_up, reference.abandoned));
            }
            Err(WaitError::TimedOut(None)) => assert!(!reference.has_ended, "it has not ended"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn told(event: &Event, origin: Instant) -> Told {
    let what = match &event.kind {
        EventKind::Started => What::Started,
        EventKind::Stopped { cause, exit, uptime, retry_in, .. } => What::Stopped {
            cause: *cause,
            ending: ending(exit),
            uptime: *uptime,
            retry_in: *retry_in,
        },
        EventKind::Healthy { forgiven, failing_for, marked, .. } => {
            What::Healthy { forgiven: *forgiven, failing_for: *failing_for, marked: *marked }
        }
        EventKind::FlagChanged { enabled, .. } => What::FlagChanged(*enabled),
        EventKind::Waiting { waiting_for, .. } => What::Waiting(waits_for(waiting_for)),
        EventKind::Overdue { stopping_for, .. } => What::Overdue { stopping_for: *stopping_for },
        EventKind::Abandoned { stopping_for, .. } => {
            What::Abandoned { stopping_for: *stopping_for }
        }
        EventKind::Tripped { failures, .. } => What::Tripped { failures: *failures },
        EventKind::Hung { doing, .. } => What::Hung { doing: doing.clone() },
        EventKind::GaveUp => What::GaveUp,
        EventKind::Ordered { order, .. } => What::Ordered(match order {
            circuit_breaker_supervisor::Order::Add => Order::Add,
            circuit_breaker_supervisor::Order::Hold => Order::Hold,
            circuit_breaker_supervisor::Order::Release => Order::Release,
            circuit_breaker_supervisor::Order::Restart => Order::Restart,
            circuit_breaker_supervisor::Order::Reset => Order::Reset,
            circuit_breaker_supervisor::Order::Remove => Order::Remove,
            other => panic!("unexpected: {other}"),
        }),
        other => panic!("unexpected: {other:?}"),
    };
    Told { at: event.at - origin, failures: event.failures, what }
}
