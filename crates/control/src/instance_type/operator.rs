//! The owner's own types: made, listed and deleted through the operator's API. Each is of one region.

use super::catalogue::Catalogue;
use super::own::{EbsRates, InstanceStore, OwnType};
use crate::engine::{Tables, retire};
use crate::instance::architecture_name;
use crate::{Context, operator};
use agent_api::Architecture;
use aws_api::cumulet;
use datapath::Bandwidth;
use model::{Error, Result};
use std::ops::RangeInclusive;

const NAME_LEN_MAX: usize = 64;
/// Above the largest of AWS's.
const VCPUS: RangeInclusive<i64> = 1..=1024;
/// Less is no room for any guest's kernel; the most is above the largest of AWS's.
const MEMORY_MIB: RangeInclusive<i64> = 64..=64 * 1024 * 1024;
/// A thousandth is what the host's shaping can hold to; the most is above the largest of AWS's.
const GBPS: RangeInclusive<f64> = 0.001..=10_000.0;
const EBS_MBPS: RangeInclusive<i64> = 1..=1_000_000;
const EBS_IOPS: RangeInclusive<i64> = 1..=10_000_000;
/// As many as a machine has slots for.
const STORE_VOLUMES: RangeInclusive<i64> = 1..=24;
const STORE_GB: RangeInclusive<i64> = 1..=100_000;
const BASELINE_PERCENT: RangeInclusive<f64> = 0.1..=100.0;

fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new("ValidationException", message.into()))
}

fn bounded<N: PartialOrd + std::fmt::Display>(name: &str, value: N, range: &RangeInclusive<N>) -> Result<N> {
    if range.contains(&value) {
        return Ok(value);
    }
    refuse(format!("{name} is {value}, and must be from {} to {}", range.start(), range.end()))
}

/// `family.size`, as AWS names its own; a family of AWS's is left to AWS.
fn check_name(name: &str) -> Result<()> {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let parts = name.split_once('.').filter(|(family, size)| is_part(family) && is_part(size));
    let Some((family, _)) = parts.filter(|_| name.len() <= NAME_LEN_MAX) else {
        return refuse(format!(
            "'{name}' is no name of an instance type: it must be family.size, of lower-case letters, digits and \
             hyphens, {NAME_LEN_MAX} at most"
        ));
    };
    if Catalogue::get().has_family(family) {
        return refuse(format!("The family '{family}' is one of AWS's: choose another"));
    }
    Ok(())
}

impl OwnType {
    fn check(input: &cumulet::InstanceType) -> Result<OwnType> {
        let instance_type = input.instance_type.clone().unwrap_or_default();
        check_name(&instance_type)?;
        let integer =
            |name, value: Option<i64>, range| value.map(|value| bounded(name, value, range)).transpose();
        let required = |name, value: Option<i64>, range| match value {
            Some(value) => bounded(name, value, range),
            None => refuse(format!("{name} is missing")),
        };
        let rate = |name, value: Option<f64>| value.map(|value| bounded(name, value, &GBPS)).transpose();
        let baseline = rate("NetworkBandwidthInGbps", input.network_bandwidth_in_gbps)?;
        let peak = rate("NetworkPeakBandwidthInGbps", input.network_peak_bandwidth_in_gbps)?;
        let bits = |gbps: f64| (gbps * 1e9).round() as u64;
        let bandwidth = match (baseline, peak) {
            (None, None) => None,
            (None, Some(_)) => return refuse("NetworkPeakBandwidthInGbps needs NetworkBandwidthInGbps"),
            (Some(baseline), Some(peak)) if peak < baseline => {
                return refuse("NetworkPeakBandwidthInGbps is below NetworkBandwidthInGbps");
            }
            (Some(baseline), peak) => {
                Some(Bandwidth { baseline: bits(baseline), peak: bits(peak.unwrap_or(baseline)) })
            }
        };
        let together = |names, one: Option<i64>, other: Option<i64>| match (one, other) {
            (None, None) => Ok(None),
            (Some(one), Some(other)) => Ok(Some((one as u32, other as u32))),
            _ => refuse(format!("{names} go together")),
        };
        let mbps = integer("EbsBandwidthInMbps", input.ebs_bandwidth_in_mbps, &EBS_MBPS)?;
        let iops = integer("EbsIops", input.ebs_iops, &EBS_IOPS)?;
        let count = integer("InstanceStorageCount", input.instance_storage_count, &STORE_VOLUMES)?;
        let size = integer("InstanceStorageSizeInGB", input.instance_storage_size_in_gb, &STORE_GB)?;
        let baseline_percent = input.baseline_percent;
        if let Some(percent) = baseline_percent {
            bounded("BaselinePercent", percent, &BASELINE_PERCENT)?;
        }
        Ok(OwnType {
            instance_type,
            vcpus: required("VCpus", input.v_cpus, &VCPUS)? as u32,
            memory_mib: required("MemoryMiB", input.memory_mi_b, &MEMORY_MIB)? as u64,
            architecture: match input.architecture.as_deref() {
                None | Some("x86_64") => Architecture::X86_64,
                Some("arm64") => Architecture::Arm64,
                Some(other) => return refuse(format!("'{other}' is neither x86_64 nor arm64")),
            },
            bandwidth,
            ebs: together("EbsBandwidthInMbps and EbsIops", mbps, iops)?
                .map(|(megabits, iops)| EbsRates { megabits, iops }),
            instance_store: together("InstanceStorageCount and InstanceStorageSizeInGB", count, size)?
                .map(|(count, size_gb)| InstanceStore { count, size_gb }),
            baseline_percent,
            retired: false,
        })
    }

    fn to_api(&self) -> cumulet::InstanceType {
        let gbps = |bits: u64| bits as f64 / 1e9;
        cumulet::InstanceType {
            instance_type: Some(self.instance_type.clone()),
            v_cpus: Some(i64::from(self.vcpus)),
            memory_mi_b: Some(self.memory_mib as i64),
            architecture: Some(architecture_name(self.architecture).to_owned()),
            network_bandwidth_in_gbps: self.bandwidth.map(|rates| gbps(rates.baseline)),
            network_peak_bandwidth_in_gbps: self.bandwidth.map(|rates| gbps(rates.peak)),
            ebs_bandwidth_in_mbps: self.ebs.map(|ebs| i64::from(ebs.megabits)),
            ebs_iops: self.ebs.map(|ebs| i64::from(ebs.iops)),
            instance_storage_count: self.instance_store.map(|store| i64::from(store.count)),
            instance_storage_size_in_gb: self.instance_store.map(|store| i64::from(store.size_gb)),
            baseline_percent: self.baseline_percent,
        }
    }
}

/// Made again with the same figures it stays as it is.
pub async fn create_instance_type(
    context: &Context,
    input: cumulet::CreateInstanceTypeRequest,
) -> Result<cumulet::CreateInstanceTypeResponse> {
    let wanted = OwnType::check(&input.instance_type.unwrap_or_default())?;
    context
        .transact(|tx| {
            match tx.get::<OwnType>(&wanted.instance_type) {
                None => tx.create(&wanted),
                Some(had) if *had == wanted => {}
                // Somebody began to delete it and was interrupted.
                Some(had) if had.retired && OwnType { retired: false, ..(*had).clone() } == wanted => {
                    tx.put(&wanted)
                }
                Some(_) => {
                    let message = format!(
                        "The instance type '{}' is there already, with other figures: delete it first",
                        wanted.instance_type
                    );
                    return Err(Error::new("ConflictException", message).with_status(409));
                }
            }
            Ok(())
        })
        .await?;
    Ok(cumulet::CreateInstanceTypeResponse { instance_type: Some(wanted.to_api()) })
}

pub async fn delete_instance_type(
    context: &Context,
    input: cumulet::DeleteInstanceTypeRequest,
) -> Result<()> {
    let name = input.instance_type.unwrap_or_default();
    let not_found = || {
        let message = format!("There is no instance type '{name}' of your own");
        Error::new("ResourceNotFoundException", message).with_status(404)
    };
    let in_use = |tables: &Tables| {
        let mut instances = tables.instances.with("instance-type", &name);
        let user = instances.find(|instance| !instance.is_terminated())?;
        let message = format!("The instance type '{name}' is in use, by {} for one", user.instance_id);
        Some(Error::new("ConflictException", message).with_status(409))
    };
    retire::delete::<OwnType>(context, &name, not_found, in_use, |_, _| {}).await
}

pub async fn list_instance_types(
    context: &Context,
    input: cumulet::ListInstanceTypesRequest,
) -> Result<cumulet::ListInstanceTypesResponse> {
    let tables = context.tables();
    let (rows, next_token) =
        operator::page(&tables.instance_types, input.max_results, input.next_token.as_deref());
    Ok(cumulet::ListInstanceTypesResponse {
        next_token,
        instance_types: rows.into_iter().map(|own| own.to_api()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> cumulet::InstanceType {
        cumulet::InstanceType {
            instance_type: Some("own.small".into()),
            v_cpus: Some(1),
            memory_mi_b: Some(256),
            ..Default::default()
        }
    }

    #[test]
    fn names_are_a_family_and_a_size_and_none_of_awss() {
        for name in ["own.small", "x-1.2xlarge", "t33.micro", "0.0"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = format!("own.{}", "x".repeat(NAME_LEN_MAX));
        for name in
            ["", ".", "own", "own.", ".small", "own.small.er", "Own.small", "own/small", "-a.b", "a.-b"]
        {
            assert!(check_name(name).is_err(), "{name}");
        }
        for name in ["t3.micro", "t3.colossal", "u-6tb1.own", &long] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn every_figure_has_its_bounds() {
        let plain = OwnType::check(&wanted()).unwrap();
        assert_eq!((plain.vcpus, plain.memory_mib, plain.bandwidth, plain.ebs), (1, 256, None, None));
        let changes: [fn(&mut cumulet::InstanceType); 17] = [
            |of| of.v_cpus = None,
            |of| of.v_cpus = Some(0),
            |of| of.v_cpus = Some(i64::MAX),
            |of| of.memory_mi_b = None,
            |of| of.memory_mi_b = Some(63),
            |of| of.memory_mi_b = Some(i64::MAX),
            |of| of.architecture = Some("riscv64".into()),
            |of| of.network_bandwidth_in_gbps = Some(0.0),
            |of| of.network_bandwidth_in_gbps = Some(f64::NAN),
            |of| of.network_bandwidth_in_gbps = Some(f64::INFINITY),
            |of| of.network_peak_bandwidth_in_gbps = Some(1.0),
            |of| {
                of.network_bandwidth_in_gbps = Some(2.0);
                of.network_peak_bandwidth_in_gbps = Some(1.0);
            },
            |of| of.ebs_iops = Some(100),
            |of| of.ebs_bandwidth_in_mbps = Some(100),
            |of| of.instance_storage_count = Some(1),
            |of| {
                of.instance_storage_count = Some(25);
                of.instance_storage_size_in_gb = Some(1);
            },
            |of| of.baseline_percent = Some(100.1),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut input = wanted();
            change(&mut input);
            assert!(OwnType::check(&input).is_err(), "{number}: {input:?}");
        }
    }

    #[test]
    fn what_is_listed_makes_the_same_type() {
        let mut input = wanted();
        input.architecture = Some("arm64".into());
        input.network_bandwidth_in_gbps = Some(0.05);
        input.network_peak_bandwidth_in_gbps = Some(5.0);
        (input.ebs_bandwidth_in_mbps, input.ebs_iops) = (Some(40), Some(250));
        (input.instance_storage_count, input.instance_storage_size_in_gb) = (Some(2), Some(10));
        input.baseline_percent = Some(12.5);
        let own = OwnType::check(&input).unwrap();
        assert_eq!(OwnType::check(&own.to_api()).unwrap(), own);
        assert_eq!(own.to_api(), input);
    }
}
