//! Whether guests can run on the host's own processors: proved by running some, never taken from a device file.
//!
//! Inside other virtual machines `/dev/kvm` may be there, run a few instructions, and hang on a stock kernel. So KVM
//! counts as proved only when a Linux kernel has started under it, all the way to where it misses a root file system;
//! a boot sector that says a word goes first, since it fails sooner. Without a kernel image on this host nothing is
//! proved, and guests are translated: slow, but they run.
//!
//! The result of a proof is kept for as long as kernel, QEMU and processor stay the same.

use super::command_line::Acceleration;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A boot sector takes a fraction of a second.
const SECTOR_TIME_MAX: Duration = Duration::from_secs(3);
/// A kernel takes one or two, under nested virtualization a few more.
const KERNEL_TIME_MAX: Duration = Duration::from_secs(10);
/// A kernel says less than this until it stops.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

const WORD: &str = "cumulet";
/// What a kernel says that has found processors, timers, interrupts and memory, and then no root.
const KERNEL_WORD: &str = "VFS: Unable to mount root fs";

const DEVICE: &str = "/dev/kvm";
const CACHE: &str = "acceleration.json";
/// SeaBIOS starts from no disk that is shorter than a cylinder of 16 heads and 63 sectors.
const DISK_BYTES: usize = 1024 * 1024;
const SECTOR_FILE: &str = "boot-sector.img";

/// How guests shall run on this host, and why so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub acceleration: Acceleration,
    /// For the host's owner.
    pub why: String,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    /// What the proof was made with.
    key: String,
    proof: Proof,
}

impl Proof {
    fn tcg(why: impl Into<String>) -> Proof {
        Proof { acceleration: Acceleration::Tcg, why: why.into() }
    }
}

/// Proves KVM, or tells why it is not used. Takes seconds the first time; the result is kept in `dir`. Blocks.
pub fn prove(dir: &Path) -> Proof {
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Proof::tcg(match error.kind() {
            io::ErrorKind::NotFound => format!("there is no {DEVICE}"),
            _ => format!("{DEVICE} can't be opened: {error}"),
        });
    }
    let Some(version) = qemu_version() else { return Proof::tcg("QEMU is not installed") };
    let Some(kernel) = kernel_image() else {
        return Proof::tcg(format!("{DEVICE} is there, but no Linux kernel in /boot to prove it with"));
    };
    let key = format!("{} · {version} · {} · {}", kernel_release(), processor(), kernel.display());
    if let Some(cached) = read_cache(dir).filter(|cached| cached.key == key) {
        return cached.proof;
    }
    let proof = match prove_with(dir, &kernel, Acceleration::Kvm) {
        Ok(None) => {
            Proof { acceleration: Acceleration::Kvm, why: format!("{} started under KVM", kernel.display()) }
        }
        Ok(Some(why)) => Proof::tcg(why),
        // Nothing was learnt about KVM: not worth keeping.
        Err(error) => return Proof::tcg(format!("KVM could not be tried: {error}")),
    };
    if let Err(error) = write_cache(dir, &Cached { key, proof: proof.clone() }) {
        tracing::warn!(error = &error as &dyn std::error::Error, "proof of acceleration not kept");
    }
    proof
}

/// As `10.0.2`; None where there is no QEMU.
pub(crate) fn qemu_version() -> Option<String> {
    let output = Command::new("qemu-system-x86_64").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_once("version ")?.1.split_whitespace().next()?;
    Some(version.to_owned())
}

/// Runs both guests. None where they did what they should, else what they did not.
fn prove_with(dir: &Path, kernel: &Path, acceleration: Acceleration) -> io::Result<Option<String>> {
    let name = acceleration.as_str();
    let sector = dir.join(SECTOR_FILE);
    fs::write(&sector, boot_disk())?;
    let drive = format!("file={},format=raw,if=ide", quoted(&sector));
    let seen = run(acceleration, &["-drive".into(), drive.into()], WORD, SECTOR_TIME_MAX);
    fs::remove_file(&sector)?;
    if !seen? {
        return Ok(Some(format!("a boot sector said nothing under {name} within {SECTOR_TIME_MAX:?}")));
    }
    let arguments: [OsString; 4] = [
        "-kernel".into(),
        kernel.into(),
        "-append".into(),
        "console=ttyS0 earlyprintk=ttyS0 panic=-1".into(),
    ];
    if run(acceleration, &arguments, KERNEL_WORD, KERNEL_TIME_MAX)? {
        return Ok(None);
    }
    Ok(Some(format!("{} does not start under {name} within {KERNEL_TIME_MAX:?}", kernel.display())))
}

/// QEMU reads a comma as the end of a value unless it is doubled.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Runs a guest until it says the word on its serial console (true), ends, or the time is over.
fn run(
    acceleration: Acceleration,
    arguments: &[OsString],
    word: &str,
    time_max: Duration,
) -> io::Result<bool> {
    let cpu = if acceleration == Acceleration::Kvm { "host" } else { "max" };
    let mut guest = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-machine", "q35", "-accel", acceleration.as_str(), "-cpu", cpu, "-m", "256"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let said = match guest.stdout.take() {
        Some(stdout) => wait_for(stdout, word, time_max),
        None => Ok(false),
    };
    guest.kill()?;
    guest.wait()?;
    said
}

fn wait_for(mut output: impl Read + AsFd, word: &str, time_max: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + time_max;
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    while said.len() < OUTPUT_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [rustix::event::PollFd::new(&output, rustix::event::PollFlags::IN)];
        if rustix::event::poll(&mut ready, Some(&left))? == 0 {
            return Ok(false);
        }
        let length = output.read(&mut piece)?;
        if length == 0 {
            return Ok(false);
        }
        said.extend_from_slice(&piece[..length]);
        if said.windows(word.len()).any(|window| window == word.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A disk whose first sector says the word on the serial port and halts.
fn boot_disk() -> Vec<u8> {
    const CODE: [u8; 22] = [
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xfc, // cld
        0xbe, 0x16, 0x7c, // mov si, the word's place behind the code
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz to the halt
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf5, // jmp to the lodsb
        0xf4, // hlt
        0xeb, 0xfd, // jmp to the halt
    ];
    let mut disk = vec![0; DISK_BYTES];
    disk[..CODE.len()].copy_from_slice(&CODE);
    disk[CODE.len()..CODE.len() + WORD.len()].copy_from_slice(WORD.as_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// The running kernel's image, else any.
fn kernel_image() -> Option<PathBuf> {
    let release = kernel_release();
    let own = [format!("/boot/vmlinuz-{release}"), format!("/lib/modules/{release}/vmlinuz")];
    let own = own.into_iter().map(PathBuf::from).find(|path| path.is_file());
    own.or_else(|| {
        let entries = fs::read_dir("/boot").ok()?.filter_map(Result::ok).map(|entry| entry.path());
        let is_kernel = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vmlinuz"))
        };
        entries.filter(|path| is_kernel(path) && path.is_file()).max()
    })
}

/// The release of the running kernel, as `uname -r` says it.
pub(crate) fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    name.map_or("unknown processor", |(_, name)| name).to_owned()
}

/// What can't be read is made anew.
fn read_cache(dir: &Path) -> Option<Cached> {
    serde_json::from_slice(&fs::read(dir.join(CACHE)).ok()?).ok()
}

fn write_cache(dir: &Path, cached: &Cached) -> io::Result<()> {
    let new = dir.join(format!("{CACHE}.new"));
    fs::write(&new, serde_json::to_vec_pretty(cached)?)?;
    fs::rename(new, dir.join(CACHE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_says_its_word_where_guests_run() {
        if qemu_version().is_none() {
            eprintln!("skipped: needs qemu-system-x86_64");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        // Translated guests run everywhere; a file that is no kernel starts nowhere.
        let no_kernel = dir.path().join("no-kernel");
        fs::write(&no_kernel, "no kernel").unwrap();
        let why = prove_with(dir.path(), &no_kernel, Acceleration::Tcg).unwrap();
        assert!(why.is_some_and(|why| why.contains("no-kernel does not start")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_guest_that_says_nothing_costs_a_bounded_time() {
        let mut mute = Command::new("sleep").arg("600").stdout(Stdio::piped()).spawn().unwrap();
        let said = wait_for(mute.stdout.take().unwrap(), "word", Duration::from_millis(50));
        mute.kill().unwrap();
        mute.wait().unwrap();
        assert!(!said.unwrap());
        assert!(!wait_for(fs::File::open("/dev/null").unwrap(), "word", Duration::from_secs(60)).unwrap());
        let endless = wait_for(fs::File::open("/dev/zero").unwrap(), "word", Duration::from_secs(60));
        assert!(!endless.unwrap());
    }

    #[test]
    fn a_proof_is_kept_and_a_broken_one_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let proof = Proof::tcg("because");
        write_cache(dir.path(), &Cached { key: "key".into(), proof: proof.clone() }).unwrap();
        let cached = read_cache(dir.path()).unwrap();
        assert_eq!((cached.key.as_str(), cached.proof), ("key", proof));
        fs::write(dir.path().join(CACHE), "{").unwrap();
        assert!(read_cache(dir.path()).is_none());
    }
}
