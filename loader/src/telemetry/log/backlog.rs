//! Log lines that wait for standard error.
//!
//! Tasks add lines and never wait. One thread writes them. When nobody reads standard error, the backlog fills up, and
//! further lines are dropped and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;

/// Maximum bytes of lines that wait: some 250 lines of JSON.
const LIMIT: usize = 64 * 1024;

/// Lines that wait, and the count of those that were dropped. Clones share one state.
#[derive(Clone, Default)]
pub(crate) struct Backlog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a line was added or written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of `lines` and of the line that is being written.
    bytes: usize,
    dropped: u64,
    /// Dropped lines that the log has reported.
    reported: u64,
}

impl Backlog {
    /// Starts the thread that hands each line to `write`.
    pub(super) fn start(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let backlog = Self::default();
        let writing = backlog.clone();
        thread::Builder::new().name("log".into()).spawn(move || writing.write_lines(write))?;
        Ok(backlog)
    }

    /// Returns the number of lines dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Waits until all lines are written, for at most `limit`. Returns whether they are.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let wait = self.shared.changed.wait_timeout_while(self.lock(), limit, |state| state.bytes > 0);
        wait.unwrap_or_else(PoisonError::into_inner).0.bytes == 0
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.bytes.saturating_add(line.len()) > LIMIT {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_owned());
        drop(state);
        self.shared.changed.notify_all();
    }

    fn write_lines(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        loop {
            let waiting = self.shared.changed.wait_while(self.lock(), |state| state.lines.is_empty());
            let line = waiting.unwrap_or_else(PoisonError::into_inner).lines.pop_front();
            let Some(line) = line else { continue };
            // Done without the lock, because a reader that doesn't read blocks us here.
            let written = write(&line).is_ok();
            if let Some(lines) = self.note(line.len(), written) {
                warn!(lines, "log lines dropped: standard error took no more");
            }
            self.done(line.len());
        }
    }

    /// Records whether a line was written. Returns the number of drops to report, once there is ample room again.
    fn note(&self, length: usize, written: bool) -> Option<u64> {
        let mut state = self.lock();
        state.dropped += u64::from(!written);
        let unreported = state.dropped - state.reported;
        // A report after every failed write would itself fail, and so on.
        if !written || unreported == 0 || state.bytes - length > LIMIT / 2 {
            return None;
        }
        state.reported = state.dropped;
        Some(unreported)
    }

    fn done(&self, length: usize) {
        self.lock().bytes -= length;
        self.shared.changed.notify_all();
    }

    /// A panic can't leave the state inconsistent, because each change above is complete.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each call of `write` is one whole line, as `tracing_subscriber` makes them.
impl Write for Backlog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a whole line to standard error, even if another process has made that non-blocking.
pub(super) fn write_to_stderr(mut line: &[u8]) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    while !line.is_empty() {
        match io::stderr().write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_beyond_the_limit_are_dropped_and_counted_and_the_others_stay_whole_and_in_order() {
        let (permits, permit) = mpsc::channel::<()>();
        let (written, lines) = mpsc::channel();
        let mut backlog = Backlog::start(move |line| {
            permit.recv().map_err(io::Error::other)?;
            written.send(line.to_owned()).map_err(io::Error::other)
        })
        .unwrap();
        let line = |n: usize| format!("{n:0>1024}").into_bytes();
        // Nobody reads: adding does not block.
        (0..1000).for_each(|n| backlog.write_all(&line(n)).unwrap());
        assert_eq!(backlog.dropped(), 1000 - 64);
        assert!(!backlog.flush(Duration::from_millis(50)), "nothing can have been written");
        (0..64).for_each(|_| permits.send(()).unwrap());
        assert!(backlog.flush(PATIENCE));
        assert_eq!(lines.iter().take(64).collect::<Vec<_>>(), (0..64).map(line).collect::<Vec<_>>());
        // There is room again.
        permits.send(()).unwrap();
        backlog.write_all(b"again").unwrap();
        assert!(backlog.flush(PATIENCE));
        assert_eq!((lines.recv().unwrap(), backlog.dropped()), (b"again".to_vec(), 1000 - 64));
    }

    #[test]
    fn drops_are_reported_once_when_there_is_room_again() {
        let backlog = Backlog::default();
        backlog.lock().bytes = LIMIT;
        backlog.add(b"x");
        backlog.add(b"y");
        assert_eq!(backlog.note(10, true), None, "there is no room yet");
        backlog.lock().bytes = LIMIT / 2;
        assert_eq!(backlog.note(10, true), Some(2));
        assert_eq!(backlog.note(10, true), None, "reported already");
        assert_eq!(backlog.note(10, false), None, "standard error is closed");
        assert_eq!(backlog.note(10, true), Some(1), "the line that could not be written");
    }
}
