//! Threads as those who run the bodies.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    child::Job,
    context::Link,
    core::roster::Heartbeats,
    exit::Failure,
    report::Unstopped,
    runtime::{
        engine::Workers,
        thread_registry::Crew,
        worker::{Post, Remain},
    },
    sync::{clock::system_now, deadline},
};

/// How long what found no thread waits before it is tried again.
const DELAY: Duration = Duration::from_millis(100);

/// A crew at the service of its supervisor thread, with what that has yet to see done.
pub(crate) struct Threads {
    crew: Arc<Crew>,
    chores: Vec<Chore>,
    try_again_at: Option<Instant>,
}

/// What found no thread to be done on.
enum Chore {
    CallBack(Arc<Post>),
    Drop(Arc<Post>),
}

impl Threads {
    pub(crate) fn new(crew: Arc<Crew>) -> Self {
        Self { crew, chores: Vec::new(), try_again_at: None }
    }

    /// When it is time to try again what found no thread.
    pub(crate) fn try_again_at(&self) -> Option<Instant> {
        self.try_again_at
    }

    /// Tries again what found no thread, if it is time to.
    pub(crate) fn try_again(&mut self) {
        if self.try_again_at.is_some() && deadline::is_reached(self.try_again_at, system_now()) {
            self.try_again_at = None;
            let mut chores = std::mem::take(&mut self.chores).into_iter();
            while let Some(chore) = chores.next() {
                let done = match &chore {
                    Chore::CallBack(post) => self.crew.call_back(post),
                    Chore::Drop(post) => self.crew.retire(post, false),
                };
                if done.is_err() {
                    // Nor will there be one for the others, which have others wait.
                    self.note(done, chore);
                    self.chores.extend(chores);
                    return;
                }
            }
        }
    }

    fn note(&mut self, done: io::Result<()>, chore: Chore) {
        if done.is_err() {
            self.chores.push(chore);
            self.try_again_at = self.try_again_at.or(deadline::after(system_now(), DELAY));
        }
    }
}

impl Workers for Threads {
    type Post = Arc<Post>;

    fn engage(&mut self, link: Link, job: Job) -> Arc<Post> {
        Post::new(link, job)
    }

    fn provide(&mut self, post: &Arc<Post>) -> Result<(), Failure> {
        self.crew.provide(post)
    }

    fn go(&mut self, post: &Arc<Post>, run: u64, attempt_count: u32) -> bool {
        post.go(run, attempt_count)
    }

    fn stop(&mut self, post: &Arc<Post>) {
        let done = self.crew.stop(post, system_now());
        self.note(done, Chore::CallBack(post.clone()));
    }

    fn make_last_run(&mut self, post: &Arc<Post>, is_closing: bool) {
        post.make_last_run(is_closing);
    }

    fn run_is_over(&mut self, post: &Arc<Post>) {
        post.run_is_over();
    }

    fn entrust(&mut self, post: &Arc<Post>, remain: Remain) {
        post.entrust(remain);
    }

    fn retire(&mut self, post: &Arc<Post>, keep_body: bool) {
        let done = self.crew.retire(post, keep_body);
        self.note(done, Chore::Drop(post.clone()));
    }

    fn heartbeats(&self, post: &Arc<Post>) -> Heartbeats {
        post.context().map_or(Heartbeats { count: 0, doing: "" }, |context| context.heartbeats())
    }

    fn close(&mut self) {
        self.crew.close();
    }

    fn unstopped(&self, now: Instant, since: Instant) -> Vec<Unstopped> {
        self.crew.unstopped(now, since)
    }

    fn dismiss(&mut self) {
        self.crew.dismiss();
    }
}
