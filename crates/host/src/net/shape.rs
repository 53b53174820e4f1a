//! Holds an interface to its bandwidth, both ways.
//!
//! ```text
//!   to the guest     router ─▶ bucket at the tap ─▶ guest
//!   from the guest   guest ─▶ tap ─▶ device of ours: bucket ─▶ router, as if come from the tap
//! ```
//!
//! A device can only hold back what leaves it. So what a guest sends takes a way round (ifb): it leaves by a device of
//! ours, waits there for its turn, and comes back to the tap. It waits rather than being dropped, so that TCP finds the
//! figure by itself.
//!
//! The bucket (tbf) fills at the baseline and is emptied at the peak at most: who has sent little for a while may send
//! at the peak until the bucket is empty, as EC2 lets an instance "up to" its peak by network I/O credits (EC2 User
//! Guide, "Amazon EC2 instance network bandwidth"). EC2's bucket lasts minutes; ours, a kernel's, holds at most 4 GiB.
//!
//! Where the kernel or the host lacks a part of it, the interface works without and the doctor says so.

use datapath::Bandwidth;
use std::io;

use super::nft::feed;
use super::vpc::{NUMBERS, is_tap_name};

/// What names of devices on the way round begin with.
const ROUND: char = 'i';

/// What an idle interface saves for.
const SAVED_SECONDS: u64 = 240;
/// The kernel counts a bucket's bytes in 32 bits.
const BUCKET_MAX: u64 = u32::MAX as u64 - 1;
/// Two of the largest packets, which the guest and the kernel leave whole between them (64 KiB).
const BUCKET_MIN: u64 = 128 * 1024;
/// A bucket holds what flows between two looks at it.
const BUCKET_MS: u64 = 4;
/// What may wait, so that a stream keeps the line busy and nobody waits longer than a tenth of a second.
const QUEUE_MS: u64 = 100;
const QUEUE_MIN: u64 = 256 * 1024;

/// Rules that make a tap, and the device on the way round from it, hold to the bandwidth. For `tc -batch`; doing it
/// again changes nothing.
pub(super) fn rules(tap: &str, round: Option<&str>, bandwidth: Bandwidth) -> String {
    let bucket = bucket(bandwidth);
    let mut rules = format!("qdisc replace dev {tap} root handle 1: {bucket}\n");
    if let Some(round) = round {
        rules.push_str(&format!("qdisc replace dev {round} root handle 1: {bucket}\n"));
        rules.push_str(&format!("qdisc replace dev {tap} handle ffff: ingress\n"));
        rules.push_str(&format!(
            "filter replace dev {tap} parent ffff: protocol all prio 1 handle 800::800 \
             u32 match u32 0 0 action mirred egress redirect dev {round}\n"
        ));
    }
    rules
}

/// Takes the tap's part of that away; its device is deleted besides.
pub(super) fn removal(tap: &str) -> String {
    format!("qdisc replace dev {tap} root noqueue\nqdisc delete dev {tap} ingress\n")
}

fn bucket(bandwidth: Bandwidth) -> String {
    let Bandwidth { baseline, peak } = bandwidth;
    let bytes = |rate: u64, ms: u64| (rate / 8).saturating_mul(ms) / 1000;
    let queue = bytes(baseline, QUEUE_MS).max(QUEUE_MIN);
    let step = |rate| bytes(rate, BUCKET_MS).clamp(BUCKET_MIN, BUCKET_MAX);
    if peak <= baseline {
        return format!("tbf rate {baseline}bit burst {} limit {queue}", step(baseline));
    }
    let saved = bytes(baseline, SAVED_SECONDS * 1000).clamp(BUCKET_MIN, BUCKET_MAX);
    format!("tbf rate {baseline}bit burst {saved} peakrate {peak}bit mtu {} limit {queue}", step(peak))
}

/// Carries rules out in the calling thread's namespace, each whether or not another could be.
pub(super) fn run(rules: &str) -> io::Result<()> {
    let output = feed("tc", &["-force", "-batch", "-"], rules)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(complaint.lines().next().unwrap_or("tc failed").to_owned()))
}

/// The device on the way round from a tap.
pub(super) fn round_name(tap: &str) -> String {
    format!("{ROUND}{}", tap.strip_prefix('t').unwrap_or(tap))
}

/// The tap that a device is on the way round from; None where it is no such device.
pub(super) fn tap_of_round(name: &str) -> Option<String> {
    name.strip_prefix(ROUND).map(|digits| format!("t{digits}")).filter(|tap| is_tap_name(tap))
}

/// Numbers of such devices lie beyond those of interfaces.
pub(super) fn round_number(tap_number: u32) -> u32 {
    tap_number + NUMBERS.end() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 1_000_000;

    #[test]
    fn rules_for_both_ways() {
        let bandwidth = Bandwidth { baseline: 64 * MBIT, peak: 5000 * MBIT };
        insta::assert_snapshot!(rules("t00000000000001", Some("i00000000000001"), bandwidth));
        let one_way = rules("t1", None, bandwidth);
        assert_eq!(one_way.lines().count(), 1);
        let round = round_name("t00000000000001");
        assert_eq!(tap_of_round(&round).as_deref(), Some("t00000000000001"));
        assert!(tap_of_round("igw").is_none() && tap_of_round("t00000000000001").is_none());
    }

    #[test]
    fn buckets_stay_within_what_the_kernel_counts() {
        let text =
            |baseline: u64, peak: u64| bucket(Bandwidth { baseline: baseline * MBIT, peak: peak * MBIT });
        assert_eq!(text(100, 100), "tbf rate 100000000bit burst 131072 limit 1250000");
        for (baseline, peak) in [(32, 5000), (750, 10_000), (100_000, 100_000), (3_200_000, 3_200_000)] {
            let text = text(baseline, peak);
            let words: Vec<&str> = text.split(' ').collect();
            let number = |name| {
                let at = words.iter().position(|word| *word == name)?;
                words[at + 1].trim_end_matches("bit").parse::<u64>().ok()
            };
            let burst = number("burst").unwrap();
            assert!((BUCKET_MIN..=BUCKET_MAX).contains(&burst), "{text}");
            // tc counts the time to fill a bucket in units of 64 ns, in 32 bits.
            let fill_ns = u128::from(burst) * 8_000_000_000 / u128::from(baseline * MBIT);
            assert!(fill_ns / 64 <= u128::from(u32::MAX), "{text}");
            assert_eq!(number("peakrate").is_some(), peak > baseline, "{text}");
        }
    }
}
