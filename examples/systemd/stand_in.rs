//! In place of systemd: starts the service, listens to what it says, and ends it when its watchdog
//! is not fed.

use std::{
    env,
    error::Error,
    fs, io,
    os::unix::{net::UnixDatagram, process::ExitStatusExt},
    path::PathBuf,
    process::{self, Child, Command, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

type AnyResult<T> = Result<T, Box<dyn Error>>;

/// How long anything may take on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(30);

/// The service has to feed its watchdog within this time.
const WATCHDOG: Duration = Duration::from_secs(2);

pub(super) fn main() -> AnyResult<()> {
    println!("all is well, until it is asked to stop");
    let mut service = Service::start("")?;
    service.until("READY=1")?;
    for _ in 0..3 {
        service.until("WATCHDOG=1")?;
    }
    service.signal(Signal::TERM)?;
    service.until("STOPPING=1")?;
    let ended = service.end()?;
    ensure(ended.success(), &service)?;
    ensure(service.count("READY=1") == 1 && service.count("STOPPING=1") == 1, &service)?;
    ensure(service.said.iter().any(|line| line.starts_with("STATUS=orders: healthy")), &service)?;

    println!("a child that hears nothing: it is abandoned, and the service ends itself");
    let mut service = Service::start("deaf")?;
    service.until("READY=1")?;
    let ended = service.end()?;
    ensure(ended.code() == Some(1), &service)?;
    ensure(service.count("STOPPING=1") == 1, &service)?;
    let is_named = |line: &String| {
        line.starts_with("STATUS=`printer` is stopping") && line.contains("waiting for the printer")
    };
    ensure(service.said.iter().any(is_named), &service)?;

    println!("a supervisor that is stuck: its watchdog is not fed, and bites");
    let mut service = Service::start("stuck")?;
    service.until("READY=1")?;
    service.until_silent()?;
    service.signal(Signal::ABORT)?;
    let ended = service.end()?;
    ensure(ended.signal() == Some(Signal::ABORT.as_raw()), &service)?;
    ensure(service.count("STOPPING=1") == 0, &service)
}

/// The service, and what it has said.
struct Service {
    process: Child,
    socket: UnixDatagram,
    path: PathBuf,
    said: Vec<String>,
}

impl Service {
    fn start(fault: &str) -> AnyResult<Self> {
        let path = env::temp_dir().join(format!("systemd-{}-{fault}", process::id()));
        let socket = UnixDatagram::bind(&path)?;
        let process = Command::new(env::current_exe()?)
            .args(["service", fault])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .spawn()?;
        Ok(Self { process, socket, path, said: Vec::new() })
    }

    /// Takes the next message, which may have several lines. Returns whether there was one in time.
    fn listen(&mut self, limit: Duration) -> AnyResult<bool> {
        self.socket.set_read_timeout(Some(limit))?;
        let mut message = [0; 4096];
        match self.socket.recv(&mut message) {
            Ok(length) => {
                let text = std::str::from_utf8(&message[..length])?;
                for line in text.lines() {
                    println!("  {line}");
                    self.said.push(line.to_owned());
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Listens until it says this once more.
    fn until(&mut self, expected: &str) -> AnyResult<()> {
        let before = self.count(expected);
        while self.count(expected) == before {
            ensure(self.listen(LIMIT)?, self)?;
        }
        Ok(())
    }

    /// Listens until its watchdog was not fed in time.
    fn until_silent(&mut self) -> AnyResult<()> {
        while self.listen(WATCHDOG)? {}
        Ok(())
    }

    fn count(&self, expected: &str) -> usize {
        self.said.iter().filter(|line| *line == expected).count()
    }

    fn signal(&self, signal: Signal) -> AnyResult<()> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Listens until it has ended.
    fn end(&mut self) -> AnyResult<ExitStatus> {
        let mut left = LIMIT;
        const LOOK: Duration = Duration::from_millis(100);
        loop {
            let ended = self.process.try_wait()?;
            while self.listen(if ended.is_some() { Duration::from_millis(1) } else { LOOK })? {}
            if let Some(status) = ended {
                return Ok(status);
            }
            left = left.checked_sub(LOOK).ok_or("it does not end")?;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.path);
    }
}

fn ensure(is_so: bool, service: &Service) -> AnyResult<()> {
    if is_so { Ok(()) } else { Err(format!("not as expected: {:#?}", service.said).into()) }
}
