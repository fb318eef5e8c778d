//! What a program grows by, and how much longer it takes to build: a small one with one child, over
//! the same with a loop of its own.

use std::{fs, path::Path, process::Command, time::Instant};

use crate::{
    measure::{Rounds, Side},
    options::Options,
    report::{Figure, Limit},
};

const OURS: &str = r#"
use circuit_breaker_supervisor::{ChildSpec, Supervisor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("worker", |ctx| ctx.wait_until_stopped()))
        .start()?;
    supervisor.wait();
    Ok(())
}
"#;

const BARE: &str = r#"
use std::{panic, thread, time::Duration};

fn main() {
    let worker = thread::spawn(|| loop {
        if panic::catch_unwind(|| thread::sleep(Duration::MAX)).is_err() {
            eprintln!("the worker panicked");
        }
        thread::sleep(Duration::from_secs(1));
    });
    let _ = worker.join();
}
"#;

pub(crate) fn figures(_: &Options) -> Vec<Figure> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("size");
    let rounds = Rounds::take(1, |side| match side {
        Side::Ours => build(&folder, "ours", OURS),
        Side::Baseline => build(&folder, "bare", BARE),
    });
    let (sizes, times) = (rounds.map(|built| built.kib), rounds.map(|built| built.seconds));
    vec![
        Figure::difference("size", 1, "KiB", &sizes, Limit::AtMost(200.0)),
        Figure::difference("compile", 1, "s", &times, Limit::None),
    ]
}

struct Built {
    kib: f64,
    /// How long it took, with all dependencies.
    seconds: f64,
}

/// Builds a stripped program that is to be small, from nothing but the sources.
fn build(folder: &Path, name: &str, program: &str) -> Built {
    let (package, target) = (folder.join(name), folder.join("target"));
    let manifest = format!(
        r#"
            [package]
            name = "{name}"
            version = "0.0.0"
            edition = "2024"
            [workspace]
            [dependencies]
            {library}
            [profile.release]
            opt-level = "z"
            lto = true
            codegen-units = 1
            strip = true
        "#,
        library = if program == OURS {
            format!("circuit-breaker-supervisor = {{ path = {:?} }}", env!("CARGO_MANIFEST_DIR"))
        } else {
            String::new()
        },
    );
    fs::create_dir_all(package.join("src")).expect("a folder in the target directory");
    fs::write(package.join("Cargo.toml"), manifest).expect("a file in it");
    fs::write(package.join("src/main.rs"), program).expect("another");
    let _ = fs::remove_dir_all(&target);
    let began = Instant::now();
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target-dir"])
        .arg(&target)
        .current_dir(&package)
        .status();
    let seconds = began.elapsed().as_secs_f64();
    assert!(status.is_ok_and(|status| status.success()), "{name} cannot be built");
    let built = target.join("release").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    Built { kib: fs::metadata(built).expect("what was built").len() as f64 / 1024.0, seconds }
}
