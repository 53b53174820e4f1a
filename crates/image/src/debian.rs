//! Debian 12 as its own images on EC2 are: cloud-init with the Ec2 data source, OpenSSH, systemd, the user `admin`,
//! and Debian's boot loader set-up, which a kernel or a GRUB upgraded inside goes on with.
//!
//! Invariants: no identity (machine id, host keys) and nothing of the building machine (resolver, mirror, proxy) is
//! inside; the first boot is no different from what Debian's `update-grub` will make of later ones.

use crate::apt::Tree;
use crate::command::Log;
use crate::disk::{Contents, Uuid};
use crate::grub;
use crate::tree::{self, Text, script, text};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Beside Debian's essential packages and apt.
const PACKAGES: &[&str] = &[
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "lz4",
    "grub-cloud-amd64",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "libpam-systemd",
    "libnss-resolve",
    "libnss-myhostname",
    "dbus",
    "udev",
    "cloud-init",
    "cloud-guest-utils",
    "openssh-server",
    "sudo",
    "e2fsprogs",
    "dosfstools",
    "fdisk",
    "kmod",
    "procps",
    "iproute2",
    "iputils-ping",
    "netbase",
    "ca-certificates",
    "curl",
    "wget",
    "less",
    "nano",
    "vim-tiny",
    "bash-completion",
    "cron",
    "logrotate",
    "tzdata",
];

/// Documentation and translations are a third of the files, and `dpkg` leaves them out only while building.
const DPKG_OPTIONS: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    // A build that is cut off is thrown away, so nothing needs to be on disk before the end.
    "force-unsafe-io",
];

/// There before the packages are installed.
const BEFORE: &[Text] = &[
    text("etc/cloud/cloud.cfg.d/90_ec2.cfg", include_str!("debian/cloud.cfg")),
    text("etc/default/grub.d/50_cloud.cfg", include_str!("debian/grub.cfg")),
    text("etc/default/locale", "LANG=C.UTF-8\n"),
    text("etc/initramfs-tools/conf.d/cloud", include_str!("debian/initramfs.conf")),
    text("etc/initramfs-tools/modules", include_str!("debian/initramfs.modules")),
    text("etc/ssh/sshd_config.d/50-cloud.conf", include_str!("debian/sshd.conf")),
    text("etc/systemd/resolved.conf.d/50-cloud.conf", include_str!("debian/resolved.conf")),
    text("etc/systemd/network/90-dhcp.network", include_str!("debian/dhcp.network")),
];

/// Put there once they are.
const AFTER: &[Text] = &[
    text("etc/apt/sources.list.d/debian.sources", include_str!("debian/debian.sources")),
    // By this grub-cloud-amd64 knows that the boot loader is its to upgrade.
    text("etc/grub.d/enable_cloud", ""),
    // Empty: each machine makes its own, without running a first boot's set-up.
    text("etc/machine-id", ""),
];

const CUSTOMIZE: Text = script("customize", include_str!("debian/customize"));

/// What a disk is made from, for its cache key.
pub(crate) fn ingredients() -> Vec<&'static str> {
    let contents = BEFORE.iter().chain(AFTER).map(|file| file.content);
    contents.chain([CUSTOMIZE.content, include_str!("debian.rs")]).collect()
}

/// Builds the disk at `disk`, with scratch files in `work`.
pub(crate) fn build(log: &Log, work: &Path, disk: &Path, size_gib: u32, step: &dyn Fn(&str)) -> Result<()> {
    let (root, overlay, efi) = (work.join("root"), work.join("overlay"), work.join("efi"));
    step("getting and installing Debian's packages");
    tree::install(&overlay, BEFORE)?;
    tree::install(work, &[CUSTOMIZE])?;
    let mut options: Vec<String> = DPKG_OPTIONS.iter().map(|option| format!("--dpkgopt={option}")).collect();
    options.push(format!("--essential-hook=copy-in {}/etc /", overlay.display()));
    options.push(format!("--customize-hook={}/customize", work.display()));
    Tree { variant: "apt", packages: PACKAGES, options: &options }.make(log, work, &root)?;
    step("preparing the boot");
    let uuid = Uuid::random();
    tree::install(&root, AFTER)?;
    tree::write(&root.join("etc/fstab"), fstab(uuid).as_bytes(), 0o644)?;
    tree::write(
        &root.join("boot/grub/grub.cfg"),
        grub_configuration(uuid, &kernel(&root)?).as_bytes(),
        0o600,
    )?;
    fs::create_dir_all(root.join("boot/efi"))?;
    grub::modules(&root)?;
    grub::efi_system(&root, &efi, uuid)?;
    let (bios_boot, bios_core) = (grub::bios_boot(&root)?, grub::bios_core(log, &root)?);
    step("writing the disk");
    Contents { root: &root, root_uuid: uuid, efi: &efi, bios_boot, bios_core }.write(log, disk, size_gib)
}

/// The release of the installed kernel.
fn kernel(root: &Path) -> Result<String> {
    let mut releases: Vec<String> = Vec::new();
    for entry in fs::read_dir(root.join("boot"))? {
        let name = entry?.file_name();
        releases.extend(name.to_str().and_then(|name| name.strip_prefix("vmlinuz-")).map(str::to_owned));
    }
    releases.pop().context("no kernel was installed")
}

fn fstab(root: Uuid) -> String {
    format!(
        "UUID={root} / ext4 rw,discard,errors=remount-ro 0 1\n\
         UUID={} /boot/efi vfat umask=0077,nofail,x-systemd.automount 0 0\n",
        root.short_with_dash()
    )
}

/// As `update-grub` would write it, without its menu of other systems. The parameters are those of the defaults in
/// `debian/grub.cfg`.
fn grub_configuration(root: Uuid, kernel: &str) -> String {
    let defaults = include_str!("debian/grub.cfg");
    let parameters =
        defaults.lines().find_map(|line| line.strip_prefix("GRUB_CMDLINE_LINUX=")).unwrap_or_default();
    format!(
        "# Made with the image. The first upgrade of the kernel, or update-grub, replaces it.\n\
         set timeout=0\n\
         search --no-floppy --fs-uuid --set=root {root}\n\
         {}\
         linux$bits /boot/vmlinuz-{kernel} root=UUID={root} ro {}\n\
         initrd$bits /boot/initrd.img-{kernel}\n\
         boot\n",
        grub::QUICK_LOADER,
        parameters.trim_matches('"')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_boot_has_the_parameters_of_later_ones() {
        let configuration = grub_configuration(Uuid::random(), "6.1.0-1-cloud-amd64");
        assert!(
            configuration.contains("linux$bits /boot/vmlinuz-6.1.0-1-cloud-amd64 root=UUID="),
            "{configuration}"
        );
        assert!(configuration.contains(" ro console=tty0 console=ttyS0,115200 "), "{configuration}");
        assert!(!configuration.contains('"'.to_string().repeat(2).as_str()), "{configuration}");
    }

    #[test]
    fn both_file_systems_are_mounted_by_their_names() {
        let table = fstab(Uuid::random());
        let names: Vec<_> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(
            names.iter().map(|name| name.len()).collect::<Vec<_>>(),
            ["UUID=".len() + 36, "UUID=".len() + 9]
        );
    }
}
