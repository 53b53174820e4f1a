//! The process of one machine: started without rights, known again for certain, ended for certain.
//!
//! A process id is used again by the kernel; so a process is known by its id, its start time and the boot of the
//! host together, and is signalled through a pidfd only. It is the leader of a session of its own, so that nothing
//! that ends us ends it too.
//!
//! Its working directory is its machine's directory: that is how one is found that nothing is on record of.
//! It enters its control group (`cgroup`) before it becomes QEMU.

use super::{MachineError, io_failed};
use model::Id;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Each machine's process has a user of its own, out of 2^28 that no distribution gives to anybody (systemd, "Users,
/// Groups, UIDs and GIDs": 1879048192 to 2147483647 are unused). Two machines that fall on the same one, by a
/// chance of one in 268 million a pair, are only told apart less well by the kernel.
const USER_FIRST: u32 = 0x7000_0000;
const USERS: u32 = 0x1000_0000;

/// Guests go before what runs beside them when the host has no memory left.
const OOM_SCORE_ADJUSTMENT: &[u8] = b"300";
/// Disks, sockets, taps and event descriptors of a machine with all that can be attached, with much to spare.
const OPEN_FILES_MAX: u64 = 8192;
/// Processors, I/O threads and QEMU's own workers.
const THREADS_MAX: u64 = 2048;

/// Which process it is, also after a restart of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct ProcessIdentity {
    pub(super) pid: i32,
    /// In clock ticks since the host's start (proc(5), field 22 of `stat`).
    pub(super) started: u64,
    /// `/proc/sys/kernel/random/boot_id` of the host.
    pub(super) host_boot: String,
}

pub(super) struct Process {
    pub(super) identity: ProcessIdentity,
    pidfd: AsyncFd<OwnedFd>,
}

/// The user and group that the process of an instance runs as.
pub(super) fn user_of(instance_id: &Id) -> u32 {
    let hash = blake3::hash(instance_id.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    USER_FIRST + u32::from_le_bytes([a, b, c, d]) % USERS
}

/// What a machine's process is started with.
pub(super) struct Launch {
    pub(super) program: PathBuf,
    /// What brings it, for who has it not.
    pub(super) package: &'static str,
    pub(super) arguments: Vec<OsString>,
    pub(super) directory: PathBuf,
    /// Output and errors.
    pub(super) log: File,
    /// Stay open in the child, under their numbers.
    pub(super) handed_over: Vec<OwnedFd>,
    /// By which it enters its control group.
    pub(super) doors: Vec<File>,
    pub(super) user: u32,
    /// A group that it needs besides, for a device that it opens by itself.
    pub(super) group: Option<u32>,
}

/// Starts the process. Blocks until it executes its program.
pub(super) fn spawn(launch: Launch) -> Result<Process, MachineError> {
    let program = launch.program.display().to_string();
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).current_dir(&launch.directory).env_clear();
    let error_log = launch.log.try_clone().map_err(io_failed("can't share the machine's log"))?;
    command.stdin(Stdio::null()).stdout(launch.log).stderr(error_log);
    let fds: Vec<RawFd> = launch.handed_over.iter().map(AsRawFd::as_raw_fd).collect();
    let (user, group, doors) = (launch.user, launch.group, launch.doors);
    // SAFETY: the closure makes system calls on values that were made before the fork; it allocates nothing.
    unsafe { command.pre_exec(move || become_nobody(user, group, &fds, &doors)) };
    // Reaped by `Process::exited`, whoever's child it is by then.
    #[allow(clippy::zombie_processes)]
    let child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            MachineError::Failed(format!("{program} is not installed (package {})", launch.package))
        }
        _ => MachineError::Io { what: format!("can't start {program}"), source },
    })?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other).map_err(io_failed("process id"))?;
    // It is our child and not yet waited for: its id can't have been used again.
    Process::open(pid)
        .and_then(|process| process.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(io_failed(format!("can't watch {program}")))
}

/// Runs between fork and exec, as root.
fn become_nobody(user: u32, group: Option<u32>, fds: &[RawFd], doors: &[File]) -> io::Result<()> {
    rustix::process::setsid()?;
    for door in doors {
        rustix::io::write(door, b"0")?;
    }
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let adjustment = rustix::fs::open(c"/proc/self/oom_score_adj", flags, rustix::fs::Mode::empty())?;
    rustix::io::write(adjustment, OOM_SCORE_ADJUSTMENT)?;
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_NOFILE, OPEN_FILES_MAX)?;
    limit(libc::RLIMIT_NPROC, THREADS_MAX)?;
    // SAFETY: plain system calls with plain values; the group list lives through its call.
    unsafe {
        // Whatever else is open here stays here, also what a library forgot to mark.
        check(libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) as libc::c_int)?;
        for fd in fds {
            check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
        let groups = [group.unwrap_or(0)];
        check(libc::setgroups(usize::from(group.is_some()), groups.as_ptr()))?;
        check(libc::setresgid(user, user, user))?;
        check(libc::setresuid(user, user, user))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    Ok(())
}

fn limit(resource: libc::__rlimit_resource_t, to: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: to, rlim_max: to };
    // SAFETY: the structure lives through the call.
    check(unsafe { libc::setrlimit(resource, &limit) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Process {
    /// The process that has this id now, or None.
    fn open(pid: i32) -> io::Result<Option<Process>> {
        let Some(id) = Pid::from_raw(pid) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(id, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Read after the pidfd is open: what it says is about the same process.
        let Some(started) = start_time(pid)? else { return Ok(None) };
        let identity = ProcessIdentity { pid, started, host_boot: host_boot()? };
        // SAFETY: an `OwnedFd` is open and the same descriptor for as long as it lives.
        let pidfd = unsafe { AsyncFd::register(pidfd)? };
        Ok(Some(Process { identity, pidfd }))
    }

    /// The very process that is on record, or None where it is gone.
    pub(super) fn find(identity: &ProcessIdentity) -> io::Result<Option<Process>> {
        Ok(Process::open(identity.pid)?.filter(|process| process.identity == *identity))
    }

    /// Returns when the process is gone: its files are closed, its locks are free.
    pub(super) async fn exited(&self) -> io::Result<()> {
        let _ready = self.pidfd.readable().await?;
        let wait = WaitId::PidFd(self.pidfd.get_ref().as_fd());
        match rustix::process::waitid(wait, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            // Not our child, or reaped by somebody else who waits for it.
            Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The processor time of all its threads, also of those that ended. None once it is gone.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.identity.pid)).ok()?;
        // Another may have its number by now.
        (start_time_of(&stat)? == self.identity.started).then_some(())?;
        Some(Duration::from_secs_f64(
            ticks_of(&stat)? as f64 / rustix::param::clock_ticks_per_second() as f64,
        ))
    }

    /// Ends it at once. No error where it is gone already.
    pub(super) fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Processes of machines' users whose working directory is one that is meant.
pub(super) fn working_in(is_meant: impl Fn(&Path) -> bool) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // Processes come and go while we look.
        let Ok(Some(process)) = Process::open(pid) else { continue };
        let Ok(directory) = std::fs::read_link(format!("/proc/{pid}/cwd")) else { continue };
        if is_meant(&directory) && real_user(pid).is_some_and(is_machine_user) {
            found.push(process);
        }
    }
    Ok(found)
}

fn is_machine_user(user: u32) -> bool {
    (USER_FIRST..USER_FIRST + USERS).contains(&user)
}

fn real_user(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// None where there is no such process, or only what is left of one.
fn start_time(pid: i32) -> io::Result<Option<u64>> {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(start_time_of(&stat))
}

/// The second field is the program's name in parentheses, which may hold anything, parentheses too; the third the
/// state, `Z` or `X` once the process has ended.
fn start_time_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    fields.next().filter(|state| !matches!(*state, "Z" | "X"))?;
    fields.nth(18)?.parse().ok()
}

/// Time in the program and in the kernel for it: the 14th and 15th field.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some(times.next()?? + times.next()??)
}

fn host_boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 4242 1000 200";
        assert_eq!(start_time_of(stat), Some(4242));
        assert_eq!(start_time_of(&stat.replace(") S ", ") Z ")), None, "it has ended");
        assert_eq!(start_time_of("77 (cut off"), None);
        assert_eq!((ticks_of(stat), ticks_of("77 (a) S 1 2")), (Some(5 + 6), None));
    }

    #[tokio::test]
    async fn a_process_is_known_by_more_than_its_number() {
        let own = Process::open(std::process::id() as i32).unwrap().unwrap().identity;
        assert!(Process::find(&own).unwrap().is_some());
        let earlier = ProcessIdentity { started: own.started - 1, ..own.clone() };
        assert!(Process::find(&earlier).unwrap().is_none());
        let other_boot = ProcessIdentity { host_boot: "another".into(), ..own };
        assert!(Process::find(&other_boot).unwrap().is_none());
    }

    #[test]
    fn users_stay_in_their_range() {
        let random = model::SeededRandom::new(5);
        for _ in 0..1000 {
            assert!(is_machine_user(user_of(&Id::new(model::Kind::Instance, &random))));
        }
        assert!(!is_machine_user(0));
    }
}
