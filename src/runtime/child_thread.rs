//! Main function of a child's thread: it waits for a start signal, runs the body, and reports.

use std::sync::Arc;

use crossbeam_channel::SendError;

use crate::{
    context::ChildContext,
    event::Callback,
    exit::{ChildResult, Exit, Failure},
    runtime::{
        inbox::{Message, RunEnd},
        thread_record::{ThreadPhase, ThreadRecord},
        worker::{Command, WorkerShared},
    },
    sync::{
        clock::system_now,
        panic::Panic,
        primitives::atomic::Ordering,
        slot::Receiver,
        unwind::{self, Drops},
    },
};

/// Serves a child until it is told to leave: or, with a fresh thread for each run, for one run; or,
/// in a shutdown, to the end of the present run.
pub(crate) fn work(thread: &ThreadRecord, worker: &Arc<WorkerShared>, commands: Receiver<Command>) {
    obey(thread, worker, commands);
    if let Some(child) = &thread.child {
        child.last_run.store(worker.last_run(), Ordering::Relaxed);
    }
}

fn obey(thread: &ThreadRecord, worker: &Arc<WorkerShared>, commands: Receiver<Command>) {
    while let Ok(command) = commands.recv() {
        match command {
            Command::Run(context) => {
                if !run_body(thread, worker, context) {
                    break;
                }
            }
            Command::Leave { keep_body } => {
                drop_all(thread, worker, keep_body);
                break;
            }
        }
    }
    // The channel is dropped before the look at `is_final`. If `leave` comes after this, it finds
    // the channel disconnected, and its caller drops the body. If it came before, its command may
    // be lost with the channel; but `make_final` came before that, and is seen here.
    drop(commands);
    // If `make_final` came after `run_body` had put the body back, this thread has to drop it. But
    // a run may have been sent to another thread since, as after a restart by hand: then that one
    // takes the body, and drops it.
    if worker.is_final() && worker.context().is_none() {
        drop_all(thread, worker, false);
    }
}

/// Runs the body once, and sends the end of the run. Returns whether the thread stays for another.
fn run_body(thread: &ThreadRecord, worker: &Arc<WorkerShared>, context: ChildContext) -> bool {
    let (key, run) = (worker.link.key, context.run());
    let Some(mut body) = worker.take_body() else {
        // Each run that was started needs an end, also one without a body.
        let at = system_now();
        worker.keep_context(None, false);
        send_run_end(worker, RunEnd::of_no_run(key, run, at));
        return false;
    };
    let mut drops = Drops::default();
    thread.begin_run(run);
    context.note_thread();
    let outcome = unwind::catch_both(|| body(&context));
    let at = system_now();
    let (exit, display_panic) = reduce(outcome, &mut drops);
    if let Some(panic) = context.signal().end() {
        drops.note(Err(panic));
    }
    // What was entrusted is dropped after the call of the body, not before it: the run counts as
    // started since before this thread woke, so a slow drop before the body would add to the
    // uptime.
    thread.enter(ThreadPhase::Dropping);
    worker.drop_remains(&mut drops);
    let callbacks_succeeded = context.callbacks_succeeded();
    let is_last = worker.is_final();
    worker.keep_context(Some(context), is_last);
    if is_last {
        drops.discard(body);
    } else {
        worker.put_back(body);
    }
    thread.enter(ThreadPhase::Waiting);
    let end = RunEnd { key, run, exit, at, display_panic, drops, callbacks_succeeded };
    send_run_end(worker, end);
    !worker.thread_leaves_after(is_last)
}

/// Turns the outcome of a body into an [`Exit`]. Returns the panic of an error's `Display` or
/// `source` too.
fn reduce(
    outcome: Result<ChildResult, (Panic, Option<Panic>)>,
    drops: &mut Drops,
) -> (Exit, Option<Panic>) {
    match outcome {
        Ok(Ok(())) => (Exit::Completed, None),
        Ok(Err(error)) => {
            let (failure, display_panic) = Failure::catching(error);
            (Exit::Failed(failure), display_panic)
        }
        Err((panic, drop_panic)) => {
            drops.note(drop_panic.map_or(Ok(()), Err));
            (Exit::Panicked(panic), None)
        }
    }
}

/// Drops the entrusted values of a child, and its body too unless it is kept.
pub(crate) fn drop_all(thread: &ThreadRecord, worker: &Arc<WorkerShared>, keep_body: bool) {
    thread.enter(ThreadPhase::Dropping);
    let body = if keep_body { None } else { worker.take_body() };
    let mut drops = Drops::default();
    worker.drop_remains(&mut drops);
    drops.discard(body);
    if let Some(Err(panic)) = drops.into_result() {
        let (key, run, callback) = (worker.link.key, worker.last_run(), Callback::Drop);
        tell(worker, Message::CallbackPanicked { key, run, callback, panic });
    }
}

/// Sends the end of a run to the supervisor thread. If the supervisor thread has ended or is stuck,
/// it may never publish that end: then this thread publishes it.
fn send_run_end(worker: &WorkerShared, end: RunEnd) {
    let (shared, key, run) = (worker.link.handle.shared(), worker.link.key, end.run);
    match shared.inbox().send(Message::RunEnded(end)) {
        Err(SendError(Message::RunEnded(end))) => shared.publish_missed_end(key, run, Some(end)),
        Err(SendError(message)) => drop(unwind::discard(message)),
        // Looked at after the send: a supervisor that has not ended by now finds the message. One
        // that has ended, or is stuck, may not.
        Ok(()) if shared.shows_no_more() => shared.publish_missed_end(key, run, None),
        Ok(()) => {}
    }
}

/// Sends a message to the supervisor thread. If that thread has ended, the message is dropped here,
/// and a panic in the drop is caught.
fn tell(worker: &WorkerShared, message: Message) {
    let _ = unwind::catch(|| worker.link.handle.shared().tell(message).is_ok());
}
