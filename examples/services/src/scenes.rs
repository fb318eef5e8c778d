//! What happens to a server and to its consumer, and what is asserted.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildSpec, ChildStatus, Event, EventKind, ShutdownReport, StartError,
    Supervisor, WaitError,
};
use crossbeam_channel::{Receiver, unbounded};

use crate::{
    AnyResult, Producer, Service,
    ledger::{Ledger, Outbox},
    pause,
    row::Row,
    until,
};

/// How long anything may take that has no limit of its own.
const LIMIT: Duration = Duration::from_secs(60);

/// How soon the consumer has to be at work again.
const BACK_WITHIN: Duration = Duration::from_secs(1);

/// How long a stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How much longer a shutdown may take, on a machine that is busy with other things.
const SLACK: Duration = Duration::from_millis(500);

const RESTARTS: u32 = 500;

/// Plays all scenes.
pub fn play(service: impl Service) -> AnyResult<Row> {
    let mut stage = Stage {
        service,
        ledger: Arc::new(Ledger::default()),
        outbox: Arc::new(Outbox::new()),
        row: Row::default(),
    };
    stage.service.server().start()?;
    stage.wait_until_ready()?;
    stage.service.prepare()?;

    let producer = stage.producer()?;
    if let Err(error) = stage.scenes() {
        stage.service.server().thaw();
        stage.check(false, || error.to_string());
    }
    stage.balance()?;
    let report = producer.shutdown();
    stage.check(report.is_clean(), || format!("the producer: {report}"));
    Ok(stage.row)
}

struct Stage<S> {
    service: S,
    ledger: Arc<Ledger>,
    outbox: Arc<Outbox>,
    row: Row,
}

impl<S: Service> Stage<S> {
    fn scenes(&mut self) -> AnyResult<()> {
        self.outages()?;
        self.stop_while_blocked()?;
        self.stop_while_frozen()?;
        self.restarts()?;
        if self.service.has_fleet() { self.long_outage() } else { Ok(()) }
    }

    /// The server is killed and started again, frozen and thawed, twice each, under a consumer that
    /// is at work.
    fn outages(&mut self) -> AnyResult<()> {
        let consumer = self.consumer(Backoff::exponential(
            Duration::from_millis(50),
            Duration::from_millis(400),
        ))?;
        wait_until_healthy(&consumer, 0)?;
        self.outbox.allow_all(true);
        for _ in 0..2 {
            self.ledger.wait_beyond(self.ledger.total() + 100, LIMIT)?;
            log::info!("the server is killed");
            self.service.server().kill();
            pause(Duration::from_secs(2));
            self.service.server().start()?;
            self.wait_until_ready()?;
            self.wait_until_back("it was killed")?;

            self.ledger.wait_beyond(self.ledger.total() + 100, LIMIT)?;
            log::info!("the server is frozen");
            self.service.server().freeze();
            pause(Duration::from_secs(2));
            self.service.server().thaw();
            self.wait_until_back("it was frozen")?;
        }
        self.outbox.allow_all(false);
        self.wait_until_done()?;
        let report = consumer.shutdown();
        self.check(report.is_clean(), || format!("after the outages: {report}"));
        Ok(())
    }

    /// The consumer waits for messages, of which there are none.
    fn stop_while_blocked(&mut self) -> AnyResult<()> {
        for _ in 0..5 {
            let consumer = self.consumer(Backoff::default())?;
            wait_until_healthy(&consumer, 0)?;
            pause(Duration::from_millis(fastrand::u64(200..400)));
            let (report, time) = self.stop(consumer);
            log::info!("stopped while blocked: {time:?}");
            self.row.stopped_blocked = self.row.stopped_blocked.max(time);
            self.check(report.is_clean(), || format!("stopped while blocked: {report}"));
        }
        Ok(())
    }

    /// The server is frozen while the consumer waits, while it connects, and while it acknowledges.
    fn stop_while_frozen(&mut self) -> AnyResult<()> {
        let ends_calls = self.service.stops_in_a_call_to_a_frozen_server();
        let mut longest = Duration::ZERO;
        for moment in ["waits", "connects", "acknowledges"] {
            let consumer = self.consumer(Backoff::default())?;
            let first = wait_until_healthy(&consumer, 0)?;
            pause(Duration::from_millis(300));
            match moment {
                "connects" => {
                    self.service.server().freeze();
                    consumer.handle().restart("consumer")?;
                    consumer.handle().wait_for("consumer", LIMIT, |child| {
                        child.run > first && child.is_running()
                    })?;
                }
                "acknowledges" => {
                    self.ledger.close_gate();
                    self.outbox.allow_one();
                    self.ledger.wait_at_gate(LIMIT)?;
                    self.service.server().freeze();
                    self.ledger.open_gate();
                }
                _ => self.service.server().freeze(),
            }
            pause(Duration::from_millis(300));
            let (report, time) = self.stop(consumer);
            log::info!("stopped while it {moment} and the server is frozen: {time:?}; {report}");
            self.service.server().thaw();
            longest = longest.max(time);
            if ends_calls || moment == "waits" {
                self.check(report.is_clean(), || format!("stopped while it {moment}: {report}"));
            } else {
                // The shutdown has kept its limit, and says who is stuck. So that the documentation
                // is corrected when the client has learnt to stop, that would be a fault.
                let names_it = report.unstopped.iter().any(|child| child.id == "consumer");
                self.check(names_it, || {
                    format!("stops or goes unnamed while it {moment}: {report}")
                });
                until("the stuck thread ends", LIMIT, || Arc::strong_count(&self.ledger) == 1)?;
            }
        }
        self.row.stopped_frozen = longest;
        self.row.is_stuck_in_calls = !ends_calls;
        Ok(())
    }

    /// The consumer is restarted, every second time by a panic in the middle of its work.
    fn restarts(&mut self) -> AnyResult<()> {
        let consumer = self.consumer(Backoff::constant(Duration::ZERO))?;
        let mut run = wait_until_healthy(&consumer, 0)?;
        self.wait_until_done()?;
        for restart in 0..RESTARTS + 20 {
            // Some come first, so that all that is made once is there.
            if restart == 20 {
                self.row.before = resources()?;
            }
            if restart % 2 == 0 {
                consumer.handle().restart("consumer")?;
            } else {
                self.ledger.poison();
                self.outbox.allow_one();
            }
            run = wait_until_healthy(&consumer, run)?;
        }
        self.wait_until_done()?;
        let before = self.row.before;
        let is_flat = |(threads, files)| threads <= before.0 && files <= before.1;
        let _ = until("nothing is left over", Duration::from_secs(5), || {
            resources().is_ok_and(is_flat)
        });
        self.row.after = resources()?;
        self.check(is_flat(self.row.after), || String::from("restarts leave something over"));
        let report = consumer.shutdown();
        self.check(report.is_clean(), || format!("after the restarts: {report}"));
        Ok(())
    }

    /// The server is away for a minute, for five clients with default backoffs, and for five that
    /// come after a child that only looks whether it is there.
    fn long_outage(&mut self) -> AnyResult<()> {
        let connect: Arc<dyn Fn() -> AnyResult<Box<dyn Producer>> + Send + Sync> =
            self.service.connector().into();
        let client =
            |id: String, connect: &Arc<dyn Fn() -> AnyResult<Box<dyn Producer>> + Send + Sync>| {
                let connect = connect.clone();
                ChildSpec::new(id, move |ctx: &ChildContext| {
                    loop {
                        connect()?;
                        ctx.mark_healthy();
                        ctx.sleep(Duration::from_millis(100))?;
                    }
                })
            };
        let alone =
            Fleet::start((1..=5).map(|number| client(format!("client-{number}"), &connect)))?;
        let probe = client("server".into(), &connect)
            .backoff(Backoff::constant(Duration::from_millis(500)));
        let clients =
            (1..=5).map(|number| client(format!("client-{number}"), &connect).after("server"));
        let after = Fleet::start([probe].into_iter().chain(clients))?;
        for fleet in [&alone, &after] {
            fleet.supervisor.handle().wait_until_healthy(LIMIT)?;
            fleet.events.try_iter().for_each(drop);
        }
        log::info!("the server goes away for a minute");
        self.service.server().kill();
        pause(Duration::from_secs(63));
        self.service.server().start()?;
        self.wait_until_ready()?;
        let start = Instant::now();
        let (after, last) = after.wait_until_back(start)?;
        let late = last.unwrap_or(Duration::MAX);
        self.check(late <= BACK_WITHIN, || format!("{late:?} after its server"));
        let (alone, _) = alone.wait_until_back(start)?;
        log::info!(
            "five clients are back after {:?} ({} events) alone, and after {:?} ({} events) with \
             their server, {late:?} after that",
            alone.0,
            alone.1,
            after.0,
            after.1
        );
        (self.row.fleet_alone, self.row.fleet_after, self.row.fleet_late) =
            (alone.0, after.0, late);
        Ok(())
    }

    /// What was sent was processed.
    fn balance(&mut self) -> AnyResult<()> {
        let counts = self.service.counts(&self.ledger)?;
        let sent = self.outbox.confirmed() as usize;
        let missing = sent.saturating_sub(counts.len());
        self.row.messages = sent;
        self.row.lost = counts.iter().filter(|count| **count == 0).count() + missing;
        self.row.duplicated = counts.iter().map(|count| count.saturating_sub(1)).sum();
        let (lost, duplicated) = (self.row.lost, self.row.duplicated);
        self.check(lost == 0, || format!("{lost} lost"));
        let may_double = self.service.allows_duplicates();
        self.check(may_double || duplicated == 0, || format!("{duplicated} duplicated"));
        Ok(())
    }

    fn consumer(&self, backoff: Backoff) -> Result<Supervisor, StartError> {
        Supervisor::builder()
            .name("services")
            .backoff(backoff)
            .stop_timeout(STOP_TIMEOUT)
            .child(ChildSpec::new("consumer", self.service.body(self.ledger.clone())))
            .start()
    }

    /// The producer is a child, too: it fails with its connection, and goes on with the message
    /// that was not confirmed.
    fn producer(&self) -> Result<Supervisor, StartError> {
        let (connect, outbox) = (self.service.connector(), self.outbox.clone());
        let ledger = Arc::downgrade(&self.ledger);
        let forgets = self.service.forgets_what_it_confirmed();
        let mut is_pending = false;
        let body = move |ctx: &ChildContext| {
            let mut connection: Option<Box<dyn Producer>> = None;
            loop {
                let number = outbox.next(ctx, &mut is_pending)?;
                let connected = match &mut connection {
                    Some(connected) => connected,
                    None => {
                        let connected = connection.insert(connect()?);
                        ctx.mark_healthy();
                        if forgets && let Some(ledger) = ledger.upgrade() {
                            for number in ledger.first_missing()..number {
                                connected.publish(number)?;
                            }
                        }
                        connected
                    }
                };
                connected.publish(number)?;
                outbox.confirm(&mut is_pending);
            }
        };
        Supervisor::builder()
            .name("services")
            .backoff(Backoff::constant(Duration::from_millis(50)))
            .child(ChildSpec::new("producer", body))
            .start()
    }

    /// Shuts down within the limit, whether all stop or not.
    fn stop(&mut self, supervisor: Supervisor) -> (ShutdownReport, Duration) {
        let start = Instant::now();
        let report = supervisor.shutdown();
        let time = start.elapsed();
        self.check(time <= STOP_TIMEOUT + SLACK, || format!("a shutdown of {time:?}: {report}"));
        (report, time)
    }

    fn wait_until_ready(&self) -> AnyResult<()> {
        Ok(until("the server is ready", LIMIT, || self.service.is_ready())?)
    }

    /// Waits for the first message that is processed from now on.
    fn wait_until_back(&mut self, after: &str) -> AnyResult<()> {
        let (start, total) = (Instant::now(), self.ledger.total());
        self.ledger.wait_beyond(total, LIMIT)?;
        let time = start.elapsed();
        log::info!("back {time:?} after {after}");
        self.row.back_after = self.row.back_after.max(time);
        self.check(time <= BACK_WITHIN, || format!("back only {time:?} after {after}"));
        Ok(())
    }

    /// Waits until all that was allowed is sent, and what was sent is processed.
    fn wait_until_done(&self) -> AnyResult<()> {
        let mut last = (self.outbox.confirmed(), Instant::now());
        until("everything is processed", LIMIT, || {
            if self.outbox.confirmed() != last.0 {
                last = (self.outbox.confirmed(), Instant::now());
            }
            let is_quiet = last.1.elapsed() > Duration::from_millis(300);
            is_quiet && self.outbox.is_empty() && self.ledger.distinct() >= last.0
        })?;
        Ok(())
    }

    fn check(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            let fault = fault();
            log::error!("{fault}");
            self.row.faults.push(fault);
        }
    }
}

/// Five clients, and perhaps a child that they come after, with all their events.
struct Fleet {
    supervisor: Supervisor,
    events: Receiver<Event>,
}

impl Fleet {
    fn start(children: impl IntoIterator<Item = ChildSpec>) -> Result<Self, StartError> {
        let (sink, events) = unbounded();
        let builder = Supervisor::builder().name("fleet").telemetry(sink);
        Ok(Self { supervisor: builder.children(children).start()?, events })
    }

    /// Waits until all clients are healthy again. Returns how long after `start` that was, and the
    /// number of events since the outage began; and how long after their server, if that is a
    /// child.
    fn wait_until_back(self, start: Instant) -> AnyResult<((Duration, usize), Option<Duration>)> {
        self.supervisor.handle().wait_until_healthy(LIMIT)?;
        let events: Vec<Event> = self.events.try_iter().collect();
        let is_healthy = |event: &&Event| matches!(event.kind, EventKind::Healthy { .. });
        let last = |is_server: bool| {
            let healthy = events.iter().filter(is_healthy);
            let mut of_them = healthy.filter(|event| (event.id == "server") == is_server);
            of_them.next_back().map(|event| event.at)
        };
        let back = last(false).ok_or("no client was away")?;
        let late = last(true).map(|server| back.saturating_duration_since(server));
        Ok(((back.saturating_duration_since(start), events.len()), late))
    }
}

/// Waits until a later run than this one has done its work, and returns which one that is.
fn wait_until_healthy(consumer: &Supervisor, after_run: u64) -> Result<u64, WaitError> {
    let child = consumer.handle().wait_for("consumer", LIMIT, |child| {
        child.run > after_run && child.status == ChildStatus::Healthy
    })?;
    Ok(child.run)
}

/// How many threads and descriptors this process has.
fn resources() -> AnyResult<(usize, usize)> {
    let count = |folder| fs::read_dir(folder).map(|entries| entries.count());
    Ok((count("/proc/self/task")?, count("/proc/self/fd")?))
}
