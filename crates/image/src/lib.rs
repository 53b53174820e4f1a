//! Whole-disk images: built from Debian packages, imported from files, uploaded through the EBS direct API.
//!
//! ```text
//!  Debian packages ─ mmdebstrap ─▶ tree ─┐
//!                                        ├─▶ raw disk (GPT, GRUB for BIOS and UEFI, ext4) ─▶ upload ─▶ snapshot ─▶ AMI
//!  raw · qcow2 · vmdk · vhdx ─ qemu-img ─┘                                                                      │
//!                            ◀ qemu-img ── raw disk ◀── download ◀─────────────────────────────────────────────┘
//! ```
//!
//! Invariants: a disk is whole (what boots, a kernel upgraded inside included, is on it); nothing is mounted and no
//! device is attached, so an interrupted build leaves at most a scratch directory that the next one removes; no
//! mirror, proxy or credential of the host is in an image.

mod apt;
mod bios;
mod build;
mod command;
mod convert;
mod cpio;
mod debian;
mod disk;
mod download;
mod extents;
mod grub;
mod interrupt;
mod layout;
mod progress;
mod recipe;
mod tiny;
mod tree;
mod upload;

pub use build::{Cache, build, build_with};
pub use command::HOST_PACKAGES;
pub use convert::{Converted, Format, convert_from_raw, convert_to_raw};
pub use download::{Block, Download, Page, download};
pub use progress::{Progress, Silent, TerminalProgress};
pub use recipe::{BuiltImage, Recipe};
pub use upload::{BLOCK_BYTES, Upload, upload};
