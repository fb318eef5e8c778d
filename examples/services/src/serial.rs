//! Reader of a serial port, by the crate `serialport`; the line is a pair of pseudo-terminals.

use std::{
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{ChildContext, ChildResult};
use serialport::{SerialPort, TTYPort};

use crate::{
    AnyResult, Producer, Service,
    ledger::Ledger,
    server::{Server, TempDir, bound_to_us, find},
};

/// The reader.
///
/// What ends a blocked read: **the port's timeout**, and a look at the context. There is nothing
/// that could be shut down from another thread: to close a descriptor does not end a `poll` on it.
/// `flush` has no limit, since `tcdrain` waits until the other side has taken all; it is not needed
/// to send.
fn consume(ctx: &ChildContext, path: &Path, ledger: &Ledger) -> ChildResult {
    let mut port = open(path, Duration::from_millis(100))?;
    ctx.mark_healthy();
    let mut lines = Lines::default();
    while !ctx.is_stopping() {
        // A line that is pulled is an error other than a timeout, and ends the run.
        let Some(line) = lines.read(&mut port)? else { continue };
        // A line that noise has spoiled is not confirmed, and comes again.
        if let Some(number) = number_of(&line) {
            ledger.process(number);
            port.write_all(line_of(number).as_bytes())?;
        }
    }
    Ok(())
}

fn open(path: &Path, timeout: Duration) -> AnyResult<TTYPort> {
    let path = path.to_str().ok_or("a path that is not text")?;
    Ok(serialport::new(path, 115_200).timeout(timeout).open_native()?)
}

/// The number twice: the second time, it is the sum of a check.
fn line_of(number: u32) -> String {
    format!("{number} {}\n", number.wrapping_mul(2_654_435_761))
}

fn number_of(line: &str) -> Option<u32> {
    let number = line.split(' ').next()?.parse().ok()?;
    (line_of(number).trim_end() == line).then_some(number)
}

#[derive(Default)]
struct Lines {
    received: Vec<u8>,
}

impl Lines {
    /// The next line, if one is complete before the port's timeout.
    fn read(&mut self, port: &mut TTYPort) -> AnyResult<Option<String>> {
        if let Some(line) = self.next() {
            return Ok(Some(line));
        }
        let mut buffer = [0; 256];
        match port.read(&mut buffer) {
            Ok(0) => return Err("the line is gone".into()),
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.next())
    }

    fn next(&mut self) -> Option<String> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.received.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}

pub struct Serial {
    line: Server,
    ends: [PathBuf; 2],
    _folder: TempDir,
}

impl Serial {
    pub fn new() -> AnyResult<Self> {
        let (folder, program) = (TempDir::new("serial")?, find("socat", &[])?);
        let ends = ["reader", "device"].map(|end| folder.path().join(end));
        let links = ends.clone();
        let line = Server::new(&folder.path().join("log"), move || {
            let mut command = bound_to_us(&program);
            for link in &links {
                // A port that is closed does not end the line.
                command.arg(format!("pty,raw,echo=0,ignoreeof,link={}", link.display()));
            }
            command
        });
        Ok(Self { line, ends, _folder: folder })
    }
}

impl Service for Serial {
    fn server(&mut self) -> &mut Server {
        &mut self.line
    }

    /// A line that was killed leaves its links, which lead nowhere.
    fn is_ready(&self) -> bool {
        self.ends.iter().all(|end| end.exists())
    }

    fn body(&self, ledger: Arc<Ledger>) -> Box<dyn FnMut(&ChildContext) -> ChildResult + Send> {
        let path = self.ends[0].clone();
        Box::new(move |ctx| consume(ctx, &path, &ledger))
    }

    fn connector(&self) -> Box<dyn Fn() -> AnyResult<Box<dyn Producer>> + Send + Sync> {
        let path = self.ends[1].clone();
        Box::new(move || {
            let port = open(&path, Duration::from_millis(20))?;
            Ok(Box::new(Device { port, lines: Lines::default() }))
        })
    }
}

/// The device at the other end, which repeats a line until it is confirmed.
struct Device {
    port: TTYPort,
    lines: Lines,
}

impl Producer for Device {
    fn publish(&mut self, number: u32) -> AnyResult<()> {
        let limit = Instant::now() + Duration::from_secs(2);
        while Instant::now() < limit {
            self.port.write_all(line_of(number).as_bytes())?;
            let patience = Instant::now() + Duration::from_millis(200);
            while Instant::now() < patience {
                let line = self.lines.read(&mut self.port)?;
                if line.and_then(|line| number_of(&line)) == Some(number) {
                    return Ok(());
                }
            }
        }
        self.port.clear(serialport::ClearBuffer::All)?;
        Err("the reader does not confirm".into())
    }
}
