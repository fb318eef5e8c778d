//! Children that use real servers, which are killed and frozen under them.
//!
//! ```sh
//! cargo run --release            # in this folder: all services, then one table
//! cargo run --release -- redis   # one of them, or several
//! ```
//!
//! For each service a program of its own, which is this one again, starts the server on a free port
//! of the loopback interface, with its data in a temporary folder, and a consumer as a supervised
//! child. `scenes.rs` has what happens to them, and what is asserted. The bodies of the consumers,
//! with what ends a blocked read of each client, are in the files named after the services.
//!
//! What a program logs is printed if something is wrong with it.
//!
//! Wanted: `redis-server`, `mosquitto`, `postgresql`, `rabbitmq-server`, `socat` and `setpriv`.
//! Linux only, since threads and descriptors are counted in `/proc`.

#![allow(
    clippy::disallowed_methods,
    reason = "the ban keeps the library's logic off the clock; this is the outside world"
)]

mod ledger;
mod mqtt;
mod postgresql;
mod rabbitmq;
mod redis;
mod row;
mod scenes;
mod serial;
mod server;

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader},
    panic,
    path::Path,
    process::{Child, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{ChildContext, ChildResult};

use crate::{
    ledger::Ledger,
    row::Row,
    server::{Server, TempDir},
};

type AnyResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

const SERVICES: [&str; 6] = ["redis", "mqtt", "postgres", "tokio-postgres", "rabbitmq", "serial"];

/// How long the program of one service may take, on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(300);

/// A service as the scenes see it.
trait Service {
    fn server(&mut self) -> &mut Server;

    /// Whether the server can do its work: this is when it has returned.
    fn is_ready(&self) -> bool;

    /// Makes what the consumer and the producer need, on a server that is ready.
    fn prepare(&self) -> AnyResult<()> {
        Ok(())
    }

    /// The body of the consumer.
    fn body(&self, ledger: Arc<Ledger>) -> Box<dyn FnMut(&ChildContext) -> ChildResult + Send>;

    /// Makes a connection of the producer.
    fn connector(&self) -> Box<dyn Fn() -> AnyResult<Box<dyn Producer>> + Send + Sync>;

    /// Whether a message may be processed more than once: at least once is what most promise.
    fn allows_duplicates(&self) -> bool {
        true
    }

    /// Whether the server may lose what it has confirmed when it is killed.
    fn forgets_what_it_confirmed(&self) -> bool {
        false
    }

    /// Whether many clients are tried in a long outage as well.
    fn has_fleet(&self) -> bool {
        false
    }

    /// How often each message was processed.
    fn counts(&self, ledger: &Ledger) -> AnyResult<Vec<u32>> {
        Ok(ledger.counts())
    }

    /// Whether the client has a way out of any call while the server is frozen.
    fn stops_in_a_call_to_a_frozen_server(&self) -> bool {
        true
    }
}

/// A connection that sends messages.
trait Producer {
    /// Sends a message; it was lost unless this returns `Ok`.
    fn publish(&mut self, number: u32) -> AnyResult<()>;
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--program", service] => program(service),
        [] => table(&SERVICES),
        ref chosen if chosen.iter().all(|service| SERVICES.contains(service)) => table(chosen),
        _ => {
            eprintln!("there are: {}", SERVICES.join(", "));
            ExitCode::FAILURE
        }
    }
}

/// The program of one service.
fn program(name: &str) -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format_timestamp_millis()
        .init();
    silence_poison();
    let outcome = match name {
        "redis" => redis::Redis::new().and_then(scenes::play),
        "mqtt" => mqtt::Mqtt::new().and_then(scenes::play),
        "postgres" => postgresql::Postgres::new(false).and_then(scenes::play),
        "tokio-postgres" => postgresql::Postgres::new(true).and_then(scenes::play),
        "rabbitmq" => rabbitmq::RabbitMq::new().and_then(scenes::play),
        "serial" => serial::Serial::new().and_then(scenes::play),
        _ => Err("an unknown service".into()),
    };
    match outcome {
        Ok(row) => {
            println!("{}", row.to_line());
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The panics that the scenes want are not printed.
fn silence_poison() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&ledger::POISON) {
            default(info);
        }
    }));
}

/// Runs the programs one after the other, and prints the table of what they found.
fn table(services: &[&str]) -> ExitCode {
    let folder = match TempDir::new("logs") {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("no folder for the logs: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut rows = Vec::new();
    for service in services {
        let (start, log) = (Instant::now(), folder.path().join(service));
        let row = run(service, &log).unwrap_or_else(|error| Row::broken(error.to_string()));
        println!("{service}: {} faults, {:.0?}", row.faults.len(), start.elapsed());
        if !row.faults.is_empty() {
            print_tail(&log);
        }
        rows.push(row);
    }
    println!("\n{}", row::table(services, &rows));
    let faults = rows.iter().map(|row| row.faults.len()).sum::<usize>();
    for (service, row) in services.iter().zip(&rows) {
        for fault in &row.faults {
            println!("{service}: {fault}");
        }
    }
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the program of one service, within the limit.
fn run(service: &str, log: &Path) -> AnyResult<Row> {
    struct KillOnDrop(Child);
    impl Drop for KillOnDrop {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    let mut command = server::bound_to_us(env::current_exe()?);
    command.args(["--program", service]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut program = KillOnDrop(command.stderr(File::create(log)?).spawn()?);
    let output = BufReader::new(program.0.stdout.take().ok_or("no output")?);
    let reader = thread::spawn(move || output.lines().map_while(Result::ok).last());
    let end = Instant::now() + LIMIT;
    let status = loop {
        match program.0.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > end => return Err("it took too long".into()),
            None => pause(Duration::from_millis(20)),
        }
    };
    let line = reader.join().ok().flatten();
    match line.as_deref().and_then(Row::from_line) {
        Some(row) if status.success() => Ok(row),
        _ => Err(format!("its program ended: {status}").into()),
    }
}

/// The scenes' own lines, and the last of all.
fn print_tail(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.len().saturating_sub(40);
    for (position, line) in lines.iter().enumerate() {
        if position >= tail || line.contains("services::") {
            println!("    {line}");
        }
    }
}

fn pause(duration: Duration) {
    thread::sleep(duration);
}

/// Waits until the condition holds.
fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<(), String> {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() > end {
            return Err(format!("waited in vain: {what}"));
        }
        pause(Duration::from_millis(5));
    }
    Ok(())
}
