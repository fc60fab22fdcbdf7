//! The loader's memory holds raw events and a password. The loader leaves no core dump, and only root can read its memory.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::common::{Loader, Metrics, World, eventually, nobody};

/// An empty folder. Dropping this removes it.
struct Folder(PathBuf);

impl Folder {
    fn make(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pg_mask-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_crash_of_the_loader_leaves_no_core_dump() {
    World::run(async |world| {
        let folder = Folder::make("no-core");
        let before = format!("cd {}; ulimit -c unlimited", folder.0.display());
        // First, prove that the system makes core dumps.
        let crash =
            Command::new("sh").arg("-c").arg(format!("{before}; kill -ABRT $$")).status().await.unwrap();
        assert!(crash.core_dumped(), "this system makes no core dumps: raise the hard limit (ulimit -Hc)");
        for file in fs::read_dir(&folder.0).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        // Rust has its own handler for SIGSEGV, which a signal from outside merely removes. SIGSEGV is therefore left out.
        for signal in ["ABRT", "ILL"] {
            let loader = world.loader().after(&before).start();
            world.ready(1).await;
            let limits = fs::read_to_string(format!("/proc/{}/limits", loader.pid)).unwrap();
            let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            let limits: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
            assert_eq!(limits, ["0", "0"], "soft and hard limit");
            loader.signal(signal).await;
            let ended = loader.end().await;
            assert_eq!((ended.code, ended.dumped), (None, false), "{signal}");
            assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0, "files in the folder");
        }
    })
    .await;
}

/// Returns which files with a process's memory and environment another process of the loader's own user can open.
async fn readable(pid: u32) -> Vec<String> {
    let mut files = Vec::new();
    for file in ["environ", "maps", "mem"] {
        let path = format!("/proc/{pid}/{file}");
        let mut open = nobody("sh");
        // The file is opened and not read, because the first page of memory is never mapped.
        let status = open.args(["-c", "exec 3<\"$0\"", &path]).status().await.unwrap();
        if status.success() {
            files.push(file.to_owned());
        }
    }
    files
}

#[tokio::test]
async fn no_process_of_the_same_user_reads_the_loaders_memory() {
    World::run(async |world| {
        let mut other = nobody("sleep").arg("60").kill_on_drop(true).spawn().unwrap();
        let pid = other.id().unwrap();
        let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        eventually("another program", async || name() == "sleep\n").await;
        let control = readable(pid).await;
        assert_eq!(control, ["environ", "maps", "mem"], "a process that doesn't guard its memory");
        other.kill().await.unwrap();

        let folder = Folder::make("nobodys-loader");
        let loader = by_nobody(world.loader(), &folder.0).options("--metrics-address 127.0.0.1:0").start();
        world.ready(1).await;
        assert_eq!(readable(loader.pid).await, Vec::<String>::new());

        // The loader itself can still read its own figures.
        let shown = Metrics::of(&loader.metrics_address().await).await;
        for (name, least) in [
            ("cpu_seconds_total", 0.0),
            ("resident_memory_bytes", 1e6),
            ("virtual_memory_bytes", 1e6),
            ("open_fds", 5.0),
            ("max_fds", 5.0),
            ("start_time_seconds", 1e9),
            ("threads", 1.0),
        ] {
            let value = shown.sum(&format!("process_{name}"), &[]);
            assert!(value >= least, "process_{name} is {value}");
        }
        loader.stop().await.expect(0);
    })
    .await;
}

/// Runs the loader as a user without privileges, from a copy that this user can reach.
fn by_nobody(loader: Loader, folder: &Path) -> Loader {
    let program = folder.join("loader");
    fs::copy(env!("CARGO_BIN_EXE_loader"), &program).unwrap();
    loader.by_nobody(&program)
}
