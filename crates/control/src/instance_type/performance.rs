//! What an instance of a type may use of its host, beyond processors and memory.

use super::Catalogue;
use agent_api::Bandwidth;
use aws_api::ec2::InstanceTypeInfo;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::LazyLock;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Performance {
    pub bandwidth: Option<Bandwidth>,
}

/// Asked for each time that a host is told of an instance: a type's line is decoded the first time only.
static KNOWN: LazyLock<(Catalogue, RwLock<HashMap<String, Performance>>)> = LazyLock::new(Default::default);

/// Nothing where there is no such type.
pub fn performance(instance_type: &str) -> Performance {
    let (catalogue, known) = &*KNOWN;
    if let Some(performance) = known.read().get(instance_type) {
        return *performance;
    }
    let Some(info) = catalogue.info(instance_type) else { return Performance::default() };
    let performance = Performance { bandwidth: bandwidth(&info) };
    known.write().insert(instance_type.to_owned(), performance);
    performance
}

/// Of the type's first network card: EC2 tells bandwidth by card, and all its interfaces are on that one unless asked
/// for otherwise (EC2 User Guide, "Amazon EC2 instance network bandwidth").
fn bandwidth(info: &InstanceTypeInfo) -> Option<Bandwidth> {
    let card = info.network_info.as_ref()?.network_cards.first()?;
    let bits = |gbps: f64| (gbps * 1e9).round() as u64;
    let baseline = bits(card.baseline_bandwidth_in_gbps?);
    let peak = card.peak_bandwidth_in_gbps.map_or(baseline, bits);
    (baseline > 0).then_some(Bandwidth { baseline, peak: peak.max(baseline) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_bandwidth() {
        let catalogue = Catalogue::default();
        assert!(catalogue.types().iter().all(|info| bandwidth(info).is_some()));
        for (name, baseline, peak) in
            [("t3.micro", 64_000_000, 5_000_000_000), ("m5.24xlarge", 25_000_000_000, 25_000_000_000)]
        {
            for _ in 0..2 {
                assert_eq!(performance(name).bandwidth, Some(Bandwidth { baseline, peak }), "{name}");
            }
        }
        assert_eq!(performance("t9.colossal"), Performance::default());
    }
}
