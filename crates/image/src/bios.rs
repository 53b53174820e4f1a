//! GRUB's way from the BIOS to its second stage, written as `grub-bios-setup` would, but without a block device:
//! the boot sector is told the sector of the second stage, and that one's first sector is told where the rest is.
//!
//! Offsets: GRUB manual and `include/grub/i386/pc/boot.h`, 2.06 and later.

use crate::layout::{BIOS_BOOT, SECTOR};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The code in a boot sector ends where the disk's signature and partition table begin.
const BOOT_CODE: usize = 440;
/// Where the boot sector keeps the second stage's first sector (64 bits).
const KERNEL_SECTOR: usize = 0x5c;
/// Two bytes of a jump; as no-ops they make GRUB distrust what the BIOS says of the drive, as it does for hard disks.
const DRIVE_CHECK: usize = 0x66;
/// The first sector of the second stage ends with a list of where its other sectors are.
const BLOCK_LIST: usize = SECTOR as usize - 12;

/// Writes `boot` (`boot.img`) and `core` (from `grub-mkimage -O i386-pc`) to a partitioned disk.
pub(crate) fn install(disk: &File, boot: &[u8], core: &[u8]) -> Result<()> {
    disk.write_all_at(&boot_sector(boot)?, 0).context("cannot write the boot sector")?;
    disk.write_all_at(&second_stage(core)?, BIOS_BOOT.start).context("cannot write the boot loader")
}

fn boot_sector(boot: &[u8]) -> Result<Vec<u8>> {
    ensure!(boot.len() == SECTOR as usize, "GRUB's boot.img is {} bytes, not one sector", boot.len());
    let mut code = boot[..BOOT_CODE].to_vec();
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&BIOS_BOOT.first_sector().to_le_bytes());
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

fn second_stage(core: &[u8]) -> Result<Vec<u8>> {
    let fits = core.len() as u64 <= BIOS_BOOT.length && core.len() > SECTOR as usize;
    ensure!(fits, "GRUB's core image of {} bytes does not fit the BIOS boot partition", core.len());
    let mut core = core.to_vec();
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(BIOS_BOOT.first_sector() + 1).to_le_bytes());
    Ok(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_point_at_each_other_and_leave_the_partition_table_alone() {
        let sector = boot_sector(&[0xaa; 512]).unwrap();
        assert_eq!(sector.len(), 440);
        assert_eq!(sector[0x5c..0x64], 2048u64.to_le_bytes());
        let core = second_stage(&[0xbb; 1500]).unwrap();
        assert_eq!(core[500..508], 2049u64.to_le_bytes());
        assert_eq!(core[508..512], [0xbb; 4], "length and segment are grub-mkimage's");
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(boot_sector(&[0; 511]).is_err());
        assert!(second_stage(&vec![0; 3 * 1024 * 1024 + 1]).is_err());
        assert!(second_stage(&[0; 512]).is_err());
    }
}
