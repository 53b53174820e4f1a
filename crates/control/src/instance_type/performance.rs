//! What an instance of a type may use of its host, beyond processors and memory.

use super::Catalogue;
use agent_api::Bandwidth;
use aws_api::ec2::InstanceTypeInfo;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::LazyLock;

const GB: u64 = 1_000_000_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Performance {
    pub bandwidth: Option<Bandwidth>,
    /// Bytes of each instance store volume.
    pub instance_store: Vec<u64>,
}

/// Asked for each time that a host is told of an instance: a type's line is decoded the first time only.
static KNOWN: LazyLock<(Catalogue, RwLock<HashMap<String, Performance>>)> = LazyLock::new(Default::default);

/// Nothing where there is no such type.
pub fn performance(instance_type: &str) -> Performance {
    let (catalogue, known) = &*KNOWN;
    if let Some(performance) = known.read().get(instance_type) {
        return performance.clone();
    }
    let Some(info) = catalogue.info(instance_type) else { return Performance::default() };
    let performance = Performance { bandwidth: bandwidth(&info), instance_store: instance_store(&info) };
    known.write().insert(instance_type.to_owned(), performance.clone());
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

fn instance_store(info: &InstanceTypeInfo) -> Vec<u64> {
    let disks = info.instance_storage_info.iter().flat_map(|storage| &storage.disks);
    let each = disks.filter_map(|disk| {
        let count = usize::try_from(disk.count?).ok()?;
        Some(std::iter::repeat_n(u64::try_from(disk.size_in_gb?).ok()? * GB, count))
    });
    each.flatten().collect()
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

    #[test]
    fn instance_stores_are_as_the_catalogue_says() {
        for (name, gigabytes) in
            [("m5d.large", vec![75]), ("m5d.4xlarge", vec![300, 300]), ("t3.micro", vec![])]
        {
            let bytes: Vec<u64> = gigabytes.into_iter().map(|size: u64| size * GB).collect();
            assert_eq!(performance(name).instance_store, bytes, "{name}");
        }
    }
}
