//! What a program grows by: a small one with one child, over the same with a loop of its own.

use std::{fs, path::Path, process::Command};

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
        Side::Ours => size(&folder, "ours", OURS),
        Side::Baseline => size(&folder, "bare", BARE),
    });
    vec![Figure::difference("size", 1, "KiB", &rounds, Limit::AtMost(200.0))]
}

/// The size of a stripped program that was built to be small.
fn size(folder: &Path, name: &str, program: &str) -> f64 {
    let package = folder.join(name);
    let manifest = format!(
        r#"
            [package]
            name = "{name}"
            version = "0.0.0"
            edition = "2024"
            [workspace]
            [dependencies]
            circuit-breaker-supervisor = {{ path = {library:?} }}
            [profile.release]
            opt-level = "z"
            lto = true
            codegen-units = 1
            strip = true
        "#,
        library = env!("CARGO_MANIFEST_DIR"),
    );
    fs::create_dir_all(package.join("src")).expect("a folder in the target directory");
    fs::write(package.join("Cargo.toml"), manifest).expect("a file in it");
    fs::write(package.join("src/main.rs"), program).expect("another");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target-dir"])
        .arg(folder.join("target"))
        .current_dir(&package)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{name} cannot be built");
    let built =
        folder.join("target/release").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    fs::metadata(built).expect("what was built").len() as f64 / 1024.0
}
