//! Consumer of an MQTT topic, by the synchronous client of the crate `rumqttc`.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{ChildContext, ChildResult};
use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS, RecvTimeoutError};

use crate::{
    AnyResult, Producer, Service,
    ledger::Ledger,
    server::{Server, TempDir, bound_to_us, connect, find, free_port},
};

const TOPIC: &str = "orders";

/// The consumer.
///
/// What ends a blocked read: **`recv_timeout`**, and a look at the context. The crate keeps the
/// socket to itself. `Client::disconnect` is no way out of everything: it is a request in a queue,
/// which is read only once the connection is there, so that it waits for a server that hangs.
///
/// A `recv_timeout` that is over while the client connects drops the attempt, and the next call
/// begins a new one: a short limit there may never connect. Hence the two limits.
fn consume(ctx: &ChildContext, port: u16, ledger: &Ledger) -> ChildResult {
    let mut options = MqttOptions::new("consumer", "127.0.0.1", port);
    // The server keeps what comes while the consumer is away. It is acknowledged when it is done.
    options.set_clean_session(false).set_manual_acks(true).set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 100);
    let connected = event(&mut connection, Duration::from_millis(800))?;
    if !matches!(connected, Some(Event::Incoming(Packet::ConnAck(_)))) {
        return Err("the server does not answer".into());
    }
    client.try_subscribe(TOPIC, QoS::AtLeastOnce)?;
    while !ctx.is_stopping() {
        match event(&mut connection, Duration::from_millis(100))? {
            Some(Event::Incoming(Packet::SubAck(_))) => ctx.mark_healthy(),
            Some(Event::Incoming(Packet::Publish(message))) => {
                ledger.process(std::str::from_utf8(&message.payload)?.parse()?);
                // `ack` would wait for room in a queue that only this thread empties. It is sent by
                // the next `recv_timeout`; what a stop leaves in the queue is delivered once more.
                client.try_ack(&message)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The next event, if there is one in time. An error is that of the connection.
fn event(connection: &mut Connection, limit: Duration) -> AnyResult<Option<Event>> {
    match connection.recv_timeout(limit) {
        Ok(event) => Ok(Some(event?)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err("the client is gone".into()),
    }
}

pub struct Mqtt {
    server: Server,
    port: u16,
    _folder: TempDir,
}

impl Mqtt {
    pub fn new() -> AnyResult<Self> {
        let (folder, port, program) =
            (TempDir::new("mqtt")?, free_port()?, find("mosquitto", &[])?);
        let config = folder.path().join("conf");
        // Without a user it would become one that may not write here.
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser {}\npersistence true\n\
             persistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n\
             max_queued_messages 0\nmax_inflight_messages 20\n",
            if nix::unistd::Uid::effective().is_root() { "root" } else { "mosquitto" },
            folder.path().display(),
        );
        fs::write(&config, text)?;
        let server = Server::new(&folder.path().join("log"), move || {
            let mut command = bound_to_us(&program);
            command.arg("-c").arg(&config);
            command
        });
        Ok(Self { server, port, _folder: folder })
    }
}

impl Service for Mqtt {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn is_ready(&self) -> bool {
        connect(self.port).is_ok()
    }

    fn body(&self, ledger: Arc<Ledger>) -> Box<dyn FnMut(&ChildContext) -> ChildResult + Send> {
        let port = self.port;
        Box::new(move |ctx| consume(ctx, port, &ledger))
    }

    fn connector(&self) -> Box<dyn Fn() -> AnyResult<Box<dyn Producer>> + Send + Sync> {
        let port = self.port;
        Box::new(move || {
            let mut options = MqttOptions::new("producer", "127.0.0.1", port);
            options.set_keep_alive(Duration::from_secs(5));
            let (client, mut connection) = Client::new(options, 10);
            match event(&mut connection, Duration::from_secs(1))? {
                Some(Event::Incoming(Packet::ConnAck(_))) => {
                    Ok(Box::new(MqttProducer { client, connection }))
                }
                _ => Err("the server does not answer".into()),
            }
        })
    }

    /// Mosquitto confirms first and writes its file then; killed in between, it forgets what it has
    /// confirmed. So its word is good for a connection, and the rest is sent again on the next one.
    fn forgets_what_it_confirmed(&self) -> bool {
        true
    }
}

struct MqttProducer {
    client: Client,
    connection: Connection,
}

impl Producer for MqttProducer {
    fn publish(&mut self, number: u32) -> AnyResult<()> {
        self.client.try_publish(TOPIC, QoS::AtLeastOnce, false, number.to_string())?;
        let limit = Instant::now() + Duration::from_secs(1);
        while Instant::now() < limit {
            let answer = event(&mut self.connection, Duration::from_millis(100))?;
            if matches!(answer, Some(Event::Incoming(Packet::PubAck(_)))) {
                return Ok(());
            }
        }
        Err("the server does not confirm".into())
    }
}
