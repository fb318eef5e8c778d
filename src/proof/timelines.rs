//! Single timelines of the core on virtual time.

mod scene;

use std::time::Duration;

use self::scene::{A, B, C, Scene, failed, rules};
use super::world::MS;
use crate::{
    core::{key::Key, roster::Roster, rules::Rules},
    event::Order,
    exit::Exit,
    id::ChildId,
    sync::clock::system_now,
};

//   0        100     120         200         240
//   run 1 ───✗ 20 ms run 2 ──────✗ 40 ms     run 3
#[test]
fn restarts_come_exactly_after_their_backoff() {
    let mut scene = Scene::new(&[rules()]);
    scene.at(100).exits(A, 1, failed());
    scene.at(200).exits(A, 2, failed());
    scene.at(240).reports(&[
        "0 a started 0",
        "100 a stopped 0",
        "120 a started 1",
        "200 a stopped 1",
        "240 a started 2",
    ]);
    assert_eq!(scene.script.backoffs_asked, [1, 2]);
}

//   0        20      1019          1059    2059         2100
//   run 1 ✗  run 2 ──✗ 999 ms up   run 3 ──healthy ─────✗ forgiven
#[test]
fn failures_are_forgiven_at_healthy_after_and_not_a_millisecond_sooner() {
    let mut scene = Scene::new(&[rules()]);
    scene.exits(A, 1, failed());
    scene.at(1019).exits(A, 2, failed());
    scene.at(2100).exits(A, 3, failed());
    scene.reports(&[
        "0 a started 0",
        "0 a stopped 0",
        "20 a started 1",
        "1019 a stopped 1",
        "1059 a started 2",
        "2059 a healthy 0",
        "2100 a stopped 0",
    ]);
    assert_eq!(scene.script.backoffs_asked, [1, 2, 1]);
}

#[test]
fn with_healthy_after_zero_every_run_is_healthy() {
    let mut scene = Scene::new(&[Rules { healthy_after: Duration::ZERO, ..rules() }]);
    scene.at(5).exits(A, 1, failed());
    scene.at(30).exits(A, 2, failed());
    scene.reports(&[
        "0 a started 0",
        "0 a healthy 0",
        "5 a stopped 0",
        "25 a started 1",
        "25 a healthy 0",
        "30 a stopped 0",
    ]);
    assert_eq!(scene.script.backoffs_asked, [1, 1]);
}

// Three children come back in the order of their deadlines.
//
//   a ✗────────────80──▶
//   b ✗──────40──▶
//   c ✗──20──▶
#[test]
fn each_child_has_its_own_deadline() {
    let mut scene = Scene::new(&[rules(), rules(), rules()]);
    scene.reports(&["0 a started 0", "0 b started 0", "0 c started 0"]);
    scene.script.delay = |_| 80 * MS;
    scene.exits(A, 1, failed());
    scene.script.delay = |_| 40 * MS;
    scene.exits(B, 1, failed());
    scene.script.delay = |_| 20 * MS;
    scene.exits(C, 1, failed());
    scene.reported.clear();
    scene.at(100).reports(&["20 c started 1", "40 b started 1", "80 a started 1"]);
}

//   run 1 ✗─100─▶ run 2: healthy at 1 ms, ✗ at 2 ms ─200─▶ run 3: healthy, ✗ at 200 ms, which
//                                                            is as long as its last delay
//   1 failure       2 failures: the first counts again        1 failure
#[test]
fn child_that_says_too_soon_that_it_is_healthy_has_its_failures_back() {
    let mut scene = Scene::new(&[rules()]);
    scene.script.delay = |attempt| 100 * MS * attempt;
    scene.exits(A, 1, failed());
    for (run, start) in [(2, 100), (3, 302)] {
        scene.at(start + 1);
        scene.roster.marked_healthy(A, run, scene.script.now);
        scene.settle();
        scene.at(if run == 2 { start + 2 } else { start + 200 }).exits(A, run, failed());
    }
    scene.at(1000).reports(&[
        "0 a started 0",
        "0 a stopped 0",
        "100 a started 1",
        "101 a healthy 0",
        "102 a stopped 1",
        "302 a started 2",
        "303 a healthy 0",
        "502 a stopped 0",
        "602 a started 1",
    ]);
    assert_eq!(scene.script.backoffs_asked, [1, 2, 1]);
}

//   0        100      110      125      140
//   run 1 ───✗ off    (poll)   (due)    on at the poll: at once, for the backoff is over
#[test]
fn backoff_that_ends_while_the_flag_is_off_starts_nothing() {
    let mut scene = Scene::new(&[rules()]);
    scene.at(100).script.off.push(A);
    scene.exits(A, 1, failed());
    scene.at(110).poll();
    scene.at(130).reports(&["0 a started 0", "100 a stopped 0", "110 a switched off 1"]);
    scene.script.off.clear();
    scene.at(140).poll();
    scene.reports(&["140 a switched on 1", "140 a started 1"]);
}

//   0         100      120              130    140
//   run 1 ────✗ wait   due, no: held    hold   release: run 2
#[test]
fn start_that_is_denied_at_the_last_moment_leaves_no_trace() {
    let mut scene = Scene::new(&[rules()]);
    scene.at(100).exits(A, 1, failed());
    scene.script.is_denied = true;
    scene.at(130).reports(&["0 a started 0", "100 a stopped 0"]);
    scene.order(A, Order::Hold).reports(&["130 a ordered 1"]);
    scene.script.is_denied = false;
    scene.at(140).order(A, Order::Release);
    scene.reports(&["140 a ordered 1", "140 a started 1"]);
    scene.exits(A, 2, failed()).reports(&["140 a stopped 1"]);
}

#[test]
fn levels_of_a_flag_count_and_not_its_edges() {
    let mut scene = Scene::new(&[rules()]);
    scene.at(10).script.off.push(A);
    scene.script.off.clear();
    scene.poll();
    scene.reports(&["0 a started 0"]);
    scene.at(20).script.off.push(A);
    scene.poll();
    scene.at(30).exits(A, 1, failed());
    scene.reports(&["20 Key(0) asked to stop", "20 a switched off 0", "30 a stopped 0"]);
    scene.script.off.clear();
    scene.at(40).poll();
    scene.reports(&["40 a switched on 0", "40 a started 0"]);
    assert!(scene.script.backoffs_asked.is_empty(), "being switched off is no failure");
}

#[test]
fn one_round_asks_every_flag_once() {
    let mut scene = Scene::new(&[rules(), rules(), rules()]);
    assert_eq!(
        scene.script.flags_asked,
        [A, B, C],
        "the answers of the first round are those right before the starts"
    );
    scene.roster.begin_round();
    scene.roster.begin_round();
    scene.script.flags_asked.clear();
    scene.settle();
    assert_eq!(
        scene.script.flags_asked,
        [A, B, C, A, B, C],
        "what was asked for during a round may have been passed by it"
    );
    scene.order(B, Order::Remove);
    scene.script.flags_asked.clear();
    scene.poll();
    assert_eq!(scene.script.flags_asked, [A, C], "a child that is being removed is not asked for");
}

// A permanent child that keeps returning `Ok` at once has a backoff, as after any failure.
#[test]
fn returning_at_once_does_not_spin() {
    let mut scene = Scene::new(&[Rules { healthy_after: Duration::MAX, ..rules() }]);
    scene.script.delay = |attempt| (100 * MS * 2u32.saturating_pow(attempt - 1)).min(60_000 * MS);
    let mut runs = 0;
    while (scene.script.now - scene.origin) < Duration::from_secs(3600) {
        runs += 1;
        scene.exits(A, runs, Exit::Completed);
        let next = scene.roster.next_deadline().expect("it is tried again");
        scene.script.now = next;
        scene.settle();
    }
    assert!(runs < 75, "{runs} runs in an hour");
}

//   run 1 ✗ run 2 ✗ run 3 ✗ given up          run 4, after a reset by an operator
#[test]
fn child_is_given_up_after_its_restarts_and_tried_again_by_hand() {
    let mut scene = Scene::new(&[Rules { max_restarts: Some(2), ..rules() }]);
    scene.exits(A, 1, failed());
    scene.at(20).exits(A, 2, failed());
    scene.at(60).exits(A, 3, failed());
    scene.at(10_000).reports(&[
        "0 a started 0",
        "0 a stopped 0",
        "20 a started 1",
        "20 a stopped 1",
        "60 a started 2",
        "60 a stopped 2",
        "60 a gave up 3",
    ]);
    assert_eq!(
        scene.script.backoffs_asked,
        [1, 2],
        "no backoff is asked for the failure that gives up"
    );
    scene.order(A, Order::Reset);
    scene.reports(&["10000 a ordered 0", "10000 a started 0"]);
}

// A start that finds no thread waits for at least 100 ms, and has no `started`.
#[test]
fn starts_without_a_thread_are_failures_with_a_backoff() {
    let mut scene = Scene::new(&[]);
    scene.script.no_thread = true;
    scene.script.delay = |attempt| 60 * MS * attempt;
    scene.roster.insert(A, ChildId::from("a"), (), rules(), Vec::new(), scene.script.now);
    scene.poll();
    scene.at(219).script.no_thread = false;
    scene.at(300).reports(&["0 a stopped 0", "100 a stopped 1", "220 a started 2"]);
}

//   0      100              100        300                   1300
//   a, b, c run; shutdown   a: limit 0 b: limit 200 ms       c: limit 1200 ms, stops in time
#[test]
fn every_stop_timeout_counts_by_itself() {
    let limits =
        [Duration::ZERO, 200 * MS, 1200 * MS].map(|stop_timeout| Rules { stop_timeout, ..rules() });
    let mut scene = Scene::new(&limits);
    scene.reported.clear();
    scene.at(100);
    scene.roster.close(scene.script.now, Duration::MAX);
    scene.settle();
    scene.at(1000).reports(&[
        "100 Key(2) asked to stop",
        "100 Key(1) asked to stop",
        "100 Key(0) asked to stop",
        "100 a overdue 0",
        "300 b overdue 0",
    ]);
    assert!(!scene.roster.is_over(), "c has time left");
    scene.exits(C, 1, failed());
    scene.reports(&["1000 c stopped 0"]);
    assert!(scene.roster.is_over(), "nobody else has");
}

#[test]
fn clock_that_goes_backwards_starts_nothing_twice() {
    let mut scene = Scene::new(&[rules()]);
    scene.at(500).exits(A, 1, failed());
    scene.script.now = scene.origin;
    scene.settle();
    scene.poll();
    scene.at(520).reports(&["0 a started 0", "500 a stopped 0", "520 a started 1"]);
    scene.script.now = scene.origin;
    scene.exits(A, 2, failed());
    scene.reports(&["0 a stopped 1"]);
}

#[test]
fn backoff_without_end_waits_for_a_reset() {
    let mut scene = Scene::new(&[rules()]);
    scene.script.delay = |_| Duration::MAX;
    scene.exits(A, 1, failed());
    assert_eq!(scene.roster.next_deadline(), None);
    scene.at(1_000_000).reports(&["0 a started 0", "0 a stopped 0"]);
    scene.order(A, Order::Reset);
    scene.reports(&["1000000 a ordered 0", "1000000 a started 0"]);
}

//   limit 100 ms, with a look every 25 ms
//
//   0       50        90          140         ≤ 225
//   run 1   first ♥   last ♥      (silent)    hung: stop request, and its end is a failure
#[test]
fn silence_for_longer_than_the_limit_is_a_hang() {
    let mut scene =
        Scene::new(&[Rules { watchdog: Some(100 * MS), stop_timeout: Duration::MAX, ..rules() }]);
    scene.at(50).script.heartbeats = 1;
    scene.roster.gave_heartbeat(A, 1, scene.script.now, &mut scene.script);
    scene.settle();
    scene.at(90).script.heartbeats = 2;
    scene.at(190).reports(&["0 a started 0"]);
    scene.at(226).reports(&["200 Key(0) asked to stop", "200 a hung 0"]);
    // A thread that is asked to stop may wake up, and not be where it hung.
    assert_eq!(scene.script.looked_after, [0]);
    scene.at(300).exits(A, 1, Exit::Completed);
    scene.at(320).reports(&["300 a stopped 0", "320 a started 1"]);
    assert_eq!(scene.script.backoffs_asked, [1]);
}

//   limit 100 ms
//
//   0       50        90              499      600 … 640
//   run 1   first ♥   begins to wait  end      hung
#[test]
fn wait_is_a_sign_of_life_for_as_long_as_it_lasts() {
    let mut scene =
        Scene::new(&[Rules { watchdog: Some(100 * MS), stop_timeout: Duration::MAX, ..rules() }]);
    scene.at(50).script.heartbeats = 1;
    scene.roster.gave_heartbeat(A, 1, scene.script.now, &mut scene.script);
    scene.settle();
    (scene.at(90).script.heartbeats, scene.script.is_waiting) = (2, true);
    scene.at(499).reports(&["0 a started 0"]);
    (scene.script.heartbeats, scene.script.is_waiting) = (3, false);
    scene.at(599).reports(&[]);
    scene.at(640).reports(&["600 Key(0) asked to stop", "600 a hung 0"]);
}

#[test]
fn slow_start_is_no_hang_and_neither_is_a_stall_of_the_supervisor() {
    let mut scene =
        Scene::new(&[Rules { watchdog: Some(100 * MS), healthy_after: Duration::MAX, ..rules() }]);
    scene.at(5_000).reports(&["0 a started 0"]);
    scene.script.heartbeats = 1;
    scene.roster.gave_heartbeat(A, 1, scene.script.now, &mut scene.script);
    scene.settle();
    // For an hour nothing could run: the child had no more time than the supervisor.
    scene.script.now += Duration::from_secs(3600);
    scene.settle();
    scene.reports(&[]);
    scene.script.heartbeats = 2;
    let now = u32::try_from((scene.script.now - scene.origin).as_millis()).expect("some hours");
    scene.at(now + 90).reports(&[]);
}

fn stubborn() -> Rules {
    Rules { abandon_after: Some(300 * MS), ..rules() }
}

//   0        100              300        400         900
//   run 1    held: asked      overdue    abandoned   ends after all
#[test]
fn run_that_does_not_stop_is_abandoned_once_and_to_the_millisecond() {
    let mut scene = Scene::new(&[stubborn()]);
    scene.at(100).order(A, Order::Hold);
    scene.at(399).reports(&[
        "0 a started 0",
        "100 Key(0) asked to stop",
        "100 a ordered 0",
        "300 a overdue 0",
    ]);
    scene.at(400).settle();
    scene.reports(&["400 a abandoned 0"]);
    assert_eq!(scene.script.looked_after, [1, 1], "for both events");
    scene.at(900).exits(A, 1, Exit::Completed);
    assert_eq!(scene.script.abandoned, [(1, 300 * MS)]);
    // The next run has all its time again.
    scene.order(A, Order::Release).order(A, Order::Hold);
    scene.at(1199).settle();
    assert_eq!(scene.script.abandoned.len(), 1);
    scene.at(1200).settle();
    assert_eq!(scene.script.abandoned, [(1, 300 * MS), (2, 300 * MS)]);
}

#[test]
fn run_may_be_abandoned_before_its_stop_timeout_and_while_others_go_on() {
    let patient = Rules { stop_timeout: Duration::MAX, ..stubborn() };
    let mut scene = Scene::new(&[patient, rules()]);
    scene.at(50).order(A, Order::Restart);
    scene.at(100).exits(B, 1, failed());
    scene.at(1000).reports(&[
        "0 a started 0",
        "0 b started 0",
        "50 Key(0) asked to stop",
        "50 a ordered 0",
        "100 b stopped 0",
        "120 b started 1",
        "350 a abandoned 0",
    ]);
}

//   asked at 0; from 100 to one hour later nothing runs: of that, a quarter of the limit counts
#[test]
fn stall_is_no_time_in_which_a_run_could_have_stopped() {
    let mut scene = Scene::new(&[stubborn()]);
    scene.order(A, Order::Hold).at(100);
    scene.script.now += Duration::from_secs(3600);
    scene.settle();
    let late = scene.script.now - scene.origin;
    assert!(scene.script.abandoned.is_empty());
    // Of the 300 ms, 75 had been seen before, and 75 count of the stall.
    scene.at(u32::try_from(late.as_millis()).expect("an hour") + 149).settle();
    assert!(scene.script.abandoned.is_empty());
    scene.at(u32::try_from(late.as_millis()).expect("an hour") + 150).settle();
    assert_eq!(scene.script.abandoned, [(1, late + 150 * MS)]);
}

#[test]
fn shutdown_of_its_own_supervisor_counts_and_that_of_the_outermost_does_not() {
    for is_closing in [false, true] {
        let mut scene = Scene::new(&[stubborn()]);
        scene.script.is_closing = is_closing;
        scene.roster.close(scene.script.now, Duration::MAX);
        scene.settle();
        scene.at(5000).settle();
        let expected = ["0 a started 0", "0 Key(0) asked to stop", "200 a overdue 0"];
        let abandoned = if is_closing { &[][..] } else { &["300 a abandoned 0"] };
        scene.reports(&[&expected, abandoned].concat());
        assert_eq!(scene.script.abandoned, [(1, 300 * MS)], "asked once");
    }
}

//   0      1000   2000
//   a      b      c
#[test]
fn children_start_in_their_turn_and_no_more_in_a_second_than_may() {
    let mut scene = Scene::with_rate(1, &[rules(), rules(), rules()]);
    assert!(scene.roster.has_had_round(), "the start of a supervisor does not wait for it");
    scene.at(3000).reports(&[
        "0 a started 0",
        "1000 a healthy 0",
        "1000 b started 0",
        "2000 b healthy 0",
        "2000 c started 0",
        "3000 c healthy 0",
    ]);
    assert_eq!(scene.script.flags_asked, [A, A, B, C, B, C], "right before each start, too");
}

//   0      100    120          1000                2000
//   a, b   a ✗    a due, late  a
#[test]
fn starts_are_counted_in_every_window_and_not_by_the_clock() {
    let mut scene = Scene::with_rate(2, &[rules(), rules(), rules()]);
    scene.at(100).exits(A, 1, failed());
    scene.at(1000).reports(&[
        "0 a started 0",
        "0 b started 0",
        "100 a stopped 0",
        "1000 b healthy 0",
        "1000 c started 0",
        "1000 a started 1",
    ]);
    scene.at(1100).exits(C, 1, failed());
    scene.at(1999).reports(&["1100 c stopped 0"]);
    scene.at(2000).reports(&["2000 a healthy 0", "2000 c started 1"]);
}

//   0   500                1000  2000
//   a   c restarted: first  c     b
#[test]
fn child_that_is_restarted_by_hand_is_the_next() {
    let mut scene = Scene::with_rate(1, &[rules(), rules(), rules()]);
    scene.at(500).order(C, Order::Restart);
    scene.at(2000).reports(&[
        "0 a started 0",
        "500 c ordered 0",
        "1000 a healthy 0",
        "1000 c started 0",
        "2000 c healthy 0",
        "2000 b started 0",
    ]);
}

#[test]
fn child_that_need_not_start_any_more_gives_its_turn_to_the_next() {
    let mut scene = Scene::with_rate(1, &[rules(), rules(), rules()]);
    scene.at(500).order(B, Order::Hold);
    scene.at(1000).reports(&[
        "0 a started 0",
        "500 b ordered 0",
        "1000 a healthy 0",
        "1000 c started 0",
    ]);
    // Due again, it is behind those that have waited meanwhile.
    scene.at(1100).exits(A, 1, failed());
    scene.at(1500).order(B, Order::Release);
    scene.at(2000).script.off.push(A);
    scene.at(3000).reports(&[
        "1100 a stopped 0",
        "1500 b ordered 0",
        "2000 c healthy 0",
        "2000 a started 1",
        "3000 a healthy 0",
        "3000 b started 0",
    ]);
}

#[test]
fn failed_spawn_counts_as_a_start() {
    let mut scene = Scene::with_rate(1, &[]);
    scene.script.no_thread = true;
    for (key, name) in [(A, "a"), (B, "b")] {
        let now = scene.script.now;
        scene.roster.insert(key, ChildId::from(name), (), rules(), Vec::new(), now);
    }
    scene.poll();
    scene.at(2000).reports(&["0 a stopped 0", "1000 b stopped 0", "2000 a stopped 1"]);
}

//   0     500       1520            1730       1750  2750
//   a ────✗ 20 ms   a, healthy ─────✗ 20 ms    a     healthy
//   b waits         b ──✗ b ✗ 1 min backoff, b waits    b
#[test]
fn recovery_starts_what_comes_after_and_ends_its_backoff() {
    let mut scene = Scene::with(None, &[rules(), rules()], &[("b", "a")]);
    scene.script.delay = |attempt| if attempt == 1 { 20 * MS } else { 60_000 * MS };
    scene.at(500).exits(A, 1, failed());
    scene.at(1600).reports(&[
        "0 a started 0",
        "0 b waits 0",
        "500 a stopped 0",
        "520 a started 1",
        "1520 a healthy 0",
        "1520 b started 0",
    ]);
    scene.at(1700).exits(B, 1, failed());
    scene.at(1720).exits(B, 2, failed());
    scene.at(1730).exits(A, 2, failed());
    scene.at(3000).reports(&[
        "1700 b stopped 0",
        "1720 b started 1",
        "1720 b stopped 1",
        "1730 a stopped 0",
        "1730 b waits 2",
        "1750 a started 1",
        "2750 a healthy 0",
        "2750 b started 2",
    ]);
}

//   1000     1100     1300     1310    1700
//   c asked  c ends
//            b asked  overdue  b ends
//                     a asked          a ends
#[test]
fn shutdown_asks_each_when_those_after_it_have_ended_or_had_their_time() {
    let all = [Rules { stop_timeout: 500 * MS, ..rules() }, rules(), rules()];
    let mut scene = Scene::with(None, &all, &[("b", "a"), ("c", "b")]);
    for key in [A, B] {
        scene.roster.marked_healthy(key, 1, scene.script.now);
        scene.settle();
    }
    scene.at(1000).reported.clear();
    scene.roster.close(scene.script.now, Duration::MAX);
    scene.settle();
    scene.at(1100).exits(C, 1, Exit::Completed);
    scene.at(1310).exits(B, 1, Exit::Completed);
    // Without a limit, it has its own time.
    scene.at(1700).exits(A, 1, Exit::Completed);
    scene.reports(&[
        "1000 Key(2) asked to stop",
        "1100 Key(1) asked to stop",
        "1100 c stopped 0",
        "1300 Key(0) asked to stop",
        "1300 b overdue 0",
        "1310 b stopped 0",
        "1700 a stopped 0",
    ]);
    assert!(scene.roster.is_over());
}

#[test]
fn all_may_be_well_once_all_but_the_waiting_are_at_work() {
    let mut scene = Scene::with(None, &[rules(), rules()], &[("b", "a")]);
    assert!(!scene.roster.take_may_be_well(), "a is on trial");
    scene.at(1000);
    assert!(!scene.roster.take_may_be_well(), "b is on trial");
    scene.at(2000);
    assert!(scene.roster.take_may_be_well());
    assert!(!scene.roster.take_may_be_well(), "nothing has changed");
    scene.order(A, Order::Hold).exits(A, 1, Exit::Completed);
    scene.order(B, Order::Restart).exits(B, 1, Exit::Completed);
    assert!(scene.roster.take_may_be_well(), "a is held, and b waits for it");
    scene.order(B, Order::Remove);
    assert!(scene.roster.take_may_be_well());
}

#[test]
fn start_waits_for_the_first_round_unless_it_shuts_down() {
    let scene = Scene::new(&[rules()]);
    assert!(scene.roster.has_had_round() && !scene.roster.is_in_round());

    let mut roster = Roster::<()>::new(None);
    roster.begin_round();
    assert!(roster.is_in_round() && !roster.has_had_round());
    roster.close(system_now(), MS);
    assert!(roster.has_had_round() && !roster.is_in_round());
    roster.begin_round();
    assert!(!roster.is_in_round(), "no flag is asked in a shutdown");
}

#[test]
fn round_over_many_children_leaves_time_for_other_things() {
    let mut scene = Scene::new(&[]);
    let now = scene.script.now;
    for number in 0..300 {
        scene.roster.insert(Key(number), ChildId::from("a"), (), rules(), Vec::new(), now);
    }
    scene.poll();
    scene.script.flags_asked.clear();
    scene.roster.begin_round();
    scene.roster.continue_round(&mut scene.script);
    assert!(scene.roster.is_in_round() && scene.script.flags_asked.len() == 256);
    scene.roster.continue_round(&mut scene.script);
    assert!(!scene.roster.is_in_round() && scene.script.flags_asked.len() == 300);
}
