//! How long work is shown: a spinner and bars in a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

/// A share of the work between two plain lines, in percent: enough to see that it moves, without filling a log.
const PLAIN_STEP_PERCENT: u64 = 20;

/// Told what a build, an import or an upload is doing.
pub trait Progress: Send + Sync {
    /// A new step begins, which ends the one before.
    fn step(&self, what: &str);
    /// Of the step's `total` bytes, `done` are behind us.
    fn bytes(&self, done: u64, total: u64);
    /// The work is over, well or not.
    fn finish(&self);
}

/// Says nothing: for tests and for work inside other work.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _what: &str) {}
    fn bytes(&self, _done: u64, _total: u64) {}
    fn finish(&self) {}
}

/// Writes to standard error, so that standard output stays the command's result.
pub struct TerminalProgress {
    current: Mutex<Current>,
    terminal: bool,
}

#[derive(Default)]
struct Current {
    bar: Option<ProgressBar>,
    what: String,
    percent_shown: u64,
}

impl Default for TerminalProgress {
    fn default() -> Self {
        Self::new()
    }
}

impl TerminalProgress {
    pub fn new() -> Self {
        TerminalProgress { current: Mutex::default(), terminal: std::io::stderr().is_terminal() }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Progress for TerminalProgress {
    fn step(&self, what: &str) {
        let mut current = self.current();
        current.end();
        *current = Current { what: what.to_owned(), ..Current::default() };
        if self.terminal {
            let bar = ProgressBar::new_spinner().with_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            current.bar = Some(bar);
        } else {
            eprintln!("{what}");
        }
    }

    fn bytes(&self, done: u64, total: u64) {
        let mut current = self.current();
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        match &current.bar {
            Some(bar) => {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    let style = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes}";
                    if let Ok(style) = ProgressStyle::with_template(style) {
                        bar.set_style(style);
                    }
                }
                bar.set_position(done);
            }
            None if percent >= current.percent_shown + PLAIN_STEP_PERCENT => {
                current.percent_shown = percent;
                eprintln!("{}: {percent} %", current.what);
            }
            None => {}
        }
    }

    fn finish(&self) {
        let mut current = self.current();
        current.end();
        *current = Current::default();
    }
}

impl Current {
    /// A finished step stays on the screen as one line.
    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            eprintln!("  {}", self.what);
        }
    }
}
