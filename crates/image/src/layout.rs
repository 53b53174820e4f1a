//! Where things lie on a disk we build. Numbers and order follow Debian's cloud images, so that the root is partition 1
//! and last on the disk, where it can grow.
//!
//! ```text
//!  0      1 MiB             4 MiB               128 MiB                          end
//!  ├ GPT ─┼─ p14 BIOS boot ─┼─ p15 EFI system ──┼─ p1 root (ext4) ──────── GPT ─┤
//! ```

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const SECTOR: u64 = 512;

/// A run of whole sectors, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) length: u64,
}

impl Extent {
    pub(crate) const fn first_sector(self) -> u64 {
        self.start / SECTOR
    }
}

/// GRUB's second stage, which a BIOS finds through the boot sector.
pub(crate) const BIOS_BOOT: Extent = Extent { start: MIB, length: 3 * MIB };
/// What UEFI firmware reads.
pub(crate) const EFI_SYSTEM: Extent = Extent { start: 4 * MIB, length: 124 * MIB };
const ROOT_START: u64 = 128 * MIB;
/// The backup partition table takes the last 33 sectors; a whole MiB keeps the end aligned.
const TAIL: u64 = MIB;

/// The root partition's number, as GRUB and the kernel count.
pub(crate) const ROOT_NUMBER: u32 = 1;

/// The root partition of a disk of `size` bytes.
pub(crate) const fn root(size: u64) -> Extent {
    Extent { start: ROOT_START, length: size - ROOT_START - TAIL }
}

/// The table in sfdisk's language.
pub(crate) fn partition_script(size: u64) -> String {
    let line = |number: u32, extent: Extent, kind: &str| {
        format!("{number}: start={}, size={}, type={kind}\n", extent.first_sector(), extent.length / SECTOR)
    };
    let mut script = String::from("label: gpt\nunit: sectors\n");
    script += &line(ROOT_NUMBER, root(size), "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709");
    script += &line(14, BIOS_BOOT, "21686148-6449-6E6F-744E-656564454649");
    script += &line(15, EFI_SYSTEM, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_each_other_without_gap_or_overlap() {
        for size in [GIB, 8 * GIB] {
            assert_eq!(BIOS_BOOT.start + BIOS_BOOT.length, EFI_SYSTEM.start);
            assert_eq!(EFI_SYSTEM.start + EFI_SYSTEM.length, root(size).start);
            let end = root(size).start + root(size).length;
            assert!(end < size && size - end >= 33 * SECTOR, "no room for the backup table");
            assert!(
                [BIOS_BOOT, EFI_SYSTEM, root(size)]
                    .iter()
                    .all(|part| part.start % MIB == 0 && part.length % MIB == 0)
            );
        }
    }

    #[test]
    fn the_script_says_the_same_in_sectors() {
        let script = partition_script(GIB);
        assert!(script.contains("\n1: start=262144, size=1832960, type="), "{script}");
        assert!(script.contains("\n14: start=2048, size=6144, type="), "{script}");
        assert!(script.contains("\n15: start=8192, size=253952, type="), "{script}");
    }
}
