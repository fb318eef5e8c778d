//! A child owns a connection; others send it requests through its breaker, and are told at once
//! when the server is away.
//!
//! The requests go through a channel that outlives the child's crashes: what waits in it is served
//! by the next run.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, CallError, ChildContext, ChildResult, ChildSpec, ChildStatus, Supervisor,
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

type Request = (String, Sender<String>);
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
    let address = listener.local_addr()?;
    let (requests, inbox) = unbounded();
    let backoff = || Backoff::exponential(Duration::from_millis(50), Duration::from_millis(200));
    let client =
        ChildSpec::new("client", move |ctx| exchange(ctx, address, &inbox)).backoff(backoff());
    let breaker = client.breaker();
    let supervisor = Supervisor::builder()
        .on_event(|event| println!("    {event}"))
        .child(ChildSpec::new("server", move |ctx| serve(ctx, &listener)))
        .child(client)
        .start()?;
    let handle = supervisor.handle();
    let ask = |text: &str| {
        breaker.call(|| {
            let (reply, answer) = bounded(1);
            requests.send((text.to_owned(), reply)).map_err(|_| "nobody listens")?;
            answer.recv_timeout(LIMIT).map_err(|_| "the connection broke")
        })
    };

    println!("{}", ask("hello")?);
    handle.hold("server")?; // the server is down, and its connections with it
    handle.wait_for("client", LIMIT, |client| client.status == ChildStatus::BackingOff)?;
    match ask("is anybody there?") {
        Err(CallError::Rejected(rejected)) => println!("at once: {rejected}"),
        other => return Err(format!("this should have been rejected: {other:?}").into()),
    }
    let (reply, answer) = bounded(1);
    requests.send(("sent while all was down".to_owned(), reply))?;
    handle.release("server")?;
    println!("{}", answer.recv_timeout(LIMIT)?);
    breaker.wait_until_permitted(LIMIT)?;
    println!("{}", ask("hello again")?);
    println!("{}", supervisor.shutdown());
    Ok(())
}

/// The child that owns the connection. A request is lost only with the connection on which it was
/// sent.
fn exchange(ctx: &ChildContext, address: SocketAddr, inbox: &Receiver<Request>) -> ChildResult {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(b"knock\n")?; // a listener that nobody serves accepts connections too
    let socket = stream.try_clone()?;
    let _unblock = ctx.on_stop(move || socket.shutdown(Shutdown::Both));
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    lines.next().ok_or("the server hung up")??;
    ctx.mark_healthy();
    loop {
        crossbeam_channel::select! {
            recv(inbox) -> request => {
                let (text, reply) = request?;
                stream.write_all(format!("{text}\n").as_bytes())?;
                let _ = reply.send(lines.next().ok_or("the server hung up")??);
            }
            recv(ctx.stopped()) -> _ => return Ok(()),
            // So that a connection that broke is noticed without a request.
            default(Duration::from_millis(50)) => {
                stream.write_all(b"ping\n")?;
                lines.next().ok_or("the server hung up")??;
            }
        }
    }
}

/// The server of the example: it answers each line in capitals.
fn serve(ctx: &ChildContext, listener: &TcpListener) -> ChildResult {
    let address = listener.local_addr()?;
    let _unblock = ctx.on_stop(move || TcpStream::connect(address));
    while !ctx.is_stopping() {
        let (mut stream, _) = listener.accept()?;
        let socket = stream.try_clone()?;
        let _unblock = ctx.on_stop(move || socket.shutdown(Shutdown::Both));
        for line in BufReader::new(stream.try_clone()?).lines().map_while(Result::ok) {
            let _ = stream.write_all(format!("{}\n", line.to_uppercase()).as_bytes());
        }
    }
    Ok(())
}
