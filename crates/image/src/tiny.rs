//! The tiny image: a kernel, busybox and dropbear from Debian's packages, and the few shell scripts in `tiny/` that
//! make an EC2 instance of them.
//!
//! ```text
//! firmware → GRUB → kernel + RAM disk (busybox, virtio_blk) → /sbin/init (busybox)
//!                                   → start: mounts, drivers, growth → getty on ttyS0
//!                                   → cloud: DHCP of both families → token → host name, host keys, owner's key → dropbear → user data
//! ```
//!
//! Invariants: what happens once happens once per instance id, never per boot; the root file system persists; no
//! package manager is inside, and `/boot/vmlinuz` with `/boot/initrd.img` is what boots next.

use crate::apt::Tree;
use crate::command::Log;
use crate::cpio::Archive;
use crate::disk::{Contents, Uuid};
use crate::grub;
use crate::tree::{self, Text, copy, read, script, text, write};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What the image is made of. The kernel's own dependencies come along but stay behind in the scratch tree.
const PACKAGES: &[&str] = &[
    "linux-image-cloud-amd64",
    "busybox-static",
    "dropbear-bin",
    "openssh-sftp-server",
    "e2fsprogs",
    "fdisk",
    "util-linux",
    "kmod",
    "libc-bin",
    "dhcpcd-base",
];

/// Programs besides busybox's, with the libraries they name.
const PROGRAMS: &[&str] = &[
    "usr/sbin/dropbear",
    "usr/bin/dropbearkey",
    "usr/lib/openssh/sftp-server",
    "usr/sbin/dhcpcd",
    "sbin/resize2fs",
    "sbin/sfdisk",
    "usr/bin/partx",
];

/// In the RAM disk, with what they depend on. ext4 and NVMe are built in.
const EARLY_MODULES: &[&str] = &["virtio_pci", "virtio_blk"];

/// On the root file system, with what they depend on.
const MODULES: &[&str] = &[
    "virtio_net",
    "virtio-rng",
    "virtio_balloon",
    "virtio_scsi",
    "virtio_console",
    "vmw_vsock_virtio_transport",
    "button",
    "evdev",
    "ena",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "loop",
    "dummy",
    "vxlan",
    "nbd",
    "xfs",
    "isofs",
    "efivarfs",
];

/// For a quick start under emulation, where probing what isn't there costs most.
const KERNEL_PARAMETERS: &str = "console=tty0 console=ttyS0,115200 quiet nokaslr mitigations=off edd=off tsc=reliable \
    no_timer_check rcupdate.rcu_expedited=1 random.trust_cpu=on 8250.nr_uarts=1 i8042.noaux i8042.nokbd \
    cryptomgr.notests audit=0 net.ifnames=0 panic=10";

const ROOT_INSIDE: &str = "tiny";

const INIT: &str = include_str!("tiny/init");

const FILES: &[Text] = &[
    script("usr/lib/tiny/start", include_str!("tiny/start")),
    script("usr/lib/tiny/stop", include_str!("tiny/stop")),
    script("usr/lib/tiny/grow", include_str!("tiny/grow")),
    script("usr/lib/tiny/nic", include_str!("tiny/nic")),
    script("usr/lib/tiny/dhcp", include_str!("tiny/dhcp")),
    script("usr/lib/tiny/dhcp6", include_str!("tiny/dhcp6")),
    script("usr/lib/tiny/resolvers", include_str!("tiny/resolvers")),
    script("usr/bin/imds", include_str!("tiny/imds")),
    script("usr/lib/tiny/cloud", include_str!("tiny/cloud")),
    script("etc/acpi/PWRF/00000080", include_str!("tiny/poweroff")),
    text("etc/inittab", include_str!("tiny/inittab")),
    text("etc/mdev.conf", include_str!("tiny/mdev.conf")),
    text("etc/passwd", include_str!("tiny/passwd")),
    text("etc/group", include_str!("tiny/group")),
    text("etc/profile", include_str!("tiny/profile")),
    text("etc/hostname", "tiny\n"),
    text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    text("etc/shells", "/bin/sh\n"),
    text("etc/resolv.conf", ""),
    text("etc/dhcpcd.conf", include_str!("tiny/dhcpcd.conf")),
];

/// What a disk is made from, for its cache key.
pub(crate) fn ingredients() -> Vec<&'static str> {
    let contents = FILES.iter().map(|file| file.content);
    contents.chain([INIT, include_str!("tiny.rs"), include_str!("cpio.rs")]).collect()
}

/// Builds the disk at `disk`, with scratch files in `work`.
pub(crate) fn build(log: &Log, work: &Path, disk: &Path, size_gib: u32, step: &dyn Fn(&str)) -> Result<()> {
    let (source, efi) = (work.join("packages"), work.join("efi"));
    // Inside the packages' tree, where their programs can reach it.
    let root = source.join(ROOT_INSIDE);
    step("getting Debian's packages");
    let packages = [PACKAGES, grub::PACKAGES].concat();
    Tree { variant: "extract", packages: &packages, options: &[] }.make(log, work, &source)?;
    step("putting the system together");
    let uuid = Uuid::random();
    let kernel = Kernel::find(log, &source)?;
    make_directories(&root)?;
    install_programs(log, &source, &root)?;
    kernel.install(log, &root)?;
    tree::install(&root, FILES)?;
    write(&root.join("boot/grub/grub.cfg"), grub_configuration(uuid).as_bytes(), 0o644)?;
    grub::efi_system(&source, &efi, uuid)?;
    step("writing the disk");
    let (bios_boot, bios_core) = (grub::bios_boot(&source)?, grub::bios_core(log, &source)?);
    Contents { root: &root, root_uuid: uuid, efi: &efi, bios_boot, bios_core }.write(log, disk, size_gib)
}

/// Commands without a menu: the kernel starts as soon as it is read.
fn grub_configuration(root: Uuid) -> String {
    format!(
        "{}linux$bits /boot/vmlinuz root=UUID={root} {KERNEL_PARAMETERS}\ninitrd$bits /boot/initrd.img\nboot\n",
        grub::QUICK_LOADER
    )
}

fn make_directories(root: &Path) -> Result<()> {
    for directory in [
        "boot",
        "dev",
        "etc/dropbear",
        "home",
        "mnt",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "usr/lib/tiny",
        "usr/lib64",
        "usr/sbin",
        "usr/lib/x86_64-linux-gnu",
        "var/lib/cloud/instances",
        "var/log",
        "var/tmp",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    symlink("/run", root.join("var/run"))?;
    for (directory, permissions) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(permissions))?;
    }
    Ok(())
}

/// busybox under all its names, then the programs that replace some of them.
fn install_programs(log: &Log, source: &Path, root: &Path) -> Result<()> {
    copy(&source.join("bin/busybox"), &root.join("usr/bin/busybox"))?;
    let names =
        log.program("chroot", "coreutils").arg(source).args(["/bin/busybox", "--list-full"]).stdout()?;
    for name in String::from_utf8_lossy(&names).lines() {
        let link = root.join(merged(name));
        if fs::symlink_metadata(&link).is_err() {
            symlink("/bin/busybox", link)?;
        }
    }
    let mut files: BTreeSet<PathBuf> = PROGRAMS.iter().map(PathBuf::from).collect();
    for program in PROGRAMS {
        files.extend(libraries(log, source, program)?);
    }
    for file in files {
        let target = root.join(merged(&file.to_string_lossy()));
        // A name of busybox's would be written through.
        let _ = fs::remove_file(&target);
        copy(&source.join(&file), &target)?;
    }
    symlink("openssh/sftp-server", root.join("usr/lib/sftp-server"))?;
    Ok(())
}

/// What the dynamic loader would load for a program, its own path included.
fn libraries(log: &Log, source: &Path, program: &str) -> Result<Vec<PathBuf>> {
    let loader = ["/lib64/ld-linux-x86-64.so.2", "--list"];
    let listing =
        log.program("chroot", "coreutils").arg(source).args(loader).arg(format!("/{program}")).stdout()?;
    let absolute =
        |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix('/').map(PathBuf::from));
    Ok(String::from_utf8_lossy(&listing).lines().filter_map(absolute).collect())
}

/// `/bin`, `/sbin`, `/lib` and `/lib64` are links into `/usr`, as in Debian.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    if path.starts_with("usr/") { path.to_owned() } else { format!("usr/{path}") }
}

/// A kernel in the tree of packages.
struct Kernel<'s> {
    source: &'s Path,
    release: String,
    /// `modules.dep`: of each module, relative to its release's directory, those it needs.
    dependencies: String,
}

impl Kernel<'_> {
    fn find<'s>(log: &Log, source: &'s Path) -> Result<Kernel<'s>> {
        let modules = source.join("lib/modules");
        let mut releases: Vec<_> = fs::read_dir(&modules)?
            .map(|entry| Ok(entry?.file_name().into_string()))
            .collect::<Result<_>>()?;
        releases.sort();
        let release = releases.pop().and_then(Result::ok).context("the kernel package holds no modules")?;
        log.program("chroot", "coreutils").arg(source).args(["/sbin/depmod", &release]).run()?;
        let dependencies = fs::read_to_string(modules.join(&release).join("modules.dep"))?;
        Ok(Kernel { source, release, dependencies })
    }

    fn modules(&self) -> PathBuf {
        self.source.join("lib/modules").join(&self.release)
    }

    fn install(&self, log: &Log, root: &Path) -> Result<()> {
        copy(&self.source.join(format!("boot/vmlinuz-{}", self.release)), &root.join("boot/vmlinuz"))?;
        write(&root.join("boot/initrd.img"), &self.ram_disk()?, 0o644)?;
        let directory = format!("lib/modules/{}", self.release);
        let mut modules = BTreeSet::new();
        for name in EARLY_MODULES.iter().chain(MODULES) {
            modules.extend(with_dependencies(&self.dependencies, name)?);
        }
        let lists = ["modules.builtin", "modules.builtin.modinfo", "modules.order"].map(str::to_owned);
        for file in modules.into_iter().chain(lists) {
            copy(&self.modules().join(&file), &root.join("usr").join(&directory).join(&file))?;
        }
        let depmod = log.program("chroot", "coreutils").arg(self.source).args(["/sbin/depmod", "-b"]);
        depmod.arg(format!("/{ROOT_INSIDE}")).arg(&self.release).run()
    }

    fn ram_disk(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "lib", "proc", "root", "sys"] {
            archive.directory(directory);
        }
        archive.file("bin/busybox", 0o755, &read(&self.source.join("bin/busybox"))?);
        archive.file("init", 0o755, INIT.as_bytes());
        let mut order: Vec<String> = Vec::new();
        for module in EARLY_MODULES {
            // Each module needs those after it.
            for path in with_dependencies(&self.dependencies, module)?.into_iter().rev() {
                let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
                if !order.contains(&name) {
                    archive.file(&format!("lib/{name}"), 0o644, &read(&self.modules().join(&path))?);
                    order.push(name);
                }
            }
        }
        let order = order.join("\n") + "\n";
        archive.file("modules", 0o644, order.as_bytes());
        Ok(archive.finish())
    }
}

/// The path of a module, and of all it needs, by `modules.dep`.
fn with_dependencies(dependencies: &str, name: &str) -> Result<Vec<String>> {
    let file = format!("/{name}.ko");
    let line =
        dependencies.lines().find(|line| line.split(':').next().is_some_and(|path| path.ends_with(&file)));
    let line = line.with_context(|| format!("the kernel has no module {name}"))?;
    Ok(line.split([':', ' ']).filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/net/a.ko: kernel/lib/b.ko kernel/lib/c.ko\nkernel/lib/b.ko:\n";

    #[test]
    fn a_module_comes_with_what_it_needs() {
        assert_eq!(
            with_dependencies(DEPENDENCIES, "a").unwrap(),
            ["kernel/net/a.ko", "kernel/lib/b.ko", "kernel/lib/c.ko"]
        );
        assert_eq!(with_dependencies(DEPENDENCIES, "b").unwrap(), ["kernel/lib/b.ko"]);
        assert!(with_dependencies(DEPENDENCIES, "lib/x").is_err());
    }

    #[test]
    fn paths_go_below_usr() {
        assert_eq!(merged("sbin/init"), "usr/sbin/init");
        assert_eq!(merged("/lib64/ld-linux-x86-64.so.2"), "usr/lib64/ld-linux-x86-64.so.2");
        assert_eq!(merged("usr/bin/awk"), "usr/bin/awk");
    }

    #[test]
    fn the_boot_configuration_has_no_menu() {
        let configuration = grub_configuration(Uuid::random());
        assert!(
            configuration.contains("\nlinux$bits /boot/vmlinuz root=UUID=")
                && configuration.ends_with("\nboot\n")
        );
        assert!(!configuration.contains("  "), "{configuration}");
    }
}
