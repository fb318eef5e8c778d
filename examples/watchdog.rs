//! A reader that hangs in a blocking call: its watchdog notices, `on_stop` unblocks the call, and
//! the reader comes back.

use std::{
    error::Error,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildContext, ChildResult, ChildSpec, ChildStatus, StopCause, Supervisor,
};

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let device = TcpListener::bind("127.0.0.1:0")?;
    let address = device.local_addr()?;
    let supervisor = Supervisor::builder()
        .on_event(|event| println!("  {event}"))
        .child(
            ChildSpec::new("reader", move |ctx| read(ctx, address))
                .watchdog(Duration::from_secs(1)),
        )
        .start()?;
    let handle = supervisor.handle();

    println!("the device answers three times, and then no more");
    let (mut silent, _) = device.accept()?;
    answer(&mut silent, 3)?;
    // The connection stays open, so that the reader's next read blocks for as long as it is let.
    let reader = handle.wait_for("reader", LIMIT, |reader| reader.failures == 1)?;
    println!("{reader}");
    assert_eq!(reader.last_stop.map(|stop| stop.cause), Some(StopCause::Hung));

    println!("the reader is back, and the device answers again");
    let (mut line, _) = device.accept()?;
    answer(&mut line, 3)?;
    let reader =
        handle.wait_for("reader", LIMIT, |reader| reader.status == ChildStatus::Healthy)?;
    println!("{reader}");

    let report = supervisor.shutdown(); // the same callback ends the read that blocks now
    println!("{report}");
    if report.is_clean() { Ok(()) } else { Err("the reader should have stopped".into()) }
}

/// The reader's body: it asks the device again and again.
fn read(ctx: &ChildContext, address: SocketAddr) -> ChildResult {
    let mut line = TcpStream::connect(address)?;
    let socket = line.try_clone()?;
    let _unblock = ctx.on_stop(move || socket.shutdown(Shutdown::Both));
    let mut value = [0];
    loop {
        ctx.heartbeat("asking the device");
        line.write_all(b"?")?;
        // What it was doing, should it be silent from here on.
        ctx.heartbeat("waiting for the device");
        line.read_exact(&mut value)?;
        println!("  the device says {}", value[0]);
        ctx.mark_healthy();
    }
}

/// The device: it answers so many questions.
fn answer(line: &mut TcpStream, times: u8) -> Result<(), Box<dyn Error>> {
    let mut question = [0];
    for value in 1..=times {
        line.read_exact(&mut question)?;
        line.write_all(&[value])?;
    }
    Ok(())
}
