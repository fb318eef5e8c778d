//! What Linux says of this process.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The memory that this process holds, counted exactly. The pages of its program file are not
/// counted: they come as the code is first run, on each side another amount.
pub(crate) fn held_bytes() -> f64 {
    field(Path::new("/proc/self/smaps_rollup"), "Anonymous:") * 1024.0
}

/// How often all threads but the caller have been switched to another.
pub(crate) fn context_switches_of_others() -> f64 {
    let me = fs::read_link("/proc/thread-self").expect("Linux has /proc/thread-self");
    let mut switches = 0.0;
    for task in fs::read_dir("/proc/self/task").expect("Linux has /proc/self/task").flatten() {
        if Some(task.file_name().as_os_str()) != me.file_name() {
            let status = task.path().join("status");
            switches += field(&status, "voluntary_ctxt_switches:")
                + field(&status, "nonvoluntary_ctxt_switches:");
        }
    }
    switches
}

/// Where the CPU time of the calling thread can be read by others. `/proc/self/stat` counts in
/// steps of 10 ms, which is more than all that an idle supervisor uses; this counts nanoseconds.
pub(crate) fn my_cpu_clock() -> PathBuf {
    let me = fs::read_link("/proc/thread-self").expect("Linux has /proc/thread-self");
    Path::new("/proc").join(me).join("schedstat")
}

/// In seconds.
pub(crate) fn cpu_time(clock: &Path) -> f64 {
    let text = fs::read_to_string(clock).expect("a kernel with schedstat");
    let nanoseconds: f64 = text
        .split_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .expect("a number comes first");
    nanoseconds / 1e9
}

/// The number after a name that begins a line.
fn field(path: &Path, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("{path:?} has no {name}"))
}
