//! Ctrl-C during a build: the terminal ends the programs we run; we only note it, so that the build returns an error
//! and everything it holds is removed on the way out.

use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// While this lives, SIGINT is noted instead of ending the process.
pub(crate) struct Interrupts {
    before: libc::sigaction,
}

impl Interrupts {
    pub(crate) fn note() -> Interrupts {
        INTERRUPTED.store(false, Ordering::Relaxed);
        // SAFETY: both structures are plain data for which zero is a valid value, and the handler only stores an atomic.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            let mut before = std::mem::zeroed();
            libc::sigaction(libc::SIGINT, &action, &mut before);
            Interrupts { before }
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // SAFETY: restores what `sigaction` returned.
        unsafe { libc::sigaction(libc::SIGINT, &self.before, std::ptr::null_mut()) };
    }
}

/// An error once the user has pressed Ctrl-C.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
