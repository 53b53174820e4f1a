//! Disks made elsewhere, as raw files. What a file is, its content says, never its name.
//!
//! A disk file can name other files as its backing or its data, and whoever made it chose the names: such files are
//! refused, or an import would read any file of this machine into an image.

use crate::command::Log;
use crate::extents;
use crate::interrupt::Interrupts;
use crate::layout::{GIB, SECTOR};
use crate::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

/// The largest gp3 volume, which is the largest an AMI's root may need.
const SIZE_BYTES_MAX: u64 = 16 << 40;
/// Enough of a file to know it by.
const HEADER_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2,
    Vmdk,
    Vhdx,
    /// VHD, which QEMU calls `vpc`.
    Vhd,
}

impl Format {
    fn of_qemu(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vhdx => "vhdx",
            Format::Vhd => "vpc",
        }
    }
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Format> {
        Ok(match name {
            "raw" | "img" => Format::Raw,
            "qcow2" => Format::Qcow2,
            "vmdk" => Format::Vmdk,
            "vhdx" => Format::Vhdx,
            "vhd" | "vpc" => Format::Vhd,
            _ => bail!("{name} is none of raw, qcow2, vmdk, vhdx and vhd"),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Format::Vhd { "vhd" } else { self.of_qemu() })
    }
}

/// A raw disk made from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// What the file was.
    pub format: Format,
    pub virtual_bytes: u64,
    /// Of the volume it needs.
    pub size_gib: u32,
}

/// Writes the disk in `input` (raw, qcow2, vmdk, vhdx or vhd) as a sparse raw file.
pub fn convert_to_raw(input: &Path, output: &Path, progress: &dyn Progress) -> Result<Converted> {
    let _interrupts = Interrupts::note();
    let converted = convert(input, output, progress);
    progress.finish();
    if converted.is_err() {
        let _ = fs::remove_file(output);
    }
    converted.with_context(|| format!("{} can't be imported", input.display()))
}

/// Writes a raw disk in another format, whole or not at all; nothing that is there is overwritten.
pub fn convert_from_raw(
    input: &Path,
    output: &Path,
    format: Format,
    log: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    ensure!(!output.exists(), "{} is there already", output.display());
    progress.step(&format!("converting the disk to {format}"));
    // In its directory, so that it comes to be at once.
    let part = output.with_added_extension("part");
    let written = Log::create(log.to_owned()).and_then(|log| {
        log.program("qemu-img", "qemu-utils")
            .args(["convert", "-f", "raw", "-O", format.of_qemu(), "-S", "4k"])
            .arg(input)
            .arg(std::path::absolute(&part)?)
            .advice("Check that the disk has room (`df -h`).")
            .run()?;
        fs::rename(&part, output).context("cannot rename it")
    });
    progress.finish();
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written.with_context(|| format!("{} could not be written", output.display()))
}

fn convert(input: &Path, output: &Path, progress: &dyn Progress) -> Result<Converted> {
    // qemu-img would take a relative name with a colon for a protocol.
    let input = input.canonicalize().context("cannot read it")?;
    let file = File::open(&input).context("cannot read it")?;
    ensure!(file.metadata()?.is_file(), "it is not a regular file");
    let format = detect(&file)?;
    let log_path = output.with_added_extension("log");
    let log = Log::create(log_path.clone())?;
    let result = match format {
        Format::Raw => {
            check_size(file.metadata()?.len())?;
            progress.step("copying the disk");
            extents::copy(&input, output, progress)
        }
        _ => {
            check_size(virtual_size(&log, &input, format)?)?;
            progress.step(&format!("converting the disk from {format}"));
            log.program("qemu-img", "qemu-utils")
                .args(["convert", "-f", format.of_qemu(), "-O", "raw", "-S", "4k"])
                .args([&input, output])
                .advice(
                    "Check that the file is whole (`qemu-img check`) and that the disk has room (`df -h`).",
                )
                .run()
        }
    };
    // After a failure the log stays: the error names it.
    result?;
    let _ = fs::remove_file(log_path);
    let disk = File::open(output)?;
    check_boots(&disk)?;
    let virtual_bytes = disk.metadata()?.len();
    Ok(Converted { format, virtual_bytes, size_gib: virtual_bytes.div_ceil(GIB) as u32 })
}

/// By the signatures of the formats' own specifications.
fn detect(file: &File) -> Result<Format> {
    let length = file.metadata()?.len();
    let mut header = vec![0; HEADER_BYTES.min(length as usize)];
    file.read_exact_at(&mut header, 0)?;
    let signed = |signature: &[u8]| header.starts_with(signature);
    for (signature, name) in [
        (&b"\x1f\x8b"[..], "gzip"),
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
    ] {
        ensure!(!signed(signature), "it is compressed with {name}: unpack it first");
    }
    if signed(b"QFI\xfb") {
        check_qcow2(&header)?;
        return Ok(Format::Qcow2);
    }
    if signed(b"# Disk DescriptorFile") {
        bail!(
            "it is only the description of a vmdk disk: import a disk of one file (`qemu-img convert -O vmdk` makes one)"
        );
    }
    let mut footer = [0; 8];
    if length >= SECTOR {
        file.read_exact_at(&mut footer, length - SECTOR)?;
    }
    Ok(match () {
        () if signed(b"KDMV") => Format::Vmdk,
        () if signed(b"vhdxfile") => Format::Vhdx,
        () if signed(b"conectix") || footer == *b"conectix" => Format::Vhd,
        () => Format::Raw,
    })
}

/// Before QEMU opens it, because opening follows the name of an external data file.
fn check_qcow2(header: &[u8]) -> Result<()> {
    const BACKING_FILE_OFFSET: usize = 8;
    const INCOMPATIBLE_FEATURES: usize = 72;
    const EXTERNAL_DATA_FILE: u64 = 1 << 2;
    let word =
        |at: usize| header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    let version = header.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    let (Some(version), Some(backing), Some(features)) =
        (version, word(BACKING_FILE_OFFSET), word(INCOMPATIBLE_FEATURES))
    else {
        bail!("it is cut off: a qcow2 file's header is longer");
    };
    ensure!(backing == 0, "it has a backing file: flatten it first (`qemu-img convert -O qcow2`)");
    // Version 2 ends before the features.
    ensure!(
        version < 3 || features & EXTERNAL_DATA_FILE == 0,
        "its data is in another file: flatten it first"
    );
    Ok(())
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
    #[serde(rename = "backing-filename")]
    backing: Option<String>,
}

fn virtual_size(log: &Log, input: &Path, format: Format) -> Result<u64> {
    let info = log.program("qemu-img", "qemu-utils").args(["info", "--output=json", "-f", format.of_qemu()]);
    let info = info.arg(input).advice("The file may be damaged.").stdout()?;
    let info: Info = serde_json::from_slice(&info).context("qemu-img says nothing about it")?;
    ensure!(
        info.backing.is_none(),
        "it is the difference to another disk: flatten it first (`qemu-img convert`)"
    );
    Ok(info.virtual_size)
}

fn check_size(bytes: u64) -> Result<()> {
    ensure!(bytes >= SECTOR, "it is empty");
    ensure!(
        bytes <= SIZE_BYTES_MAX,
        "its disk of {} GiB is larger than the largest volume, 16384 GiB",
        bytes / GIB
    );
    Ok(())
}

/// Every disk that boots, by BIOS or UEFI, has the mark of a boot sector.
fn check_boots(disk: &File) -> Result<()> {
    let mut mark = [0; 2];
    disk.read_exact_at(&mut mark, 510).context("it is shorter than a boot sector")?;
    ensure!(mark == [0x55, 0xaa], "it is no bootable disk: it has no partition table");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::process::Command;

    fn disk(directory: &Path) -> std::path::PathBuf {
        let path = directory.join("disk.raw");
        let file = File::create(&path).unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all_at(&[0x55, 0xaa], 510).unwrap();
        file.write_all_at(b"words", 2 << 20).unwrap();
        path
    }

    fn qemu_img(arguments: &[&str]) {
        let (verb, rest) = arguments.split_first().unwrap();
        assert!(Command::new("qemu-img").args([verb, "-q"]).args(rest).status().unwrap().success());
    }

    fn refusal(content: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::write(&path, content).unwrap();
        let output = directory.path().join("output");
        let message = format!("{:#}", convert_to_raw(&path, &output, &Silent).unwrap_err());
        assert!(!output.exists());
        message
    }

    #[test]
    fn every_format_becomes_the_same_disk() {
        let directory = tempfile::tempdir().unwrap();
        let raw = disk(directory.path());
        for (kind, format) in [
            ("raw", Format::Raw),
            ("qcow2", Format::Qcow2),
            ("vmdk", Format::Vmdk),
            ("vhdx", Format::Vhdx),
            ("vpc", Format::Vhd),
        ] {
            // A name that says nothing, and that QEMU would take for a protocol.
            let (input, output) = (directory.path().join("nbd:disk"), directory.path().join("output"));
            qemu_img(&["convert", "-f", "raw", "-O", kind, raw.to_str().unwrap(), input.to_str().unwrap()]);
            let converted = convert_to_raw(&input, &output, &Silent).unwrap();
            assert_eq!((converted.format, converted.size_gib), (format, 1), "{kind}");
            let exported = directory.path().join(format!("exported.{format}"));
            let log = directory.path().join("log");
            convert_from_raw(&raw, &exported, format.to_string().parse().unwrap(), &log, &Silent).unwrap();
            assert_eq!(detect(&File::open(&exported).unwrap()).unwrap(), format);
            assert!(convert_from_raw(&raw, &exported, format, &log, &Silent).is_err(), "it is there");
            // VHD rounds the size to a disk geometry.
            let (before, after) = (fs::read(&raw).unwrap(), fs::read(&output).unwrap());
            assert!(
                after.starts_with(&before) && after[before.len()..].iter().all(|byte| *byte == 0),
                "{kind}"
            );
        }
    }

    #[test]
    fn files_that_name_other_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let raw = disk(directory.path());
        let input = directory.path().join("input");
        let (input, raw) = (input.to_str().unwrap(), raw.to_str().unwrap());
        let output = directory.path().join("output");
        let refusal = || format!("{:#}", convert_to_raw(Path::new(input), &output, &Silent).unwrap_err());
        qemu_img(&["create", "-f", "qcow2", "-b", raw, "-F", "raw", input]);
        assert!(refusal().contains("backing file"), "{}", refusal());
        qemu_img(&["create", "-f", "qcow2", "-o", &format!("data_file={input}.data"), input, "3M"]);
        assert!(refusal().contains("in another file"), "{}", refusal());
        let base = format!("{input}.vmdk");
        qemu_img(&["convert", "-f", "raw", "-O", "vmdk", raw, &base]);
        qemu_img(&["create", "-f", "vmdk", "-b", &base, "-F", "vmdk", input]);
        assert!(refusal().contains("difference to another disk"), "{}", refusal());
    }

    #[test]
    fn what_is_no_disk_is_refused_with_the_reason() {
        assert!(refusal(b"").contains("it is empty"));
        assert!(refusal(&[0; 4096]).contains("no partition table"));
        assert!(refusal(b"\x1f\x8b\x08rest").contains("compressed with gzip"));
        assert!(refusal(b"QFI\xfb\0\0\0\x03").contains("cut off"));
        assert!(refusal(b"# Disk DescriptorFile\n").contains("description of a vmdk"));
        let mut damaged = b"KDMV".to_vec();
        damaged.resize(4096, 0xff);
        assert!(refusal(&damaged).contains("qemu-img failed"));
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(check_size(SIZE_BYTES_MAX).is_ok());
        assert!(
            check_size(SIZE_BYTES_MAX + 1)
                .unwrap_err()
                .to_string()
                .contains("larger than the largest volume")
        );
    }
}
