//! How QEMU reads and writes a file without waiting for it.
//!
//! Natively, which is the fastest where many writes are under way. But whenever QEMU from 10.0 on opens a file natively it
//! makes and destroys a context on trial, and its main thread stands still until no processor of the host can be in it any
//! more. Disks of NVMe, which that thread serves, would stand still with it at each snapshot, which opens a file: theirs are
//! read and written by `io_uring`, where QEMU, the kernel and who runs the host allow it.

use super::DiskBus;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// It takes a tenth of a second.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(5);
const TRIAL_LOOK: Duration = Duration::from_millis(5);
/// Who runs it may be one to whom the kernel gives less than to root.
const NOBODY: u32 = 65534;

/// As QEMU names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aio {
    /// Through the page cache, by threads that wait.
    Threads,
    Native,
    IoUring,
}

static OF_MAIN_THREAD: LazyLock<Aio> = LazyLock::new(|| match can_uring("qemu-system-x86_64") {
    Ok(true) => Aio::IoUring,
    Ok(false) | Err(_) => Aio::Native,
});

impl Aio {
    /// For files that are read and written past the page cache. Blocks the first time, which is when a process of QEMU
    /// tries it.
    pub(super) fn direct(bus: DiskBus) -> Aio {
        match bus {
            DiskBus::Virtio => Aio::Native,
            DiskBus::Nvme => *OF_MAIN_THREAD,
        }
    }

    pub(super) fn is_direct(self) -> bool {
        self != Aio::Threads
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Aio::Threads => "threads",
            Aio::Native => "native",
            Aio::IoUring => "io_uring",
        }
    }
}

/// Whether a QEMU without rights, in its sandbox, opens a file so.
fn can_uring(program: &str) -> io::Result<bool> {
    let mut trial = Command::new(program)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "none", "-sandbox", "on"])
        // A file that is there and may be read.
        .args(["-blockdev", "driver=file,node-name=trial,filename=/proc/self/exe,read-only=on,aio=io_uring"])
        .args(["-monitor", "stdio"])
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // One that has refused is gone already.
    let _ = trial.stdin.take().map(|mut monitor| monitor.write_all(b"quit\n"));
    let deadline = Instant::now() + TRIAL_TIME_MAX;
    loop {
        if let Some(status) = trial.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            trial.kill()?;
            trial.wait()?;
            return Ok(false);
        }
        std::thread::sleep(TRIAL_LOOK);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_trial_that_does_not_come_to_its_end_is_none() {
        assert!(super::can_uring("no-such-program").is_err());
        // It is root's business to run it as somebody else.
        if rustix::process::geteuid().is_root() {
            assert!(!super::can_uring("false").unwrap());
        }
    }
}
