//! The shorter way of packets whose flow is known, past the packet filter, the tracking and the routes of a VPC's router:
//! what the kernel runs of it is `bpf/shortcut.bpf.c`, which says how it works. It also leads what a guest sends that is
//! held to a bandwidth to where it waits, and on from there.
//!
//! Invariant: whatever a router is changed in, it says so here once that holds. From then on no packet takes a way that
//! was learned before.
//!
//! The programs stay at the links when the driver ends; the next one puts its own in their place, which know nothing yet.
//! Where the kernel runs no such programs all packets go the long way.

use aya::maps::{Array, MapData};
use aya::programs::ProgramFd;
use aya::{Ebpf, include_bytes_aligned};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::kernel::Kernel;
use super::traffic::{self, Side};
use super::vpc::NUMBER_MASK;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/shortcut.o"));

/// What the programs read of a VPC: its generation and the size of the largest packet.
type Told = [u32; 2];

pub(super) struct Shortcut {
    arrive: ProgramFd,
    wait: ProgramFd,
    arrive_late: ProgramFd,
    depart: ProgramFd,
    depart_by_pair: ProgramFd,
    vpcs: Mutex<Array<MapData, Told>>,
    numbers: Mutex<BTreeSet<u16>>,
}

impl Shortcut {
    pub(super) fn load() -> io::Result<Shortcut> {
        let mut object = Ebpf::load(OBJECT).map_err(io::Error::other)?;
        let mut program = |name| traffic::program(&mut object, name);
        let (arrive, wait, arrive_late) = (program("arrive")?, program("wait")?, program("arrive_late")?);
        let (depart, depart_by_pair) = (program("depart")?, program("depart_by_pair")?);
        let no_map = || io::Error::new(io::ErrorKind::NotFound, "the program has no map of VPCs");
        let vpcs = object.take_map("vpcs").ok_or_else(no_map)?;
        let vpcs = Mutex::new(Array::try_from(vpcs).map_err(io::Error::other)?);
        let numbers = Mutex::default();
        Ok(Shortcut { arrive, wait, arrive_late, depart, depart_by_pair, vpcs, numbers })
    }

    /// A VPC's part of it; None where there are more VPCs than numbers.
    pub(super) fn enter(self: &Arc<Self>, mtu: u16) -> Option<Ways> {
        let mut numbers = self.numbers.lock();
        let number = (0..=u16::MAX).find(|number| !numbers.contains(number))?;
        numbers.insert(number);
        Some(Ways {
            shortcut: self.clone(),
            number,
            mtu: mtu.into(),
            links: BTreeMap::new(),
            ends: BTreeSet::new(),
        })
    }
}

/// What becomes of packets that come by a link.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Arrival {
    Shortcut,
    /// They leave by one link, where they wait, and take the shortcut where they come by the other.
    Waiting {
        bucket: u32,
        end: u32,
    },
}

/// What is known of the ways through one VPC's router.
pub(super) struct Ways {
    shortcut: Arc<Shortcut>,
    number: u16,
    mtu: u32,
    /// Links that have our programs.
    links: BTreeMap<u32, Arrival>,
    /// And those by which comes what has waited.
    ends: BTreeSet<u32>,
}

impl Ways {
    /// Forgets all ways: what was true of them may be no more.
    pub(super) fn forget(&self) -> io::Result<()> {
        let mut vpcs = self.shortcut.vpcs.lock();
        let index = self.number.into();
        let [generation, _] = vpcs.get(&index, 0).map_err(io::Error::other)?;
        vpcs.set(index, [generation.wrapping_add(1), self.mtu], 0).map_err(io::Error::other)
    }

    /// Of links that were not there, those that come now are others.
    pub(super) fn keep(&mut self, there: &BTreeSet<u32>) {
        self.links.retain(|link, _| there.contains(link));
        self.ends.retain(|link| there.contains(link));
    }

    /// Learns the ways between these links and no others, and leads what comes by them. Beyond the one that is the end of
    /// a pair lies another namespace.
    pub(super) async fn lead(
        &mut self,
        kernel: &Kernel,
        links: BTreeMap<u32, Arrival>,
        pair: Option<u32>,
    ) -> io::Result<()> {
        let Shortcut { arrive, wait, arrive_late, depart, depart_by_pair, .. } = &*self.shortcut;
        let (number, mut ends) = (self.number, BTreeSet::new());
        for (&link, &arrival) in &links {
            if let Arrival::Waiting { end, .. } = arrival
                && ends.insert(end)
                && !self.ends.contains(&end)
            {
                kernel.admit_programs(end).await?;
                kernel.run_program(end, Side::Arrival, arrive_late, c"arrive_late", number).await?;
                self.ends.insert(end);
            }
            let led = self.links.get(&link).copied();
            if led.is_none() {
                let depart = if pair == Some(link) { depart_by_pair } else { depart };
                kernel.admit_programs(link).await?;
                kernel.run_program(link, Side::Departure, depart, c"depart", number).await?;
            }
            if led == Some(arrival) {
                continue;
            }
            match arrival {
                Arrival::Shortcut => {
                    kernel.run_program(link, Side::Arrival, arrive, c"arrive", number).await?
                }
                Arrival::Waiting { bucket, .. } => {
                    // The program knows the other half (`shape`).
                    let bucket = (bucket & NUMBER_MASK) as u16;
                    kernel.run_program(link, Side::Arrival, wait, c"wait", bucket).await?;
                }
            }
            self.links.insert(link, arrival);
        }
        self.links.retain(|link, _| links.contains_key(link));
        self.ends = ends;
        Ok(())
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.shortcut.numbers.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_runs_programs_takes_ours() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let shortcut = Arc::new(Shortcut::load().unwrap());
        let [one, two] = [(); 2].map(|()| shortcut.enter(9001).unwrap());
        assert_eq!([one.number, two.number], [0, 1]);
        let told = |ways: &Ways| ways.shortcut.vpcs.lock().get(&ways.number.into(), 0).unwrap();
        one.forget().unwrap();
        one.forget().unwrap();
        assert_eq!([told(&one), told(&two)], [[2, 9001], [0, 0]]);
        drop(one);
        let next = shortcut.enter(1500).unwrap();
        next.forget().unwrap();
        assert_eq!((next.number, told(&next)), (0, [3, 1500]));
    }
}
