//! Folders of the source: what each may import.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The data that every room may use.
const PLAIN_DATA: [&str; 7] =
    ["event", "exit", "id", "status", "thread_info", "verdict", "wording"];

/// What a room may not even name of the standard library, or of other crates.
const NOT_FOR_THE_CORE: [&str; 8] = [
    "std::thread",
    "Mutex",
    "atomic",
    "crossbeam",
    "parking_lot",
    "log::",
    "fastrand",
    "Instant::now",
];

/// The source files in this folder, and below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)
}

/// The code of a file but for its tests and comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).fold(
        String::new(),
        |mut code, line| {
            code.push_str(line);
            code.push('\n');
            code
        },
    )
}

/// The paths within the crate that a file imports or names, without `crate::`.
fn imports(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        let tree = &code[place + "crate::".len()..];
        if code[..place].ends_with("use ") {
            flatten("", tree.split(';').next().unwrap(), &mut paths);
        } else {
            let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            paths.push(tree.chars().take_while(|c| is_part(*c)).collect());
        }
    }
    paths
}

/// Adds the paths of a tree such as `a::{b, c::{d, e}}`.
fn flatten(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    let mut branches = Vec::new();
    for (place, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(&tree[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    branches.push(&tree[start..]);
    for branch in branches.into_iter().map(str::trim).filter(|branch| !branch.is_empty()) {
        match branch.split_once('{') {
            Some((stem, inner)) => {
                let inner = inner.strip_suffix('}').unwrap();
                flatten(&format!("{prefix}{stem}"), inner, paths);
            }
            None => paths.push(format!("{prefix}{branch}")),
        }
    }
}

#[track_caller]
fn check(files: impl IntoIterator<Item = PathBuf>, is_allowed: impl Fn(&str) -> bool) {
    for file in files {
        for path in imports(&code(&file)) {
            assert!(is_allowed(&path), "{} may not import crate::{path}", file.display());
        }
    }
}

fn is_plain(path: &str) -> bool {
    PLAIN_DATA.iter().any(|module| path == *module || path.starts_with(&format!("{module}::")))
}

#[test]
fn trees_of_imports_are_read_to_their_leaves() {
    let mut paths = Vec::new();
    flatten("", "{a::{b, c::{d, e}}, f}", &mut paths);
    assert_eq!(paths, ["a::b", "a::c::d", "a::c::e", "f"]);
    assert_eq!(imports("use crate::{a::b, c};\nlet x = crate::d::e();"), ["a::b", "c", "d::e"]);
}

#[test]
fn core_knows_itself_plain_data_and_the_arithmetic_of_deadlines() {
    let core = files(&source("core"));
    assert!(core.len() >= 4, "the core is somewhere else: {core:?}");
    for file in &core {
        let code = code(file);
        let found = NOT_FOR_THE_CORE.iter().find(|word| code.contains(*word));
        assert_eq!(found, None, "{} decides, and does nothing", file.display());
    }
    let of_sync = ["sync::deadline", "sync::panic"];
    check(core, |path| {
        path.starts_with("core::")
            || is_plain(path)
            || of_sync.iter().any(|of| path.starts_with(of))
    });
}

#[test]
fn waiting_and_catching_know_nothing_of_children() {
    check(files(&source("sync")), |path| path.starts_with("sync"));
}

#[test]
fn plain_data_knows_plain_data() {
    let files = PLAIN_DATA.map(|module| source(&format!("{module}.rs")));
    check(files, |path| is_plain(path) || path.starts_with("sync::"));
}

#[test]
fn runtime_knows_nothing_of_what_stands_on_it() {
    let above = ["builder", "supervisor", "simulation"];
    check(files(&source("runtime")), |path| !above.iter().any(|module| path.starts_with(module)));
}
