//! A TCP server: one child accepts, and adds a child of its own for each connection.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use circuit_breaker_supervisor::{ChildContext, ChildResult, ChildSpec, Supervisor};

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut accepted = 0; // lives on from run to run, so that no id is used twice
    let supervisor = Supervisor::builder()
        .on_event(|event| println!("  {event}"))
        .child(ChildSpec::new("listener", move |ctx| accept(ctx, &listener, &mut accepted)))
        .start()?;
    let handle = supervisor.handle();

    let (mut first, mut second) = (connect(address)?, connect(address)?);
    assert_eq!(ask(&mut first, "hello")?, "HELLO\n");
    assert_eq!(ask(&mut second, "hello to you")?, "HELLO TO YOU\n");
    println!("{}", handle.snapshot());

    println!("the second client sends what its child cannot bear; the first is served on");
    assert_eq!(ask(&mut second, "bomb")?, "", "its connection is closed");
    handle.wait_until_gone("connection-2", LIMIT)?;
    assert_eq!(ask(&mut first, "still there?")?, "STILL THERE?\n");
    println!("{}", handle.snapshot());

    println!("a shutdown ends the blocked accept, and the blocked read of the first connection");
    let report = supervisor.shutdown();
    println!("{report}");
    if report.is_clean() { Ok(()) } else { Err("all should have stopped".into()) }
}

/// The listener's body.
fn accept(ctx: &ChildContext, listener: &TcpListener, accepted: &mut u32) -> ChildResult {
    let address = listener.local_addr()?;
    let _unblock =
        ctx.on_stop(move || TcpStream::connect_timeout(&address, Duration::from_secs(1)));
    loop {
        let (stream, _) = listener.accept()?;
        if ctx.is_stopping() {
            return Ok(()); // it may have been the callback that connected
        }
        *accepted += 1;
        let connection =
            ChildSpec::once(format!("connection-{accepted}"), move |ctx| serve(ctx, stream));
        ctx.supervisor().add(connection)?;
        ctx.mark_healthy();
    }
}

/// A connection's body: it says everything louder.
fn serve(ctx: &ChildContext, stream: TcpStream) -> ChildResult {
    let (socket, mut answers) = (stream.try_clone()?, stream.try_clone()?);
    let _unblock = ctx.on_stop(move || socket.shutdown(Shutdown::Both));
    for line in BufReader::new(stream).lines() {
        let line = line?;
        assert!(line != "bomb", "cannot say this any louder");
        answers.write_all(format!("{}\n", line.to_uppercase()).as_bytes())?;
    }
    Ok(())
}

fn connect(address: SocketAddr) -> Result<BufReader<TcpStream>, Box<dyn Error>> {
    let client = TcpStream::connect(address)?;
    client.set_read_timeout(Some(LIMIT))?;
    Ok(BufReader::new(client))
}

fn ask(client: &mut BufReader<TcpStream>, line: &str) -> Result<String, Box<dyn Error>> {
    client.get_mut().write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    client.read_line(&mut answer)?;
    Ok(answer)
}
