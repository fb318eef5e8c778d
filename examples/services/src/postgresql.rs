//! Consumer of a table in PostgreSQL that is used as a queue, by the crates `postgres` and
//! `tokio-postgres`.

use std::{
    fs,
    future::poll_fn,
    net::{Shutdown, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use circuit_breaker_supervisor::{ChildContext, ChildResult};
use postgres::{NoTls, fallible_iterator::FallibleIterator};
use tokio_postgres::AsyncMessage;

use crate::{
    AnyResult, Producer, Service,
    ledger::Ledger,
    server::{Server, TempDir, address, bound_to_us_as, find, free_port},
};

/// Taking a message and recording what was done with it is one transaction, in one statement: so
/// there are no duplicates.
const TAKE: &str = "
    WITH taken AS (
        DELETE FROM orders WHERE number = (
            SELECT number FROM orders ORDER BY number FOR UPDATE SKIP LOCKED LIMIT 1
        ) RETURNING number
    )
    INSERT INTO done (number) SELECT number FROM taken RETURNING number";

/// The consumer by `postgres`.
///
/// What ends a blocked read: **`timeout_iter`**, and a look at the context; the wait for
/// notifications is the only one in this crate that has a limit. A connection that is being made
/// and a query that waits for its answer have none (`connect_timeout` is for TCP alone,
/// `statement_timeout` and `cancel_token` need the server), and the crate keeps the socket to
/// itself: where the server hangs, the child hangs with it, and a shutdown names it.
fn consume(ctx: &ChildContext, port: u16, ledger: &Ledger) -> ChildResult {
    let mut client = client(port)?;
    client.batch_execute("LISTEN orders")?;
    ctx.mark_healthy();
    while !ctx.is_stopping() {
        let mut transaction = client.transaction()?;
        if let Some(row) = transaction.query_opt(TAKE, &[])? {
            ledger.process(row.get::<_, i32>(0).try_into()?);
            transaction.commit()?;
        } else {
            transaction.commit()?;
            wait_for_notification(ctx, &mut client)?;
        }
    }
    Ok(())
}

/// Asks nothing of the server meanwhile: the answer may never come. What arrives between two waits
/// is kept by the client.
fn wait_for_notification(ctx: &ChildContext, client: &mut postgres::Client) -> ChildResult {
    while !ctx.is_stopping() {
        if client.notifications().timeout_iter(Duration::from_millis(100)).next()?.is_some() {
            break;
        }
        // The end of the connection looks like the end of the time.
        if client.is_closed() {
            return Err("the server hung up".into());
        }
    }
    Ok(())
}

/// The consumer by `tokio-postgres`, of which `postgres` is a wrapper.
///
/// What ends a blocked read: **the socket**, a clone of which `on_stop` shuts down. `connect_raw`
/// takes a socket of ours, as `postgres` does not; so the handshake, queries and the wait for
/// notifications all end at once. The runtime is the child's own and has no thread: it runs inside
/// `block_on`, on the child's.
fn consume_by_own_socket(ctx: &ChildContext, port: u16, ledger: &Ledger) -> ChildResult {
    let stream = TcpStream::connect_timeout(&address(port), Duration::from_millis(800))?;
    let socket = stream.try_clone()?;
    let _unblock = ctx.on_stop(move || socket.shutdown(Shutdown::Both));
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let mut config = tokio_postgres::Config::new();
        config.user("postgres");
        let (mut client, mut connection) = config.connect_raw(stream, NoTls).await?;
        let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if matches!(message, AsyncMessage::Notification(_)) && arrived.send(()).is_err() {
                    return;
                }
            }
        });
        client.batch_execute("LISTEN orders").await?;
        ctx.mark_healthy();
        while !ctx.is_stopping() {
            let transaction = client.transaction().await?;
            if let Some(row) = transaction.query_opt(TAKE, &[]).await? {
                ledger.process(row.get::<_, i32>(0).try_into()?);
                transaction.commit().await?;
            } else {
                transaction.commit().await?;
                arrivals.recv().await.ok_or("the server hung up")?;
            }
        }
        Ok(())
    })
}

fn client(port: u16) -> AnyResult<postgres::Client> {
    let mut config = postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").connect_timeout(Duration::from_secs(1));
    Ok(config.connect(NoTls)?)
}

pub struct Postgres {
    server: Server,
    port: u16,
    has_own_socket: bool,
    _folder: TempDir,
}

impl Postgres {
    pub fn new(has_own_socket: bool) -> AnyResult<Self> {
        let folder = TempDir::new(if has_own_socket { "tokio-postgres" } else { "postgres" })?;
        let port = free_port()?;
        // It refuses to run as root.
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        if nix::unistd::Uid::effective().is_root() {
            let user = nix::unistd::User::from_name("postgres")?.ok_or("no user postgres")?;
            nix::unistd::chown(&data, Some(user.uid), Some(user.gid))?;
        }
        let folders = folders();
        let folders: Vec<&str> = folders.iter().filter_map(|folder| folder.to_str()).collect();
        let made = bound_to_us_as("postgres", find("initdb", &folders)?)
            .args(["--auth", "trust", "--username", "postgres", "--no-sync", "--pgdata"])
            .arg(&data)
            .current_dir(&data)
            .output()?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let program = find("postgres", &folders)?;
        let server = Server::new(&folder.path().join("log"), move || {
            let mut command = bound_to_us_as("postgres", &program);
            command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
            // No socket in a folder that is not ours. What is written outlives the process without
            // `fsync`; only the machine's end would lose it.
            command.args(["-c", "unix_socket_directories=", "-c", "fsync=off"]);
            command.current_dir(&data);
            command
        });
        Ok(Self { server, port, has_own_socket, _folder: folder })
    }
}

/// Where Debian keeps its programs, the newest first.
fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders
}

impl Service for Postgres {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn is_ready(&self) -> bool {
        client(self.port).is_ok()
    }

    fn prepare(&self) -> AnyResult<()> {
        let tables = "CREATE TABLE orders (number integer PRIMARY KEY);
            CREATE TABLE done (number integer)";
        Ok(client(self.port)?.batch_execute(tables)?)
    }

    fn body(&self, ledger: Arc<Ledger>) -> Box<dyn FnMut(&ChildContext) -> ChildResult + Send> {
        let port = self.port;
        if self.has_own_socket {
            Box::new(move |ctx| consume_by_own_socket(ctx, port, &ledger))
        } else {
            Box::new(move |ctx| consume(ctx, port, &ledger))
        }
    }

    fn connector(&self) -> Box<dyn Fn() -> AnyResult<Box<dyn Producer>> + Send + Sync> {
        let port = self.port;
        Box::new(move || Ok(Box::new(PostgresProducer(client(port)?))))
    }

    fn allows_duplicates(&self) -> bool {
        false
    }

    fn counts(&self, _: &Ledger) -> AnyResult<Vec<u32>> {
        let query = "SELECT number, count(*)::integer FROM done GROUP BY number";
        let mut counts = Vec::new();
        for row in client(self.port)?.query(query, &[])? {
            let index = usize::try_from(row.get::<_, i32>(0))? - 1;
            if counts.len() <= index {
                counts.resize(index + 1, 0);
            }
            counts[index] = u32::try_from(row.get::<_, i32>(1))?;
        }
        Ok(counts)
    }

    fn stops_in_a_call_to_a_frozen_server(&self) -> bool {
        self.has_own_socket
    }
}

struct PostgresProducer(postgres::Client);

impl Producer for PostgresProducer {
    fn publish(&mut self, number: u32) -> AnyResult<()> {
        let number = i32::try_from(number)?;
        // It may be there already, if the answer was lost; and it may be done already.
        let insert = "INSERT INTO orders (number) SELECT $1::integer
            WHERE NOT EXISTS (SELECT FROM done WHERE number = $1::integer) ON CONFLICT DO NOTHING";
        self.0.execute(insert, &[&number])?;
        self.0.batch_execute("NOTIFY orders")?;
        Ok(())
    }
}
