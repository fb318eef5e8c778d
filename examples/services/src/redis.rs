//! Consumer of a Redis stream, by the crate `redis`.

use std::{process::Command, sync::Arc, time::Duration};

use circuit_breaker_supervisor::{ChildContext, ChildResult};
use redis::streams::StreamReadReply;

use crate::{
    AnyResult, Producer, Service,
    ledger::Ledger,
    server::{Server, TempDir, address, bound_to_us, find, free_port},
};

const STREAM: &str = "orders";
const GROUP: &str = "workers";

/// The consumer.
///
/// What ends a blocked read: **a time limit**. The crate keeps the socket to itself, so that there
/// is nothing that `on_stop` could shut down. `BLOCK` is the server's limit, and ends nothing while
/// the server hangs; the read timeout is the client's own. It has to be longer than `BLOCK`, and
/// shorter than the child's `stop_timeout`.
fn consume(ctx: &ChildContext, port: u16, ledger: &Ledger) -> ChildResult {
    let client = redis::Client::open(format!("redis://{}/", address(port)))?;
    // The limit is for the handshake, too: a frozen server accepts connections, its kernel does so.
    // It is one for each of the two replies, so that 1.6 s may pass, which is the longest of all.
    let mut redis = client.get_connection_with_timeout(Duration::from_millis(800))?;
    redis.set_read_timeout(Some(Duration::from_millis(800)))?;
    redis.set_write_timeout(Some(Duration::from_millis(800)))?;
    let created: redis::RedisResult<()> =
        redis::cmd("XGROUP").arg(&["CREATE", STREAM, GROUP, "0", "MKSTREAM"]).query(&mut redis);
    match created {
        Err(error) if error.code() != Some("BUSYGROUP") => return Err(error.into()),
        _ => ctx.mark_healthy(),
    }
    // First what an earlier run was given and did not acknowledge, then what is new.
    let mut from = "0";
    while !ctx.is_stopping() {
        // An error, that of the timeout as well, ends the run: its reply may come after all, and
        // the next run begins with a connection of its own.
        let reply: Option<StreamReadReply> = redis::cmd("XREADGROUP")
            .arg(&["GROUP", GROUP, "one", "COUNT", "10", "BLOCK", "200", "STREAMS", STREAM, from])
            .query(&mut redis)?;
        let entries: Vec<_> = reply.into_iter().flat_map(|reply| reply.keys).collect();
        let entries: Vec<_> = entries.into_iter().flat_map(|key| key.ids).collect();
        if entries.is_empty() {
            from = ">";
        }
        for entry in entries {
            ledger.process(entry.get("number").ok_or("a message without a number")?);
            let _: u32 = redis::cmd("XACK").arg(&[STREAM, GROUP, &entry.id]).query(&mut redis)?;
        }
    }
    Ok(())
}

pub struct Redis {
    server: Server,
    port: u16,
    _folder: TempDir,
}

impl Redis {
    pub fn new() -> AnyResult<Self> {
        let (folder, port, program) =
            (TempDir::new("redis")?, free_port()?, find("redis-server", &[])?);
        let path = folder.path().to_owned();
        let server = Server::new(&folder.path().join("log"), move || {
            let mut command: Command = bound_to_us(&program);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(&path);
            // Written before the reply; that it reaches the disk matters only if the machine dies.
            command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
            command
        });
        Ok(Self { server, port, _folder: folder })
    }
}

impl Service for Redis {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn is_ready(&self) -> bool {
        let ping = || -> AnyResult<()> {
            let client = redis::Client::open(format!("redis://{}/", address(self.port)))?;
            let mut redis = client.get_connection_with_timeout(Duration::from_secs(1))?;
            redis.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(redis::cmd("PING").query(&mut redis)?)
        };
        ping().is_ok()
    }

    fn has_fleet(&self) -> bool {
        true
    }

    fn body(&self, ledger: Arc<Ledger>) -> Box<dyn FnMut(&ChildContext) -> ChildResult + Send> {
        let port = self.port;
        Box::new(move |ctx| consume(ctx, port, &ledger))
    }

    fn connector(&self) -> Box<dyn Fn() -> AnyResult<Box<dyn Producer>> + Send + Sync> {
        let port = self.port;
        Box::new(move || {
            let client = redis::Client::open(format!("redis://{}/", address(port)))?;
            let redis = client.get_connection_with_timeout(Duration::from_secs(1))?;
            redis.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(Box::new(RedisProducer(redis)))
        })
    }
}

struct RedisProducer(redis::Connection);

impl Producer for RedisProducer {
    /// The number is the id, so that the server refuses what it has already.
    fn publish(&mut self, number: u32) -> AnyResult<()> {
        let added: redis::RedisResult<String> = redis::cmd("XADD")
            .arg(&[STREAM, &format!("{number}-1"), "number", &number.to_string()])
            .query(&mut self.0);
        match added {
            Err(error) if error.to_string().contains("equal or smaller") => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}
