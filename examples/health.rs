//! Health over HTTP: `/healthz` for probes and `/` for people, by a server that is itself a child.

use std::{
    error::Error,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use circuit_breaker_supervisor::{ChildContext, ChildResult, ChildSpec, ChildStatus, Supervisor};
use tiny_http::{Response, Server};

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (news, told) = crossbeam_channel::unbounded();
    let supervisor = Supervisor::builder()
        .name("shop")
        .on_event(|event| println!("  {event}"))
        .child(ChildSpec::new("health", move |ctx| serve(ctx, &listener)))
        .child(ChildSpec::new("orders", move |ctx| {
            loop {
                let news: Result<(), &str> = ctx.recv(&told)?;
                news?;
                ctx.mark_healthy();
            }
        }))
        .start()?;
    let handle = supervisor.handle();
    assert_eq!(get(address, "/healthz")?, (200, String::from("all is well\n")));

    news.send(Err("the broker hung up"))?;
    handle.wait_for("orders", LIMIT, |orders| orders.failures == 1)?;
    // It stays so until the child is trusted again.
    let (status, why) = get(address, "/healthz")?;
    println!("{status}: {why}");
    assert_eq!(status, 503);
    let (status, table) = get(address, "/")?;
    println!("{table}");
    assert!(status == 200 && table.contains("the broker hung up"));

    news.send(Ok(()))?;
    handle.wait_for("orders", LIMIT, |orders| orders.status == ChildStatus::Healthy)?;
    assert_eq!(get(address, "/healthz")?.0, 200);
    let report = supervisor.shutdown();
    println!("{report}");
    if report.is_clean() { Ok(()) } else { Err("the server should have stopped".into()) }
}

/// The body of the child that answers.
fn serve(ctx: &ChildContext, listener: &TcpListener) -> ChildResult {
    let server = Arc::new(Server::from_listener(listener.try_clone()?, None)?);
    let blocked = server.clone();
    let _unblock = ctx.on_stop(move || blocked.unblock());
    for request in server.incoming_requests() {
        let snapshot = ctx.supervisor().snapshot();
        let (status, text) = match request.url() {
            "/healthz" if snapshot.is_healthy() => (200, String::from("all is well\n")),
            "/healthz" => (503, format!("{:?}\n", snapshot.counts())),
            "/" => (200, format!("{snapshot}\n")),
            _ => (404, String::from("ask for / or /healthz\n")),
        };
        // A client that has left is no failure.
        let _ = request.respond(Response::from_string(text).with_status_code(status));
    }
    Ok(())
}

fn get(address: SocketAddr, path: &str) -> Result<(u16, String), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    Ok((head.split(' ').nth(1).ok_or("no status")?.parse()?, body.to_owned()))
}
