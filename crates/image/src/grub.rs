//! GRUB as Debian ships it, from the packages in a tree: a core image for BIOS, and the signed chain (shim, GRUB) at
//! the path where UEFI firmware looks on a disk it has never seen.

use crate::command::Log;
use crate::disk::Uuid;
use crate::layout::ROOT_NUMBER;
use crate::tree::{self, read};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Debian packages with what is used here.
pub(crate) const PACKAGES: &[&str] = &["grub-common", "grub-pc-bin", "grub-efi-amd64-signed", "shim-signed"];

/// All that a disk of ours needs is in the core image: reading modules one by one through a BIOS is slow.
const BIOS_MODULES: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "ext2",
    "normal",
    "linux",
    "linux16",
    "search",
    "search_fs_uuid",
    "search_label",
    "configfile",
    "echo",
    "test",
    "serial",
    "terminal",
    "gzio",
    "minicmd",
    "all_video",
    "boot",
    "reboot",
    "halt",
    "loadenv",
    "gfxterm",
];

/// Chooses the loader: `linux$bits`. GRUB's `linux` for BIOS moves the kernel, with all the room that it unpacks into,
/// byte by byte to where it likes to be: two seconds under emulation.
pub(crate) const QUICK_LOADER: &str = "if [ \"$grub_platform\" = pc ]; then bits=16; fi\n";

/// The core image for BIOS, made by the tree's own GRUB.
pub(crate) fn bios_core(log: &Log, tree: &Path) -> Result<Vec<u8>> {
    let image = "/core.img";
    log.program("chroot", "coreutils")
        .arg(tree)
        .args(["grub-mkimage", "--format=i386-pc", "--output", image])
        .arg(format!("--prefix=(,gpt{ROOT_NUMBER})/boot/grub"))
        .args(BIOS_MODULES)
        .run()?;
    let path = tree.join("core.img");
    let core = read(&path)?;
    fs::remove_file(&path)?;
    Ok(core)
}

/// The boot sector's code.
pub(crate) fn bios_boot(tree: &Path) -> Result<Vec<u8>> {
    read(&tree.join("usr/lib/grub/i386-pc/boot.img"))
}

/// Puts GRUB's modules for BIOS where `grub-install` would, for what `update-grub` and a user at its prompt load.
pub(crate) fn modules(tree: &Path) -> Result<()> {
    let (from, to) = (tree.join("usr/lib/grub/i386-pc"), tree.join("boot/grub/i386-pc"));
    for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
        let name = entry?.file_name();
        if matches!(Path::new(&name).extension().and_then(|kind| kind.to_str()), Some("mod" | "lst")) {
            tree::copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// Fills `efi`, which becomes the EFI system partition. The signed GRUB reads its configuration from `EFI/debian`.
pub(crate) fn efi_system(tree: &Path, efi: &Path, root: Uuid) -> Result<()> {
    let signed = |name: &str| -> Result<Vec<u8>> { read(&tree.join("usr/lib").join(name)) };
    let shim = signed("shim/shimx64.efi.signed")?;
    let grub = signed("grub/x86_64-efi-signed/grubx64.efi.signed")?;
    let enrol = signed("shim/mmx64.efi.signed")?;
    let configuration =
        format!("search.fs_uuid {root} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n");
    let files: [(&str, &[u8]); 4] = [
        ("EFI/BOOT/BOOTX64.EFI", &shim),
        ("EFI/BOOT/grubx64.efi", &grub),
        ("EFI/BOOT/mmx64.efi", &enrol),
        ("EFI/debian/grub.cfg", configuration.as_bytes()),
    ];
    files.into_iter().try_for_each(|(name, content)| tree::write(&efi.join(name), content, 0o644))
}
