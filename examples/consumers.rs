//! Queue consumers that survive a poisoned message, a garbled one, a flag that goes off and a
//! broker that is killed.
//!
//! The broker is a process of its own: this program again, started with the argument `broker`. It
//! hands out numbered messages, one topic per consumer, and keeps what was acknowledged in a file,
//! so that a new broker goes on where a killed one left off. The supervisor looks after the
//! consumers, and after the broker's process as well.
//!
//! `cargo run --example consumers` tells the whole story in less than 15 seconds, and fails unless
//! every message was acknowledged. `cargo run --example consumers -- --serve` goes on until ctrl-c:
//! edit the flag file, or kill the broker.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildResult, ChildSpec, ChildStatus, Supervisor,
};
use crossbeam_channel::{RecvTimeoutError, after, bounded, select, tick};
use parking_lot::Mutex;

const TOPICS: [&str; 3] = ["orders", "invoices", "parcels"];

/// How long anything may take on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(120);

type AnyResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> AnyResult<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(false),
        ["--serve"] => run(true),
        ["broker", owner, ledger, messages, pace] => {
            broker::main(
                owner,
                Path::new(ledger),
                messages.parse()?,
                Duration::from_millis(pace.parse()?),
            )?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Err("usage: consumers [--serve]".into()),
    }
}

fn run(serve: bool) -> AnyResult<ExitCode> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format_timestamp_millis()
        .init();
    let dir = TempDir::new()?;
    let flags = dir.0.join("flags");
    write_flags(&flags, &[])?;
    let broker = Arc::new(Broker::new(dir.0.join("ledger"), serve));

    let (its, file) = (broker.clone(), flags.clone());
    let supervisor = Supervisor::builder()
        .name("consumers")
        .backoff(Backoff::exponential(Duration::from_millis(100), Duration::from_millis(500)))
        .poll_interval(Duration::from_millis(250))
        .enabled(move |id| read_flag(&file, id))
        .child(
            ChildSpec::new("broker", move |ctx| its.run(ctx))
                .backoff(Backoff::constant(Duration::from_secs(2)).jitter(0.0)),
        )
        .children(TOPICS.map(|topic| consumer(topic, broker.clone())))
        .start()?;

    if serve {
        until_ctrl_c(&supervisor, &flags)?;
    } else {
        tell_the_story(&supervisor, &broker, &flags)?;
    }
    let acknowledged = broker.acknowledged();
    println!("\n{}\n", supervisor.handle().snapshot());
    match &acknowledged {
        Ok(counts) => {
            counts.iter().for_each(|(topic, count)| {
                println!("the broker counts {count} acknowledged {topic}")
            });
        }
        Err(error) => println!("the broker does not answer: {error}"),
    }
    let report = supervisor.shutdown();
    println!("{report}");
    let complete = serve || acknowledged.is_ok_and(|counts| broker.is_complete(&counts));
    Ok(if complete && report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Breaks one thing after the other, and waits each time until it can be seen.
fn tell_the_story(supervisor: &Supervisor, broker: &Broker, flags: &Path) -> AnyResult<()> {
    let handle = supervisor.handle();
    let reached = |topic, least| broker.acknowledged().is_ok_and(|counts| counts[topic] >= least);

    log::info!("on their way: a poisoned order and a garbled parcel");
    until("40 orders and parcels", || reached("orders", 40) && reached("parcels", 40))?;

    log::info!("the flag of `invoices` goes off");
    write_flags(flags, &["invoices"])?;
    handle.wait_for("invoices", LIMIT, |child| matches!(child.status, ChildStatus::Off { .. }))?;
    let before = broker.acknowledged()?;
    let more = (before["orders"] + 20).min(broker.messages);
    until("more orders", || reached("orders", more))?;
    let since = broker.acknowledged()?;
    // The broker may have read one more acknowledgement after the consumer had gone.
    if since["invoices"] > before["invoices"] + 1 {
        return Err("`invoices` was consumed although its flag was off".into());
    }
    log::info!(
        "the flag of `invoices` goes on: {} orders went through meanwhile",
        since["orders"] - before["orders"]
    );
    write_flags(flags, &[])?;
    let more = (since["invoices"] + 5).min(broker.messages);
    until("more invoices", || reached("invoices", more))?;

    log::info!("the broker is killed");
    let killed = handle.wait_for("broker", LIMIT, |child| child.is_running())?.run;
    broker.kill();
    let is_back =
        || handle.child("broker").is_some_and(|child| child.is_running() && child.run > killed);
    let is_felt =
        || TOPICS.iter().all(|topic| handle.child(topic).is_some_and(|child| child.failures > 0));
    until("the consumers feel it", || is_felt() || is_back())?;
    println!("\n{}\n", handle.snapshot());
    until("the broker is back", is_back)?;

    until("every message is acknowledged", || {
        broker.acknowledged().is_ok_and(|counts| broker.is_complete(&counts))
    })?;
    // Each of them is blocked in a read again, in a run in which it has done its work.
    for topic in TOPICS {
        handle.wait_for(topic, LIMIT, |child| child.is_running())?;
    }
    Ok(())
}

fn until_ctrl_c(supervisor: &Supervisor, flags: &Path) -> AnyResult<()> {
    let (pressed, ctrl_c) = bounded(1);
    ctrlc::set_handler(move || {
        let _ = pressed.try_send(());
    })?;
    println!("flags: {} (change `on` to `off`; ctrl-c ends this)", flags.display());
    while ctrl_c.recv_timeout(Duration::from_secs(10)) == Err(RecvTimeoutError::Timeout) {
        println!("\n{}\n", supervisor.handle().snapshot());
    }
    Ok(())
}

/// Waits until the condition holds.
fn until(what: &str, condition: impl Fn() -> bool) -> Result<(), String> {
    let (again, limit) = (tick(Duration::from_millis(20)), after(LIMIT));
    while !condition() {
        select! {
            recv(again) -> _ => {},
            recv(limit) -> _ => return Err(format!("waited in vain: {what}")),
        }
    }
    Ok(())
}

// ── The consumers ──

fn consumer(topic: &'static str, broker: Arc<Broker>) -> ChildSpec {
    // Captured state outlives a panic: this is how the consumer knows a poisoned message when it
    // comes again.
    let mut poisoned = None;
    ChildSpec::new(topic, move |ctx| consume(ctx, &broker, &mut poisoned))
}

fn consume(ctx: &ChildContext, broker: &Broker, poisoned: &mut Option<u32>) -> ChildResult {
    let mut stream = broker.connect(ctx.id())?;
    let socket = stream.try_clone()?;
    let _unblock = ctx.on_stop(move || socket.shutdown(Shutdown::Both)); // ends the read below
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while !ctx.is_stopping() {
        let line = lines.next().ok_or("the broker hung up")??;
        let (number, text) = line.split_once(' ').ok_or("a message without a text")?;
        let number = number.parse().map_err(|_| format!("message {number:?} is garbled"))?;
        if text == "poison" && *poisoned != Some(number) {
            *poisoned = Some(number);
            panic!("message {number} is poisoned");
        } else if text == "poison" {
            log::info!("{}: message {number} is known to be poisoned and is put aside", ctx.id());
        }
        stream.write_all(format!("{number}\n").as_bytes())?;
        ctx.mark_healthy();
    }
    Ok(())
}

// ── The broker, as its clients see it ──

struct Broker {
    ledger: PathBuf,
    messages: u32,
    pace: Duration,
    address: Mutex<Option<SocketAddr>>,
    process: Mutex<Option<process::Child>>,
}

impl Broker {
    fn new(ledger: PathBuf, serve: bool) -> Self {
        let (messages, pace) = if serve {
            (u32::MAX, Duration::from_millis(500))
        } else {
            (150, Duration::from_millis(20))
        };
        Self { ledger, messages, pace, address: Mutex::new(None), process: Mutex::new(None) }
    }

    /// The body of the child that looks after the broker's process: starts it, and is down when
    /// that is down.
    fn run(self: &Arc<Self>, ctx: &ChildContext) -> ChildResult {
        let mut process = Command::new(env::current_exe()?)
            .args(["broker", &process::id().to_string()])
            .arg(&self.ledger)
            .args([self.messages.to_string(), self.pace.as_millis().to_string()])
            .stdin(Stdio::piped()) // it ends when this does, however this program ends
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        *self.process.lock() = Some(process);
        let broker = self.clone();
        let _unblock = ctx.on_stop(move || broker.kill()); // ends the read below

        for line in BufReader::new(output).lines() {
            let address = line?.parse()?;
            log::info!("the broker listens on {address}");
            *self.address.lock() = Some(address);
            ctx.mark_healthy();
        }
        let Some(mut process) = self.process.lock().take() else {
            return Err("the process is gone".into());
        };
        process.kill()?;
        Err(format!("the broker ended: {}", process.wait()?).into())
    }

    fn kill(&self) {
        if let Some(process) = &mut *self.process.lock() {
            let _ = process.kill();
        }
    }

    /// Connects, and says what is wanted. The process id keeps us from talking to somebody else's
    /// broker.
    fn connect(&self, request: &str) -> AnyResult<TcpStream> {
        let address = self.address.lock().ok_or("the broker has not been up yet")?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.write_all(format!("{} {request}\n", process::id()).as_bytes())?;
        Ok(stream)
    }

    /// Asks how many messages of each topic have been acknowledged.
    fn acknowledged(&self) -> AnyResult<BTreeMap<&'static str, u32>> {
        let mut stream = self.connect("count")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let counts: Vec<u32> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let counts: [u32; 3] = counts.try_into().map_err(|_| "the broker broke off")?;
        Ok(TOPICS.into_iter().zip(counts).collect())
    }

    fn is_complete(&self, counts: &BTreeMap<&str, u32>) -> bool {
        counts.values().all(|count| *count == self.messages)
    }
}

// ── The broker's own process ──

mod broker {
    use std::{
        fs::{self, File},
        io::{self, BufRead, BufReader, Write},
        net::{TcpListener, TcpStream},
        path::Path,
        process,
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::Duration,
    };

    use crossbeam_channel::after;
    use parking_lot::Mutex;

    use super::TOPICS;

    struct Broker {
        owner: String,
        messages: u32,
        pace: Duration,
        ledger: Mutex<Ledger>,
        has_garbled: AtomicBool,
    }

    /// How many messages of each topic were acknowledged; the file has a line for each.
    struct Ledger {
        counts: [u32; 3],
        file: File,
    }

    pub(crate) fn main(
        owner: &str,
        ledger: &Path,
        messages: u32,
        pace: Duration,
    ) -> io::Result<()> {
        // The terminal sends ctrl-c to this process too; it ends with its parent, and not before.
        ctrlc::set_handler(|| {}).map_err(io::Error::other)?;
        let file = File::options().append(true).create(true).open(ledger)?;
        let text = fs::read_to_string(ledger)?;
        let counts = TOPICS.map(|topic| {
            u32::try_from(text.lines().filter(|line| *line == topic).count()).unwrap_or(u32::MAX)
        });
        let ledger = Mutex::new(Ledger { counts, file });
        let broker = Broker {
            owner: owner.to_owned(),
            messages,
            pace,
            ledger,
            has_garbled: AtomicBool::new(false),
        };
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("{}", listener.local_addr()?);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut io::stdin(), &mut io::sink());
                process::exit(0);
            });
            for stream in listener.incoming() {
                let stream = stream?;
                // An error is a consumer that has gone: it will be back, and is given the same
                // message again.
                scope.spawn(|| broker.serve(stream));
            }
            Ok(())
        })
    }

    impl Broker {
        fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
            let mut lines = BufReader::new(stream.try_clone()?).lines();
            let mut line =
                move || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
            let request = line()?;
            let Some((owner, request)) = request.split_once(' ') else { return Ok(()) };
            if owner != self.owner {
                return Ok(());
            }
            let Some(topic) = TOPICS.iter().position(|topic| *topic == request) else {
                return stream.write_all(
                    self.ledger.lock().counts.map(|count| format!("{count}\n")).concat().as_bytes(),
                );
            };
            loop {
                let _ = after(self.pace).recv();
                let number = self.ledger.lock().counts[topic] + 1;
                if number <= self.messages {
                    stream.write_all(self.message(topic, number).as_bytes())?;
                }
                if line()?.parse() == Ok(number) {
                    self.acknowledge(topic, number)?;
                }
            }
        }

        fn message(&self, topic: usize, number: u32) -> String {
            match (TOPICS[topic], number) {
                ("orders", 10) => format!("{number} poison\n"),
                ("parcels", 20) if !self.has_garbled.swap(true, Ordering::Relaxed) => {
                    String::from("2?0 a parcel\n")
                }
                _ => format!("{number} one of the {}\n", TOPICS[topic]),
            }
        }

        /// The file first: what it does not hold will be handed out again.
        fn acknowledge(&self, topic: usize, number: u32) -> io::Result<()> {
            let mut ledger = self.ledger.lock();
            if number == ledger.counts[topic] + 1 {
                ledger.file.write_all(format!("{}\n", TOPICS[topic]).as_bytes())?;
                ledger.counts[topic] = number;
            }
            Ok(())
        }
    }
}

// ── The flags, and where all files are ──

fn write_flags(path: &Path, off: &[&str]) -> AnyResult<()> {
    let line =
        |topic: &&str| format!("{topic} = {}\n", if off.contains(topic) { "off" } else { "on" });
    Ok(fs::write(path, TOPICS.iter().map(line).collect::<String>())?)
}

/// `None` where the file does not say, as while it is being written: then the last answer stands.
fn read_flag(path: &Path, id: &str) -> Option<bool> {
    let text = fs::read_to_string(path).ok()?;
    let value =
        text.lines().find_map(|line| line.split_once('=').filter(|(name, _)| name.trim() == id))?.1;
    match value.trim() {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> AnyResult<Self> {
        let path = env::temp_dir().join(format!("consumers-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
