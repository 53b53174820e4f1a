//! The program that makes packets of IPv6 ones of IPv4, and back, at NAT gateways: what the kernel runs of it is
//! `bpf/translation.bpf.c`, which says how it works. It remembers nothing, so that the next driver's takes its place
//! without anybody's notice.

use aya::programs::ProgramFd;
use aya::{Ebpf, include_bytes_aligned};
use std::io;

use super::kernel::Kernel;
use super::traffic::{self, Side};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/translation.o"));

/// What the program marks, once it has made it one of the other family.
pub(super) const TRANSLATED: u32 = 0x64;

pub(super) struct Translation(ProgramFd);

impl Translation {
    pub(super) fn load() -> io::Result<Translation> {
        let mut object = Ebpf::load(OBJECT).map_err(io::Error::other)?;
        Ok(Translation(traffic::program(&mut object, "translate")?))
    }

    /// Translates what leaves by a link.
    pub(super) async fn run(&self, kernel: &Kernel, link: u32) -> io::Result<()> {
        kernel.admit_programs(link).await?;
        kernel.run_program(link, Side::Departure, &self.0, c"translate", 0).await
    }
}
