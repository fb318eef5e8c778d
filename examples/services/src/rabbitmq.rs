//! Consumer of a RabbitMQ queue, by the crate `amiquip`.

use std::{
    fs,
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use amiquip::{
    AmqpProperties, Auth, Channel, Confirm, Connection, ConnectionOptions, ConnectionTuning,
    ConsumerMessage, ConsumerOptions, Exchange, Publish, Queue, QueueDeclareOptions,
};
use circuit_breaker_supervisor::{ChildContext, ChildResult};
use crossbeam_channel::Receiver;

use crate::{
    AnyResult, Producer, Service,
    ledger::Ledger,
    server::{Server, TempDir, address, bound_to_us, connect, find, free_port},
};

const QUEUE: &str = "orders";

/// The consumer.
///
/// What ends a blocked read: nothing more than **`ctx.recv`**, since what the client delivers comes
/// by a crossbeam channel. But what *follows* waits for the server: dropping the consumer and the
/// connection says good-bye and waits for the answer, as the handshake and each declaration waits
/// for its own. So the connection is made on a socket of ours, a clone of which `on_stop` shuts
/// down: the client's thread sees the end of it, and all of these calls return.
///
/// The guard is made before the connection, so that it is dropped after it: it has to be there
/// still when the connection is dropped.
fn consume(ctx: &ChildContext, port: u16, ledger: &Ledger) -> ChildResult {
    let stream = TcpStream::connect_timeout(&address(port), Duration::from_millis(800))?;
    let socket = stream.try_clone()?;
    let _unblock = ctx.on_stop(move || socket.shutdown(Shutdown::Both));
    let mut connection = open(stream)?;
    let channel = connection.open_channel(None)?;
    channel.qos(0, 10, false)?;
    let queue = declare(&channel)?;
    let consumer = queue.consume(ConsumerOptions::default())?;
    ctx.mark_healthy();
    loop {
        match ctx.recv(consumer.receiver())? {
            ConsumerMessage::Delivery(delivery) => {
                ledger.process(std::str::from_utf8(&delivery.body)?.parse()?);
                consumer.ack(delivery)?;
            }
            ended => return Err(format!("the consumer has ended: {ended:?}").into()),
        }
    }
}

fn open(stream: TcpStream) -> AnyResult<Connection> {
    stream.set_nonblocking(true)?;
    let stream = mio::net::TcpStream::from_stream(stream)?;
    // Without a limit, the handshake with a server that hangs lasts until a stop.
    let options = ConnectionOptions::<Auth>::default()
        .heartbeat(5)
        .connection_timeout(Some(Duration::from_millis(800)));
    Ok(Connection::insecure_open_stream(stream, options, ConnectionTuning::default())?)
}

fn declare(channel: &Channel) -> amiquip::Result<Queue<'_>> {
    channel.queue_declare(QUEUE, QueueDeclareOptions { durable: true, ..Default::default() })
}

pub struct RabbitMq {
    server: Server,
    port: u16,
    /// By which Erlang's nodes find one another. It would start one that stays, if there were none.
    _names: Server,
    _folder: TempDir,
}

impl RabbitMq {
    pub fn new() -> AnyResult<Self> {
        let folder = TempDir::new("rabbitmq")?;
        let (port, names_port, node_port) = (free_port()?, free_port()?, free_port()?);
        let program = find("rabbitmq-server", &["/usr/lib/rabbitmq/bin"])?;
        // The one in the path is Debian's wrapper, which changes the user and the folder.
        let debian = std::path::PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
        let program = if debian.is_file() { debian } else { program };
        let epmd = find("epmd", &[])?;
        let mut names = Server::new(&folder.path().join("names"), move || {
            let mut command = bound_to_us(&epmd);
            command.args(["-port", &names_port.to_string(), "-address", "127.0.0.1"]);
            command
        });
        names.start()?;
        let path = folder.path().to_owned();
        fs::write(path.join("plugins"), "[].")?;
        fs::write(path.join("rabbitmq.conf"), "log.console.level = warning\n")?;
        let server = Server::new(&folder.path().join("log"), move || {
            let mut command = bound_to_us(&program);
            command
                .env("HOME", &path)
                .env("ERL_EPMD_PORT", names_port.to_string())
                .env("ERL_EPMD_ADDRESS", "127.0.0.1")
                .env("RABBITMQ_NODENAME", format!("services-{port}@localhost"))
                .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
                .env("RABBITMQ_NODE_PORT", port.to_string())
                .env("RABBITMQ_DIST_PORT", node_port.to_string())
                .env("RABBITMQ_CONF_ENV_FILE", path.join("none"))
                .env("RABBITMQ_CONFIG_FILE", path.join("rabbitmq.conf"))
                .env("RABBITMQ_ENABLED_PLUGINS_FILE", path.join("plugins"))
                .env("RABBITMQ_MNESIA_BASE", path.join("data"))
                .env("RABBITMQ_LOG_BASE", path.join("logs"))
                .env("RABBITMQ_PID_FILE", path.join("pid"))
                .env("RABBITMQ_LOGS", "-")
                // Its script is replaced by the server then, instead of waiting for it.
                .env("RUNNING_UNDER_SYSTEMD", "true")
                // Idle schedulers sleep at once, since others use this machine, too.
                .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none");
            command
        });
        Ok(Self { server, port, _names: names, _folder: folder })
    }
}

impl Service for RabbitMq {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn is_ready(&self) -> bool {
        let open = || -> AnyResult<()> { Ok(open(connect(self.port)?)?.close()?) };
        open().is_ok()
    }

    fn body(&self, ledger: Arc<Ledger>) -> Box<dyn FnMut(&ChildContext) -> ChildResult + Send> {
        let port = self.port;
        Box::new(move |ctx| consume(ctx, port, &ledger))
    }

    fn connector(&self) -> Box<dyn Fn() -> AnyResult<Box<dyn Producer>> + Send + Sync> {
        let port = self.port;
        Box::new(move || {
            let mut connection = open(connect(port)?)?;
            let channel = connection.open_channel(None)?;
            declare(&channel)?;
            channel.enable_publisher_confirms()?;
            let confirms = channel.listen_for_publisher_confirms()?;
            Ok(Box::new(RabbitMqProducer { channel, confirms, _connection: connection }))
        })
    }
}

struct RabbitMqProducer {
    channel: Channel,
    confirms: Receiver<Confirm>,
    _connection: Connection,
}

impl Producer for RabbitMqProducer {
    fn publish(&mut self, number: u32) -> AnyResult<()> {
        let number = number.to_string();
        let persistent = AmqpProperties::default().with_delivery_mode(2);
        Exchange::direct(&self.channel).publish(Publish::with_properties(
            number.as_bytes(),
            QUEUE,
            persistent,
        ))?;
        match self.confirms.recv_timeout(Duration::from_secs(5))? {
            Confirm::Ack(_) => Ok(()),
            Confirm::Nack(_) => Err("the server refused it".into()),
        }
    }
}
