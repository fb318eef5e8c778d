//! Loom models of the wait for news.

use std::sync::Arc;

use super::{PREEMPTIONS, explore, spawn};
use crate::sync::{
    primitives::atomic::{AtomicU64, Ordering},
    watch::Watch,
};

#[test]
fn no_news_are_missed() {
    explore("news", None, || {
        let (watch, news) = (Arc::new(Watch::default()), Arc::new(AtomicU64::new(0)));
        let teller = spawn({
            let (watch, news) = (watch.clone(), news.clone());
            move || {
                for number in 1..=2 {
                    news.store(number, Ordering::Relaxed);
                    watch.notify();
                }
            }
        });
        watch.wait_for(None, || (news.load(Ordering::Relaxed) == 2).then_some(()));
        teller.join().unwrap();
    });
}

#[test]
fn no_news_are_missed_by_two_who_wait_bounded() {
    explore("news for two", Some(PREEMPTIONS), || {
        let (watch, news) = (Arc::new(Watch::default()), Arc::new(AtomicU64::new(0)));
        let waiters = [(); 2].map(|()| {
            let (watch, news) = (watch.clone(), news.clone());
            spawn(move || {
                watch.wait_for(None, || (news.load(Ordering::Relaxed) == 1).then_some(()))
            })
        });
        news.store(1, Ordering::Relaxed);
        watch.notify();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Some(()));
        }
    });
}
