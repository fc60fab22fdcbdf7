//! Searches every byte of many files for traces of a secret.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Result};
use std::path::{Path, PathBuf};

use super::Traces;

/// Bytes of a file to search at a time.
const WINDOW: usize = 1 << 20;

/// Result of a search.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Number of files that were read to their end.
    pub(crate) files: usize,
    /// Files that hold a trace, each with the form of that trace.
    pub(crate) holding: BTreeSet<(PathBuf, &'static str)>,
}

/// Searches the files below `root`, or `root` itself if it's a file.
///
/// Skips a file that the server removes meanwhile. Panics if anything else can't be read.
pub(crate) fn files_holding(root: &Path, traces: &Traces) -> Found {
    let mut found = Found::default();
    search(root, traces, &mut found);
    found
}

fn search(path: &Path, traces: &Traces, found: &mut Found) {
    // Follows links: pg_wal and tablespaces may be elsewhere.
    let Some(metadata) = unless_gone(path, fs::metadata(path)) else { return };
    if metadata.is_dir() {
        let Some(entries) = unless_gone(path, fs::read_dir(path)) else { return };
        for entry in entries {
            if let Some(entry) = unless_gone(path, entry) {
                search(&entry.path(), traces, found);
            }
        }
    } else if let Some(forms) = unless_gone(path, forms_in(path, traces)) {
        found.files += 1;
        found.holding.extend(forms.into_iter().map(|form| (path.to_owned(), form)));
    }
}

fn forms_in(path: &Path, traces: &Traces) -> Result<BTreeSet<&'static str>> {
    let mut file = File::open(path)?;
    let mut forms = BTreeSet::new();
    let overlap = traces.longest() - 1;
    let mut window = vec![0; WINDOW + overlap];
    // Bytes at the start of the window that come from the end of the previous one.
    let mut kept = 0;
    loop {
        let read = match file.read(&mut window[kept..]) {
            Ok(0) => return Ok(forms),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = kept + read;
        forms.extend(traces.forms_in(&window[..filled]));
        kept = filled.min(overlap);
        window.copy_within(filled - kept..filled, 0);
    }
}

fn unless_gone<T>(path: &Path, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{} cannot be searched: {error}", path.display()),
    }
}

#[test]
fn a_trace_is_found_wherever_it_stands() {
    let folder = std::env::temp_dir().join(format!("pg_mask-search-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join("file");
    let traces = Traces::of_text("needle");
    // At the beginning, at every offset across the border of two windows, and at the very end.
    let places = [0].into_iter().chain(WINDOW - 8..WINDOW + 8).chain([3 * WINDOW]);
    for place in places {
        let mut bytes = vec![b'x'; place];
        bytes.extend_from_slice(b"needle");
        fs::write(&file, bytes).unwrap();
        let holding = files_holding(&folder, &traces).holding;
        assert_eq!(holding, BTreeSet::from([(file.clone(), "text")]), "at {place}");
    }
    fs::write(&file, vec![b'x'; 2 * WINDOW]).unwrap();
    let nothing = files_holding(&folder, &traces);
    fs::remove_dir_all(&folder).unwrap();
    assert!(nothing.holding.is_empty() && nothing.files == 1);
}
