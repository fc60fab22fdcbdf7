//! A small file system that can be filled up.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system in memory. Dropping this unmounts it.
pub(crate) struct Disk {
    pub(crate) folder: PathBuf,
}

impl Disk {
    /// Mounts a file system of `mib` MiB that belongs to the user and the group. Returns `None` if this process can't mount.
    pub(crate) fn mount(folder: PathBuf, mib: usize, (user, group): (u32, u32)) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        let options = format!("size={mib}m,mode=0700,uid={user},gid={group}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "pg_mask-chaos"]).arg(&folder);
        if mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Some(Self { folder });
        }
        fs::remove_dir(&folder).unwrap();
        None
    }

    /// Fills all the space that is left.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let full = io::copy(&mut io::repeat(0), &mut file).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }

    /// Frees the space again.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process with a file open in it prevents an immediate unmount. A lazy unmount takes effect once the file is
        // closed.
        if !unmount(&self.folder, &[]) {
            unmount(&self.folder, &["-l"]);
        }
    }
}

fn unmount(folder: &Path, options: &[&str]) -> bool {
    let mut command = Command::new("umount");
    command.args(options).arg(folder).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
