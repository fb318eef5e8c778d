//! An operator's console: commands from standard input, or a scripted demo where nobody types and
//! nothing is piped in.

use std::{
    error::Error,
    io::{self, IsTerminal},
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildInfo, ChildResult, ChildSpec, ChildStatus, Handle, OffBy,
    Supervisor,
};

const LIMIT: Duration = Duration::from_secs(30);
const HELP: &str =
    "list | hold ID | release ID | restart ID | reset ID | add ID | remove ID | quit";
const DEMO: &str = "list\nhold orders\nrestart orders\nrelease orders\nrestart orders\n\
    reset printer\nadd extra\nlist\nremove extra\nlist";

fn main() -> Result<(), Box<dyn Error>> {
    let mut sheets = 0;
    let printer = ChildSpec::new("printer", move |ctx| {
        sheets += 1; // it finds paper at the third attempt, and may be tried twice
        if sheets < 3 { Err("out of paper".into()) } else { work(ctx) }
    });
    let supervisor = Supervisor::builder()
        .name("office")
        .on_event(|event| println!("  {event}"))
        .children([ChildSpec::new("orders", work), ChildSpec::new("mailer", work)])
        .child(printer.max_restarts(1).backoff(Backoff::constant(Duration::from_millis(100))))
        .start()?;
    let handle = supervisor.handle();
    handle.wait_for("printer", LIMIT, |printer| printer.status == ChildStatus::GaveUp)?;

    println!("{HELP}");
    let has_operator = io::stdin().is_terminal();
    let mut typed = io::stdin().lines().peekable();
    let demo = if !has_operator && typed.peek().is_none() { DEMO } else { "" };
    let lines = demo.lines().map(str::to_owned).chain(typed.map_while(Result::ok));
    let mut refused = 0;
    for line in lines.take_while(|line| line.trim() != "quit") {
        if !has_operator {
            println!("> {line}");
        }
        let answer = obey(handle, line.trim());
        refused += u32::from(answer.is_err());
        println!("{}", answer.unwrap_or_else(|error| error.to_string()));
    }
    println!("{}", supervisor.shutdown());
    if has_operator || refused == 0 {
        Ok(())
    } else {
        Err(format!("{refused} commands failed").into())
    }
}

fn work(ctx: &ChildContext) -> ChildResult {
    ctx.wait_until_stopped()
}

/// Gives a command, waits until it has been carried out, and says what has become of the child.
fn obey(handle: &Handle, line: &str) -> Result<String, Box<dyn Error>> {
    let (command, id) = line.split_once(' ').unwrap_or((line, ""));
    let run_before = handle.child(id).map_or(0, |child| child.run);
    match command {
        "list" => return Ok(handle.snapshot().to_string()),
        "hold" => handle.hold(id)?,
        "release" => handle.release(id)?,
        "restart" => handle.restart(id)?,
        "reset" => handle.reset(id)?,
        "add" => handle.add(ChildSpec::new(id, work))?,
        "remove" => {
            handle.remove(id)?;
            return Ok(handle.wait_until_gone(id, LIMIT).map(|_| format!("`{id}` is gone"))?);
        }
        _ => return Err(HELP.into()),
    }
    let has_obeyed = |child: &ChildInfo| match (command, child.status) {
        (
            "hold",
            ChildStatus::Off { by: OffBy::Operator, .. }
            | ChildStatus::Finished
            | ChildStatus::GaveUp,
        ) => true,
        ("hold", _) | ("release", ChildStatus::Off { by: OffBy::Operator, .. }) => false,
        ("restart" | "add", status) => {
            child.run > run_before || matches!(status, ChildStatus::Off { .. })
        }
        ("reset", _) => child.failures == 0,
        _ => true,
    };
    Ok(handle.wait_for(id, LIMIT, has_obeyed)?.to_string())
}
