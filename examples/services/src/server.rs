//! Servers as processes that are killed, frozen and started again.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};

use crate::{AnyResult, pause};

/// Process of a server, which is killed with all that it has started when this is dropped.
pub struct Server {
    command: Box<dyn Fn() -> Command>,
    log: PathBuf,
    process: Option<Child>,
}

impl Server {
    /// `command` makes the command anew for each start. It must not go to the background.
    pub fn new(log: &Path, command: impl Fn() -> Command + 'static) -> Self {
        Self { command: Box::new(command), log: log.to_owned(), process: None }
    }

    /// Starts it; it may not be ready yet.
    pub fn start(&mut self) -> AnyResult<()> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = (self.command)();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Keys like ctrl-c are for us alone.
        command.process_group(0);
        let process = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it with SIGKILL, and all that it has started.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = pid_of(&process);
        // Frozen first, so that none of them starts another one meanwhile.
        let all = signal_all(pid, Signal::SIGSTOP);
        for pid in &all {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let _ = process.wait();
        let limit = Instant::now() + Duration::from_secs(10);
        while all.iter().any(|pid| is_alive(*pid)) && Instant::now() < limit {
            pause(Duration::from_millis(5));
        }
    }

    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            signal_all(pid_of(process), signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pid_of(process: &Child) -> Pid {
    Pid::from_raw(i32::try_from(process.id()).expect("a process id is an i32"))
}

/// Sends the signal to a process of ours and to its descendants, some of which may have a session
/// of their own. Returns all of them.
fn signal_all(root: Pid, signal: Signal) -> Vec<Pid> {
    let mut all = vec![root];
    let _ = kill(root, signal);
    let mut position = 0;
    while let Some(parent) = all.get(position).copied() {
        for child in children_of(parent) {
            let _ = kill(child, signal);
            all.push(child);
        }
        position += 1;
    }
    all
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(Pid::from_raw(*pid)).is_some_and(|(_, its)| its == parent.as_raw()))
        .map(Pid::from_raw)
        .collect()
}

/// A zombie that its new parent has not waited for is not alive.
fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The state and the parent of a process.
fn stat(pid: Pid) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// A command that dies with this process, however this one ends.
///
/// The kernel sends the signal when the *thread* ends that has started it: that is `main` here.
pub fn bound_to_us(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// The same as another user, if we are root and the server does not want to be.
pub fn bound_to_us_as(user: &str, program: impl AsRef<Path>) -> Command {
    if !Uid::effective().is_root() {
        return bound_to_us(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", "--pdeathsig", "KILL", "--"]);
    command.arg(program.as_ref());
    command
}

/// Where a program is: in the path, or where Debian keeps it.
pub fn find(program: &str, more: &[&str]) -> AnyResult<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders =
        path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]).chain(more.iter().copied());
    let found = folders.map(|folder| Path::new(folder).join(program)).find(|file| file.is_file());
    Ok(found.ok_or_else(|| format!("there is no {program}"))?)
}

/// A free port on the loopback interface.
///
/// It lies below those that the kernel gives to clients: otherwise a client that connects while the
/// server is down may be given the server's port as its own, and is connected to itself.
pub fn free_port() -> AnyResult<u16> {
    for _ in 0..1000 {
        let port = fastrand::u16(20_000..30_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("there is no free port".into())
}

/// Connects to a port of ours, for probes and producers.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address(port), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(stream)
}

pub fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Folder that is removed when this is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> AnyResult<Self> {
        let path = std::env::temp_dir().join(format!("services-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
