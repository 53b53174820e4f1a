//! From a directory to a bootable disk: partition table, boot loaders, file systems, all written into a sparse file
//! at their offsets. Nothing is mounted and no loop device is used, so nothing can be left attached.

use crate::bios;
use crate::command::Log;
use crate::layout::{self, EFI_SYSTEM, GIB};
use anyhow::{Context, Result};
use model::Random;
use std::fmt;
use std::fs::{self, File};
use std::path::Path;

/// The name of the root file system, chosen before it is made because the boot loader's configuration contains it.
#[derive(Clone, Copy)]
pub(crate) struct Uuid([u8; 16]);

impl Uuid {
    pub(crate) fn random() -> Uuid {
        let mut bytes = [0; 16];
        model::SystemRandom.fill(&mut bytes);
        // Version 4, variant 1 (RFC 9562, section 5.4).
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }

    /// FAT volumes have a name of four bytes, which `mkfs.vfat` takes as they are.
    fn short(&self) -> String {
        hex::encode_upper(&self.0[..4])
    }

    /// The same as `mount` writes it.
    pub(crate) fn short_with_dash(&self) -> String {
        let short = self.short();
        format!("{}-{}", &short[..4], &short[4..])
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}

/// What a disk is made of.
pub(crate) struct Contents<'a> {
    pub(crate) root: &'a Path,
    pub(crate) root_uuid: Uuid,
    /// A directory that becomes the EFI system partition.
    pub(crate) efi: &'a Path,
    /// GRUB's `boot.img` and core image for BIOS.
    pub(crate) bios_boot: Vec<u8>,
    pub(crate) bios_core: Vec<u8>,
}

impl Contents<'_> {
    pub(crate) fn write(&self, log: &Log, disk: &Path, size_gib: u32) -> Result<()> {
        let size = u64::from(size_gib) * GIB;
        let file = File::create(disk).with_context(|| format!("cannot create {}", disk.display()))?;
        file.set_len(size)?;
        let table = log.program("sfdisk", "fdisk").args(["--no-reread", "--no-tell-kernel"]).arg(disk);
        table.input(layout::partition_script(size)).run()?;
        bios::install(&file, &self.bios_boot, &self.bios_core)?;
        self.write_efi_system(log, disk)?;
        self.write_root(log, disk, size)?;
        file.sync_all().with_context(|| format!("cannot write {}", disk.display()))
    }

    fn write_efi_system(&self, log: &Log, disk: &Path) -> Result<()> {
        let kib = (EFI_SYSTEM.length / 1024).to_string();
        log.program("mkfs.vfat", "dosfstools")
            .args(["-F", "32", "-s", "1", "-n", "EFI", "-i", &self.root_uuid.short()])
            .arg(format!("--offset={}", EFI_SYSTEM.first_sector()))
            .arg(disk)
            .arg(kib)
            .run()?;
        let inside = format!("{}@@{}", disk.display(), EFI_SYSTEM.start);
        let mut names: Vec<_> =
            fs::read_dir(self.efi)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        names.sort();
        log.program("mcopy", "mtools").args(["-s", "-Q", "-i", &inside]).args(names).arg("::").run()
    }

    fn write_root(&self, log: &Log, disk: &Path, size: u64) -> Result<()> {
        let root = layout::root(size);
        log.program("mke2fs", "e2fsprogs")
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-L", "root", "-m", "1"])
            .args(["-U", &self.root_uuid.to_string()])
            // GRUB 2.06 reads neither of these, which newer hosts have on by default.
            .args(["-O", "^metadata_csum_seed,^orphan_file"])
            // A new sparse file is zeros: nothing to clear now, nor in the guest's background.
            .args(["-E", &format!("offset={},assume_storage_prezeroed=1", root.start)])
            .arg("-d")
            .arg(self.root)
            .arg(disk)
            .arg(format!("{}k", root.length / 1024))
            .advice("Check that the disk has room (`df -h`).")
            .run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_their_form() {
        let text = Uuid::random().to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(text.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&text.as_bytes()[19]), "{text}");
        assert_ne!(text, Uuid::random().to_string());
    }
}
