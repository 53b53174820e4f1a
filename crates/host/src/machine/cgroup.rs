//! The control group of each machine: its share of the processors, and how much memory its process may take.
//!
//! ```text
//!   v2   <mount>/cumulet-<cloud>/i-…                              cpu and memory
//!   v1   <mount>/<the daemon's own group>/cumulet-<cloud>/i-…     one for cpu, one for memory
//! ```
//!
//! Under v2 the groups lie beside the daemon's own, as those of other hypervisors do, since a group that has processes
//! can't hand controllers on, and so that a service manager that ends the daemon's group leaves the machines alone. A
//! few files are written and no more, so no crate is taken for it: `cgroups-rs` would bring a D-Bus client along.
//!
//! Invariants: a machine's group is made before its process, which enters it before it has any memory of its guest's;
//! where a group can't be made the machine runs without, and `missing` says so to the doctor.

use super::MachineSpec;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// What QEMU needs beside the guest's memory: its own code and tables, the translated code, the screen, buffers.
const OVERHEAD: u64 = 640 * MIB;
/// Stacks and, under emulation, tables of each virtual processor.
const OVERHEAD_EACH_VCPU: u64 = 16 * MIB;
/// Page tables and what the kernel keeps of each page: a part of the guest's memory.
const OVERHEAD_PART: u64 = 64;

/// Weights are relative among machines; these fit the largest types into what the kernel takes (1 to 10,000 under v2,
/// 2 to 262,144 under v1).
const WEIGHT_EACH_VCPU: u64 = 10;
const SHARES_EACH_VCPU: u64 = 256;

/// All machines together weigh as much as a busy program on each of the host's processors.
const WEIGHT_EACH_CORE: u64 = 100;
const WEIGHT_MAX: u64 = 10_000;
const SHARES_EACH_CORE: u64 = 1024;
const SHARES_MAX: u64 = 262_144;

/// Over which a limit on processor time is kept.
const PERIOD_US: u64 = 100_000;

/// The kernel may count a process in for a moment after it has ended.
const REMOVAL_TIME_MAX: Duration = Duration::from_secs(1);
const REMOVAL_ROUND: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    One,
    Two,
}

/// A directory of one hierarchy, and what of it we use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    directory: PathBuf,
    version: Version,
    cpu: bool,
    memory: bool,
}

/// Where the groups of one cloud's machines are.
#[derive(Debug)]
pub(crate) struct Groups {
    parts: Vec<Part>,
    /// Held while directories come and go.
    changing: Mutex<()>,
}

/// The group of one machine, one directory a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    parts: Vec<Part>,
}

impl Groups {
    /// Looks only. Clouds are told apart by the directory that their machines are kept in.
    pub(crate) fn find(root: &Path) -> Groups {
        let name = format!("cumulet-{}", &blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex()[..8]);
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut parts = parts(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup"), &is_usable);
        parts.iter_mut().for_each(|part| part.directory.push(&name));
        Groups { parts, changing: Mutex::default() }
    }

    /// What machines are not held to here: `cpu`, `memory`.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let has_cpu = self.parts.iter().any(|part| part.cpu);
        let has_memory = self.parts.iter().any(|part| part.memory);
        let missing = [("cpu", has_cpu), ("memory", has_memory)].into_iter().filter(|(_, has)| !has);
        missing.map(|(name, _)| name).collect()
    }

    /// Makes the group of a machine, or makes it anew where it is there.
    pub(super) fn make(&self, spec: &MachineSpec) -> io::Result<Group> {
        let _changing = self.changing.lock();
        let mut group = Group { parts: self.parts.clone() };
        for part in &mut group.parts {
            part.make_parent()?;
            part.directory.push(spec.instance_id.as_str());
            part.make(spec)?;
        }
        Ok(group)
    }

    /// Removes the group of a machine whose process is gone. Blocks for a moment where the kernel is not done with it.
    pub(super) fn remove(&self, group: &Group) {
        for part in &group.parts {
            if let Err(error) = remove(&part.directory) {
                let directory = part.directory.display();
                tracing::warn!(error = &error as &dyn std::error::Error, %directory, "control group not removed");
            }
        }
        self.remove_parents(group.parts.iter().filter_map(|part| part.directory.parent()));
    }

    /// Removes the groups of all machines but those named.
    pub(super) fn sweep(&self, keep: &BTreeSet<&str>) {
        for part in &self.parts {
            let Ok(entries) = fs::read_dir(&part.directory) else { continue };
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                let is_kept = entry.file_name().to_str().is_none_or(|name| keep.contains(name));
                if !is_kept && let Err(error) = remove(&entry.path()) {
                    let directory = entry.path().display().to_string();
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        directory,
                        "control group not swept"
                    );
                }
            }
        }
        self.remove_parents(self.parts.iter().map(|part| part.directory.as_path()));
    }

    /// Where no machine is left in them.
    fn remove_parents<'a>(&self, parents: impl Iterator<Item = &'a Path>) {
        let _changing = self.changing.lock();
        for parent in parents {
            // Refused while one is.
            let _ = fs::remove_dir(parent);
        }
    }
}

impl Part {
    fn make_parent(&self) -> io::Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        if self.version == Version::Two
            && let Some(above) = self.directory.parent()
        {
            self.hand_on(above)?;
        }
        make_directory(&self.directory)?;
        if self.version == Version::Two {
            self.hand_on(&self.directory)?;
        }
        if self.cpu {
            match self.version {
                Version::One => self.write("cpu.shares", (SHARES_EACH_CORE * cores).min(SHARES_MAX))?,
                Version::Two => self.write("cpu.weight", (WEIGHT_EACH_CORE * cores).min(WEIGHT_MAX))?,
            }
        }
        Ok(())
    }

    /// Under v2 a directory has the controllers that the one above it hands on.
    fn hand_on(&self, from: &Path) -> io::Result<()> {
        let wanted = [(self.cpu, "+cpu"), (self.memory, "+memory")];
        let wanted: Vec<&str> = wanted.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        fs::write(from.join("cgroup.subtree_control"), wanted.join(" "))
    }

    fn make(&self, spec: &MachineSpec) -> io::Result<()> {
        make_directory(&self.directory)?;
        let vcpus = u64::from(spec.vcpus);
        match self.version {
            Version::One if self.cpu => self.write("cpu.shares", SHARES_EACH_VCPU * vcpus)?,
            Version::Two if self.cpu => self.write("cpu.weight", WEIGHT_EACH_VCPU * vcpus)?,
            _ => {}
        }
        match self.version {
            Version::One if self.memory => self.write("memory.limit_in_bytes", memory_max(spec))?,
            Version::Two if self.memory => self.write("memory.max", memory_max(spec))?,
            _ => {}
        }
        if self.cpu { self.limit(None) } else { Ok(()) }
    }

    /// In thousandths of a processor.
    fn limit(&self, processors_milli: Option<u32>) -> io::Result<()> {
        let quota_us = processors_milli.map(|milli| (u64::from(milli) * PERIOD_US / 1000).max(1000));
        match (self.version, quota_us) {
            (Version::One, None) => self.write("cpu.cfs_quota_us", -1),
            (Version::One, Some(quota)) => {
                self.write("cpu.cfs_period_us", PERIOD_US)?;
                self.write("cpu.cfs_quota_us", quota)
            }
            (Version::Two, None) => self.write("cpu.max", format!("max {PERIOD_US}")),
            (Version::Two, Some(quota)) => self.write("cpu.max", format!("{quota} {PERIOD_US}")),
        }
    }

    fn write(&self, file: &str, value: impl ToString) -> io::Result<()> {
        fs::write(self.directory.join(file), value.to_string())
    }
}

impl Group {
    /// Files by which a process enters: it writes `0` to each.
    pub(super) fn doors(&self) -> io::Result<Vec<File>> {
        let open = |part: &Part| OpenOptions::new().write(true).open(part.directory.join("cgroup.procs"));
        self.parts.iter().map(open).collect()
    }

    /// Limits the machine to so many thousandths of a processor. False where that can't be kept here.
    pub(super) fn limit_cpu(&self, processors_milli: Option<u32>) -> io::Result<bool> {
        let Some(part) = self.parts.iter().find(|part| part.cpu) else { return Ok(false) };
        part.limit(processors_milli).map(|()| true)
    }
}

fn memory_max(spec: &MachineSpec) -> u64 {
    let guest = spec.memory_mib.saturating_mul(MIB);
    let vcpus = u64::from(spec.vcpus) * OVERHEAD_EACH_VCPU;
    guest.saturating_add(guest / OVERHEAD_PART).saturating_add(OVERHEAD + vcpus)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let mut left = REMOVAL_TIME_MAX;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && !left.is_zero() => {
                std::thread::sleep(REMOVAL_ROUND);
                left = left.saturating_sub(REMOVAL_ROUND);
            }
            done => return done,
        }
    }
}

/// The directories that ours go below: of v2 where it has the controller, else of v1. `mountinfo` and `own` are those
/// files of `/proc/self` (proc_pid_mountinfo(5), cgroups(7)).
fn parts(mountinfo: &str, own: &str, is_usable: &dyn Fn(&Path, &str) -> bool) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut found = BTreeSet::new();
    for version in [Version::Two, Version::One] {
        for controller in ["cpu", "memory"] {
            let mut mounts =
                mountinfo.lines().filter_map(Mount::read).filter(|mount| mount.version == version);
            let mount = mounts.find(|mount| match version {
                Version::Two => is_usable(&mount.point, controller),
                Version::One => mount.options.split(',').any(|option| option == controller),
            });
            let Some(mount) = mount else { continue };
            if !found.insert(controller) {
                continue;
            }
            let directory = match version {
                Version::Two => mount.point.clone(),
                Version::One => mount.below(own_group(own, controller)),
            };
            let (cpu, memory) = (controller == "cpu", controller == "memory");
            match parts.iter_mut().find(|part| part.directory == directory) {
                Some(part) => {
                    part.cpu |= cpu;
                    part.memory |= memory;
                }
                None => parts.push(Part { directory, version, cpu, memory }),
            }
        }
    }
    parts
}

/// Whether the top of a v2 hierarchy has the controller and can hand it on: one that has processes can't, but for the
/// very first, which bears no type.
fn is_usable(mount: &Path, controller: &str) -> bool {
    let text = |name: &str| fs::read_to_string(mount.join(name)).ok();
    let has = |name| text(name).is_some_and(|list| list.split_whitespace().any(|had| had == controller));
    let is_first = text("cgroup.type").is_none();
    let is_empty = || text("cgroup.procs").is_some_and(|processes| processes.trim().is_empty());
    has("cgroup.controllers") && (is_first || has("cgroup.subtree_control") || is_empty())
}

struct Mount<'a> {
    /// What of the hierarchy is mounted.
    root: &'a Path,
    point: PathBuf,
    version: Version,
    options: &'a str,
}

impl Mount<'_> {
    fn read(line: &str) -> Option<Mount<'_>> {
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (Path::new(place.next()?), PathBuf::from(place.next()?));
        let mut what = what.split(' ');
        let version = match what.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Mount { root, point, version, options: what.nth(1)? })
    }

    /// Where a group of the hierarchy is seen; the top of what is mounted where it is not seen at all.
    fn below(&self, group: &Path) -> PathBuf {
        match group.strip_prefix(self.root) {
            Ok(rest) if !rest.as_os_str().is_empty() => self.point.join(rest),
            _ => self.point.clone(),
        }
    }
}

fn own_group<'a>(own: &'a str, controller: &str) -> &'a Path {
    let group = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let is_it = fields.next()?.split(',').any(|name| name == controller);
        fields.next().filter(|_| is_it)
    });
    Path::new(group.unwrap_or("/"))
}

#[cfg(test)]
mod tests {
    use super::super::Firmware;
    use super::*;
    use model::{Id, Kind};

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
        53 52 0:28 / /tmp/other/cpu rw,relatime - cgroup cgroup rw,cpu\n";
    const OWN: &str = "4:memory:/system.slice/x\n1:cpu,cpuacct:/\n0::/\n";

    fn spec(vcpus: u32, memory_mib: u64) -> MachineSpec {
        MachineSpec {
            instance_id: Id::parse(Kind::Instance, "i-0123456789abcdef0").unwrap(),
            boot: 1,
            instance_type: "t3.micro".into(),
            firmware: Firmware::Bios,
            uefi_variables: vec![],
            tpm: false,
            vcpus,
            threads_per_core: 1,
            memory_mib,
            disks: vec![],
            scratch: vec![],
            nics: vec![],
            nics_max: 1,
        }
    }

    #[test]
    fn the_second_version_is_taken_where_it_has_the_controllers() {
        let one = |directory: &str, cpu, memory| Part {
            directory: directory.into(),
            version: Version::One,
            cpu,
            memory,
        };
        let memory = one("/sys/fs/cgroup/memory/system.slice/x", false, true);
        let first = [one("/sys/fs/cgroup/cpu,cpuacct", true, false), memory.clone()];
        assert_eq!(parts(HYBRID, OWN, &|_, _| false), first);
        let two = |memory| Part {
            directory: "/sys/fs/cgroup/unified".into(),
            version: Version::Two,
            cpu: true,
            memory,
        };
        assert_eq!(parts(HYBRID, OWN, &|_, _| true), [two(true)]);
        assert_eq!(parts(HYBRID, OWN, &|_, controller| controller == "cpu"), [two(false), memory]);
        assert_eq!(parts("", "", &|_, _| true), []);
    }

    #[test]
    fn a_group_is_seen_from_where_its_hierarchy_is_mounted() {
        let inside = "1 2 0:3 /docker/a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let seen = |own: &str| parts(inside, own, &|_, _| false)[0].directory.clone();
        assert_eq!(seen("1:cpu:/docker/a/b\n"), Path::new("/sys/fs/cgroup/cpu/b"));
        assert_eq!(seen("1:cpu:/\n"), Path::new("/sys/fs/cgroup/cpu"));
    }

    #[test]
    fn a_second_version_that_can_not_hand_on_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert!(!is_usable(dir.path(), "cpu"));
        write("cgroup.controllers", "cpu memory\n");
        assert!(is_usable(dir.path(), "cpu") && !is_usable(dir.path(), "io"));
        write("cgroup.type", "domain\n");
        write("cgroup.procs", "1\n");
        assert!(!is_usable(dir.path(), "cpu"));
        write("cgroup.subtree_control", "cpu\n");
        assert!(is_usable(dir.path(), "cpu") && !is_usable(dir.path(), "memory"));
        write("cgroup.procs", "");
        assert!(is_usable(dir.path(), "memory"));
    }

    /// Plain files stand for the kernel's.
    #[test]
    fn weights_follow_the_processors_and_the_limit_is_above_the_memory() {
        for version in [Version::One, Version::Two] {
            let dir = tempfile::tempdir().unwrap();
            let directory = dir.path().join("cumulet-1");
            let part = Part { directory: directory.clone(), version, cpu: true, memory: true };
            let groups = Groups { parts: vec![part], changing: Mutex::default() };
            let group = groups.make(&spec(2, 1024)).unwrap();
            let text =
                |name: &str| fs::read_to_string(directory.join("i-0123456789abcdef0").join(name)).unwrap();
            let (weight, memory, quota) = match version {
                Version::One => ("cpu.shares", "memory.limit_in_bytes", "cpu.cfs_quota_us"),
                Version::Two => ("cpu.weight", "memory.max", "cpu.max"),
            };
            let of_two: u64 = text(weight).parse().unwrap();
            let limit: u64 = text(memory).parse().unwrap();
            assert!((1024 * MIB..2048 * MIB).contains(&limit), "{limit}");
            assert!(group.limit_cpu(Some(200)).unwrap());
            assert!(text(quota).starts_with("20000"));
            groups.make(&spec(8, 1024)).unwrap();
            assert_eq!(text(weight).parse::<u64>().unwrap(), 4 * of_two);
            assert!(!text(quota).starts_with("20000"), "a new start is not limited");
            assert_eq!(groups.missing(), [""; 0]);
        }
        let none = Groups { parts: vec![], changing: Mutex::default() };
        assert_eq!(none.missing(), ["cpu", "memory"]);
        let group = none.make(&spec(1, 64)).unwrap();
        assert!(!group.limit_cpu(None).unwrap());
    }
}
