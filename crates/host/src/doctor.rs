//! What this host can do for guests, in words for its owner. Looks only, but for the guests that prove acceleration.
//! What the network needs is told by `net::LinuxNetwork::diagnose`.

use crate::machine::{
    Acceleration, Groups, Proof, firmware_files, has_tpm, kernel_release, prove, qemu_version,
};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Debian 12's: what the command line is written for.
const QEMU_VERSION_LEAST: (u32, u32) = (7, 2);
/// A Debian image and a few instances of it.
const DISK_GIB_WANTED: u64 = 10;
/// The daemon and a few small guests.
const MEMORY_MIB_WANTED: u64 = 2048;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Good,
    /// Works, but less well.
    Warning,
    /// Instances can't run.
    Bad,
}

impl Finding {
    fn good(what: &str, detail: impl Into<String>) -> Finding {
        Finding { what: what.to_owned(), state: State::Good, detail: detail.into(), advice: None }
    }

    fn warning(what: &str, detail: impl Into<String>, advice: &str) -> Finding {
        let advice = Some(advice.to_owned());
        Finding { what: what.to_owned(), state: State::Warning, detail: detail.into(), advice }
    }

    fn bad(what: &str, detail: impl Into<String>, advice: &str) -> Finding {
        Finding { state: State::Bad, ..Finding::warning(what, detail, advice) }
    }
}

/// All findings. `data_dir` need not be there yet; the proof of acceleration is kept in it where it is. Takes seconds
/// the first time. Blocks.
pub fn examine(data_dir: &Path) -> Vec<Finding> {
    vec![
        privileges(),
        qemu(qemu_version()),
        qemu_img(),
        firmware(),
        tpm(),
        acceleration(prove(data_dir)),
        disk(data_dir),
        memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        control_groups(&Groups::find(data_dir).missing()),
        namespaces(),
        vxlan(),
    ]
}

fn privileges() -> Finding {
    let what = "privileges";
    if rustix::process::geteuid().is_root() {
        return Finding::good(what, "root");
    }
    Finding::bad(what, "not root", "run as root; 'cumulet serve --simulate' needs no rights")
}

fn qemu(version: Option<String>) -> Finding {
    let (what, package) = ("QEMU", "apt-get install qemu-system-x86");
    let Some(version) = version else { return Finding::bad(what, "not installed", package) };
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if number >= QEMU_VERSION_LEAST {
        return Finding::good(what, version);
    }
    let (major, minor) = QEMU_VERSION_LEAST;
    Finding::bad(what, version, &format!("install QEMU {major}.{minor} or later"))
}

fn qemu_img() -> Finding {
    let what = "qemu-img";
    match Command::new("qemu-img").arg("--version").output() {
        Ok(output) if output.status.success() => Finding::good(what, "installed"),
        _ => Finding::bad(what, "not installed", "apt-get install qemu-utils"),
    }
}

fn firmware() -> Finding {
    let what = "UEFI firmware";
    match firmware_files() {
        Some(files) if !std::path::Path::new(files.secure_code).exists() => {
            Finding::warning(what, "without Secure Boot", "apt-get install ovmf")
        }
        Some(files) => Finding::good(what, files.code),
        None => {
            Finding::warning(what, "not installed: only images that boot by BIOS run", "apt-get install ovmf")
        }
    }
}

fn tpm() -> Finding {
    let what = "TPM 2.0";
    match has_tpm() {
        true => Finding::good(what, "swtpm"),
        false => Finding::warning(
            what,
            "not installed: images that want one (TpmSupport) don't run",
            "apt-get install swtpm",
        ),
    }
}

fn acceleration(proof: Proof) -> Finding {
    let what = "acceleration";
    match proof.acceleration {
        Acceleration::Kvm => Finding::good(what, format!("KVM: {}", proof.why)),
        Acceleration::Tcg => Finding::warning(
            what,
            format!("translation (TCG), several times slower: {}", proof.why),
            "use a machine whose /dev/kvm runs stock kernels: real hardware, or nested virtualization switched on",
        ),
    }
}

fn disk(data_dir: &Path) -> Finding {
    let what = "free disk";
    // The directory may not have been made yet.
    let Some(path) = data_dir.ancestors().find(|path| path.is_dir()) else {
        return Finding::bad(
            what,
            format!("{} can't be seen", data_dir.display()),
            "choose another data directory",
        );
    };
    let Ok(space) = rustix::fs::statvfs(path) else {
        return Finding::warning(what, format!("unknown at {}", path.display()), "look at it with df");
    };
    let free_gib = space.f_bavail.saturating_mul(space.f_frsize) >> 30;
    let detail = format!("{free_gib} GiB at {}", path.display());
    if free_gib >= DISK_GIB_WANTED {
        return Finding::good(what, detail);
    }
    let advice = format!("make room: an image and a few instances of it take {DISK_GIB_WANTED} GiB");
    Finding::warning(what, detail, &advice)
}

fn memory(meminfo: &str) -> Finding {
    let what = "free memory";
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let Some(kib) = kib else { return Finding::warning(what, "unknown", "look at it with free") };
    let mib = kib / 1024;
    if mib >= MEMORY_MIB_WANTED {
        return Finding::good(what, format!("{mib} MiB"));
    }
    Finding::warning(
        what,
        format!("{mib} MiB"),
        &format!("small guests and the daemon take {MEMORY_MIB_WANTED} MiB"),
    )
}

fn control_groups(missing: &[&str]) -> Finding {
    let what = "control groups";
    if missing.is_empty() {
        return Finding::good(what, "cpu, memory");
    }
    Finding::warning(
        what,
        format!("without {}: guests are not held to their type's share of it", missing.join(", ")),
        "boot with systemd.unified_cgroup_hierarchy=1; in a container, give it the host's control groups to write",
    )
}

fn namespaces() -> Finding {
    let what = "network namespaces";
    if Path::new("/proc/self/ns/net").exists() {
        return Finding::good(what, "in the kernel");
    }
    Finding::bad(what, "not in the kernel", "use a kernel with CONFIG_NET_NS")
}

/// The network between hosts; one alone does without.
fn vxlan() -> Finding {
    let what = "vxlan";
    let loaded = Path::new("/sys/module/vxlan").exists();
    if loaded || has_module("vxlan") {
        return Finding::good(what, "in the kernel");
    }
    Finding::warning(what, "not in the kernel: this host can't share VPCs with others", "modprobe vxlan")
}

/// Whether the kernel was built with the module, inside or beside.
fn has_module(name: &str) -> bool {
    let release = kernel_release();
    let lists = ["modules.builtin", "modules.dep"].map(|list| format!("/lib/modules/{release}/{list}"));
    let file = format!("/{name}.ko");
    lists.iter().filter_map(|list| fs::read_to_string(list).ok()).any(|text| text.contains(&file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_advice() {
        assert_eq!(qemu(Some("10.0.2".into())).state, State::Good);
        assert_eq!(qemu(Some("7.2.11".into())).state, State::Good);
        assert_eq!(qemu(Some("6.2.0".into())).state, State::Bad);
        assert_eq!(qemu(None).state, State::Bad);
        assert_eq!(control_groups(&[]).state, State::Good);
        assert!(control_groups(&["cpu", "memory"]).detail.contains("without cpu, memory"));
        assert_eq!(memory("MemTotal: 9 kB\nMemAvailable:   8388608 kB\n").detail, "8192 MiB");
        assert_eq!(memory("MemAvailable: 1024 kB\n").state, State::Warning);
        assert_eq!(memory("").state, State::Warning);
        let tcg = Proof { acceleration: Acceleration::Tcg, why: "there is no /dev/kvm".into() };
        assert!(acceleration(tcg).detail.ends_with("there is no /dev/kvm"));
    }

    #[test]
    fn whatever_is_not_good_comes_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let findings = examine(&dir.path().join("not/made/yet"));
        assert!(findings.iter().any(|finding| finding.what == "acceleration"));
        for finding in findings {
            assert_eq!(finding.state == State::Good, finding.advice.is_none(), "{finding:?}");
        }
    }
}
