//! Disks over hundreds of `kill -9`: nothing that was flushed is ever missing, snapshots are whole or absent, and in the
//! end nothing is left over.
//!
//! ```text
//!   guest    writes, zeroes, discards and flushes through the disks of a QEMU, and writes down what was acknowledged
//!   control  snapshots, stores, copies, grows, deletes and collects, and asks again for what had no answer
//!   kills    end QEMU, the daemon or both at any moment; after each everything is compared
//! ```
//!
//! The daemon is this program once more, so that it can be killed: a whole agent over the drivers of a real host. QEMU
//! runs without a guest; what a guest would ask of its disks is asked by a monitor.
//!
//! `CUMULET_SEED=7` chooses the same again, `CUMULET_KILLS=5000` kills so many times. When a kill falls is not in the seed
//! alone: what fails does so again within some runs.

#![allow(clippy::unwrap_used)]

mod cloud;
mod daemon;
#[path = "../../src/examples.rs"]
#[allow(dead_code)]
mod examples;
mod guest;
mod ledger;
mod nbd;

use model::{Random, SystemRandom};
use std::process::Command;

/// Beside each other: most of the time each waits for a process to start.
const CLOUDS: u64 = 2;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

#[test]
fn no_disk_is_lost_by_kills() {
    let works = |program| Command::new(program).arg("--version").output().is_ok();
    if !rustix::process::geteuid().is_root() || !works("qemu-system-x86_64") || !works("qemu-img") {
        eprintln!("skipped: needs root, qemu-system-x86_64 and qemu-img");
        return;
    }
    let seed = number("CUMULET_SEED").unwrap_or_else(|| SystemRandom.u64() % 1_000_000);
    eprintln!("CUMULET_SEED={seed}");
    let kills = number("CUMULET_KILLS").unwrap_or(200) / CLOUDS;
    let run = |seed| {
        let mut cloud = cloud::Cloud::new(seed);
        (0..kills).for_each(|_| cloud.round());
        cloud.finish();
    };
    std::thread::scope(|scope| {
        (0..CLOUDS).for_each(|n| drop(scope.spawn(move || run(seed + n))));
    });
}

/// Started by the other.
#[test]
#[ignore = "a part of the other"]
fn daemon() {
    if let Some(dir) = std::env::var_os(daemon::DIR) {
        daemon::run(dir.as_ref());
    }
}
