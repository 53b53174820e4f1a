//! Holds network cards to their bandwidth, both ways.
//!
//! ```text
//!   to the guest     router ─▶ bucket at the tap ─▶ guest
//!   from the guest   guest ─▶ tap ─▶ bucket at one end of a pair ═ its other end ─▶ router, as if come from the tap
//! ```
//!
//! A device can only hold back what leaves it. So what a guest sends takes a way round: it leaves by a pair of devices of
//! ours, waits there for its turn, and comes back to the tap, unless its flow is known and led on at once: programs do
//! both (`shortcut`). It waits rather than being dropped, so that TCP finds the figure by itself. Where a card has several
//! interfaces their taps share that pair, and a device for what the guest is sent (ifb): it comes back to the tap that it
//! was for. Those in different VPCs, whose routers share no device, have a bandwidth each.
//!
//! The bucket (tbf) fills at the baseline and is emptied at the peak at most: who has sent little for a while may send
//! at the peak until the bucket is empty, as EC2 lets an instance "up to" its peak by network I/O credits (EC2 User
//! Guide, "Amazon EC2 instance network bandwidth"). EC2's bucket lasts minutes; ours, a kernel's, holds at most 4 GiB.
//!
//! Where the kernel or the host lacks a part of it, the interface works without and the doctor says so.

use datapath::{Bandwidth, NetworkCard};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use super::nft::feed;
use super::vpc::{Nic, is_tap_name};

/// What names of devices on the way round begin with: of what guests send, at both ends, and of what they are sent.
const SENT: char = 'i';
const WAITED: char = 'j';
const RECEIVED: char = 'o';

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

/// Interfaces that share a bandwidth.
pub(super) struct Held<'a> {
    pub bandwidth: Bandwidth,
    /// At least one.
    pub nics: Vec<&'a Nic<'a>>,
}

/// A device on the way round, and the number that it will have.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Device {
    pub name: String,
    pub number: u32,
}

/// Two devices of which one gives what is sent by the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    /// What leaves by it waits.
    pub bucket: Device,
    pub end: Device,
}

/// The devices on the way round from and to taps: those of their card's first interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Devices {
    pub sent: Option<Pair>,
    /// Where the card has several.
    pub received: Option<Device>,
}

impl Devices {
    /// Those that have a bucket.
    pub(super) fn buckets(&self) -> impl Iterator<Item = &Device> {
        self.sent.iter().map(|pair| &pair.bucket).chain(&self.received)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Device> {
        self.buckets().chain(self.sent.iter().map(|pair| &pair.end))
    }
}

/// All that are held to a bandwidth, in the order of their cards' first interfaces.
pub(super) fn held<'a>(nics: &'a [Nic<'a>]) -> Vec<Held<'a>> {
    let mut held: Vec<Held> = Vec::new();
    let mut cards: BTreeMap<&NetworkCard, usize> = BTreeMap::new();
    for nic in nics {
        let Some(bandwidth) = nic.plan.bandwidth else { continue };
        let at = match &nic.plan.network_card {
            Some(card) => *cards.entry(card).or_insert(held.len()),
            None => held.len(),
        };
        match held.get_mut(at) {
            Some(held) => held.nics.push(nic),
            None => held.push(Held { bandwidth, nics: vec![nic] }),
        }
    }
    held
}

impl Held<'_> {
    /// Those that it needs.
    pub(super) fn devices(&self) -> Devices {
        let Some(first) = self.nics.first() else { return Devices::default() };
        let device = |kind: char, high_half: u32| Device {
            name: format!("{kind}{}", first.tap.strip_prefix('t').unwrap_or(&first.tap)),
            // Beyond those of interfaces. The first half is known to a program too (`shortcut`).
            number: high_half << 16 | first.number,
        };
        let sent = Pair { bucket: device(SENT, 1), end: device(WAITED, 3) };
        let received = (self.nics.len() > 1).then(|| device(RECEIVED, 2));
        Devices { sent: Some(sent), received }
    }
}

/// The tap after which a device on the way round is named; None where it is no such device.
pub(super) fn tap_of(name: &str) -> Option<String> {
    let digits = name.strip_prefix([SENT, WAITED, RECEIVED])?;
    Some(format!("t{digits}")).filter(|tap| is_tap_name(tap))
}

/// Rules that make taps, and the devices on the way round that are there, hold to the bandwidth. For `tc -batch`; after
/// `removal_before`.
pub(super) fn rules(taps: &[&str], devices: &Devices, bandwidth: Bandwidth) -> String {
    let bucket = bucket(bandwidth);
    let mut rules = String::new();
    for Device { name, .. } in devices.buckets() {
        let _ = writeln!(rules, "qdisc replace dev {name} root handle 1: {bucket}");
    }
    for tap in taps {
        let _ = match &devices.received {
            Some(Device { name, .. }) => writeln!(
                rules,
                "qdisc replace dev {tap} root noqueue\n\
                 qdisc replace dev {tap} handle ffff: clsact\n\
                 filter replace dev {tap} egress protocol all prio 2 \
                 u32 match u32 0 0 action mirred egress redirect dev {name}"
            ),
            None => writeln!(rules, "qdisc replace dev {tap} root handle 1: {bucket}"),
        };
    }
    rules
}

/// Takes from a tap what it may have had before and those rules do not replace, as far as it has.
pub(super) fn removal_before(tap: &str) -> String {
    format!("filter delete dev {tap} egress prio 2\n")
}

/// Takes from a tap all that it may have of that; devices are deleted besides.
pub(super) fn removal(tap: &str) -> String {
    removal_before(tap) + &format!("qdisc replace dev {tap} root noqueue\n")
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

/// Carries rules out in the calling thread's namespace, each whether or not another could be, after removals of what may
/// not be there.
pub(super) fn run(removals: &str, rules: &str) -> io::Result<()> {
    if !removals.is_empty() {
        feed("tc", &["-force", "-batch", "-"], removals)?;
    }
    if rules.is_empty() {
        return Ok(());
    }
    let output = feed("tc", &["-force", "-batch", "-"], rules)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(complaint.lines().next().unwrap_or("tc failed").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::vpc::NUMBERS;
    use datapath::Interface;
    use datapath::examples::{id, interface};
    use model::Kind;

    const MBIT: u64 = 1_000_000;

    fn nic(plan: &Interface, number: u32) -> Nic<'_> {
        Nic { plan, tap: format!("t{number:014}"), number }
    }

    fn texts(nics: &[Nic]) -> Vec<String> {
        let text = |held: Held| {
            let taps: Vec<&str> = held.nics.iter().map(|nic| nic.tap.as_str()).collect();
            rules(&taps, &held.devices(), held.bandwidth)
        };
        held(nics).into_iter().map(text).collect()
    }

    #[test]
    fn rules_for_both_ways() {
        let bandwidth = Bandwidth { baseline: 64 * MBIT, peak: 5000 * MBIT };
        let card = |index| Some(NetworkCard { instance_id: id(Kind::Instance, 1), index });
        let plan = |network_card| Interface { bandwidth: Some(bandwidth), network_card, ..interface(1) };
        let plans = [plan(card(0)), plan(card(1)), plan(card(0)), interface(1), plan(None)];
        let nics: Vec<Nic> = (16..).zip(&plans).map(|(number, plan)| nic(plan, number)).collect();
        let [shared, alone, other] = texts(&nics).try_into().unwrap();
        insta::assert_snapshot!("shared", shared);
        insta::assert_snapshot!("alone", alone);
        assert_eq!(alone.replace("17", "20"), other);
        assert_eq!(rules(&["t1"], &Devices::default(), bandwidth).lines().count(), 1);
        let devices = held(&nics)[0].devices();
        let mut numbers = std::collections::BTreeSet::new();
        for Device { name, number } in devices.all() {
            assert_eq!(tap_of(name).as_deref(), Some("t00000000000016"));
            assert!(!NUMBERS.contains(number) && numbers.insert(number));
        }
        assert_eq!(numbers.len(), 3);
        assert!(tap_of("igw").is_none() && tap_of("t00000000000001").is_none());
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
