//! What may be asked of a volume (EBS User Guide, "Amazon EBS volume types").

use model::{Error, Result};
use std::ops::RangeInclusive;

/// Of any type.
const SIZE_GIB_MAX: u32 = 65_536;

/// What a type of volume can be had with.
struct Type {
    name: &'static str,
    size_gib: RangeInclusive<u32>,
    /// Where IOPS are provisioned: how many, how many for each GiB, and the default.
    iops: Option<(RangeInclusive<i32>, i32, Option<i32>)>,
    /// MiB a second, where throughput is provisioned.
    throughput: Option<RangeInclusive<i32>>,
}

const TYPES: [Type; 7] = [
    Type { name: "standard", size_gib: 1..=1024, iops: None, throughput: None },
    Type { name: "gp2", size_gib: 1..=16_384, iops: None, throughput: None },
    Type {
        name: "gp3",
        size_gib: 1..=65_536,
        iops: Some((3_000..=80_000, 500, Some(3_000))),
        throughput: Some(125..=2_000),
    },
    Type { name: "io1", size_gib: 4..=16_384, iops: Some((100..=64_000, 50, None)), throughput: None },
    Type { name: "io2", size_gib: 4..=65_536, iops: Some((100..=256_000, 1_000, None)), throughput: None },
    Type { name: "st1", size_gib: 125..=16_384, iops: None, throughput: None },
    Type { name: "sc1", size_gib: 125..=16_384, iops: None, throughput: None },
];

/// A size that is asked for, in GiB.
pub fn size(asked: i32) -> Result<u32> {
    let size = u32::try_from(asked).ok().filter(|size| (1..=SIZE_GIB_MAX).contains(size));
    size.ok_or_else(|| {
        Error::invalid_parameter_value(format!("Volume size {asked} GiB is not between 1 and {SIZE_GIB_MAX}"))
    })
}

/// How fast what a volume is made of shall come, in MiB a second (EBS User Guide, "Initialize Amazon EBS volumes").
pub fn initialization_rate(asked: Option<i32>) -> Result<Option<i32>> {
    match asked {
        Some(rate) if !(100..=300).contains(&rate) => Err(Error::invalid_parameter_value(format!(
            "The volume initialization rate {rate} MiB/s is not between 100 and 300"
        ))),
        asked => Ok(asked),
    }
}

/// IOPS and throughput of a volume: what is asked where its type allows it, else its type's own.
pub fn performance(
    volume_type: &str,
    size_gib: u32,
    iops: Option<i32>,
    throughput: Option<i32>,
) -> Result<(Option<i32>, Option<i32>)> {
    let of = TYPES.iter().find(|of| of.name == volume_type).ok_or_else(|| {
        Error::invalid_parameter_value(format!("Value ({volume_type}) for parameter volumeType is invalid."))
    })?;
    if !of.size_gib.contains(&size_gib) {
        return Err(Error::invalid_parameter_value(format!(
            "The volume size is invalid for {volume_type} volumes: {size_gib} GiB. {volume_type} volumes must be between {} and {} GiB in size.",
            of.size_gib.start(),
            of.size_gib.end()
        )));
    }
    match (&of.iops, iops) {
        (Some((range, ..)), Some(value)) if !range.contains(&value) => {
            return Err(outside("iops", value, range));
        }
        (Some((range, for_each_gib, _)), Some(value)) => {
            let most = i64::from(size_gib) * i64::from(*for_each_gib);
            // What every volume of the type may have is not refused to a small one.
            if i64::from(value) > most.max(i64::from(*range.start())) {
                return Err(Error::invalid_parameter_combination(format!(
                    "Iops to volume size ratio of {:.6} is too high; maximum is {for_each_gib}",
                    f64::from(value) / f64::from(size_gib)
                )));
            }
        }
        (Some((_, _, None)), None) => {
            return Err(Error::invalid_parameter_combination(format!(
                "The parameter iops must be specified for {volume_type} volumes."
            )));
        }
        (None, Some(_)) => {
            return Err(Error::invalid_parameter_combination(format!(
                "The parameter iops is not supported for {volume_type} volumes."
            )));
        }
        _ => {}
    }
    match (&of.throughput, throughput) {
        (Some(range), Some(value)) if !range.contains(&value) => {
            return Err(outside("throughput", value, range));
        }
        (None, Some(_)) => {
            return Err(Error::invalid_parameter_combination(
                "throughput can only be specified for volumeType gp3.",
            ));
        }
        _ => {}
    }
    let iops = match &of.iops {
        Some((_, _, default)) => iops.or(*default),
        // Three for each GiB.
        None if volume_type == "gp2" => Some((size_gib as i32 * 3).clamp(100, 16_000)),
        None => None,
    };
    let throughput = of.throughput.as_ref().map(|range| throughput.unwrap_or(*range.start()));
    if let (Some(iops), Some(throughput)) = (iops, throughput)
        && throughput > iops / 4
    {
        return Err(Error::invalid_parameter_combination(format!(
            "Throughput (MiBps) to iops ratio of {:.6} is too high; maximum is 0.250000 MiBps per iops",
            f64::from(throughput) / f64::from(iops)
        )));
    }
    Ok((iops, throughput))
}

/// Whoever reads what a type can be had with out of this error, as the EBS CSI driver does, finds AWS's words.
fn outside(what: &str, value: i32, range: &RangeInclusive<i32>) -> Error {
    let (extent, least_or_most) = match value < *range.start() {
        true => ("low; minimum", range.start()),
        false => ("high; maximum", range.end()),
    };
    Error::invalid_parameter_value(format!("Volume {what} of {value} is too {extent} is {least_or_most}."))
}

/// IOPS that a volume of the type is asked for with: those of others follow from their size.
pub fn provisioned(volume_type: &str, iops: Option<i32>) -> Option<i32> {
    let provisions = TYPES.iter().any(|of| of.name == volume_type && of.iops.is_some());
    iops.filter(|_| provisions)
}

/// `/dev/sda1`, `/dev/xvdb`, `/dev/sdf`, `xvdf` (EC2 User Guide, "Device names for volumes").
pub fn device_name(name: &str) -> Result<()> {
    let short = name.strip_prefix("/dev/").unwrap_or(name);
    let letters = short.strip_prefix("sd").or_else(|| short.strip_prefix("xvd")).unwrap_or_default();
    let (letters, digits) = letters.split_at(letters.bytes().take_while(u8::is_ascii_lowercase).count());
    if matches!(letters.len(), 1 | 2) && digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(Error::invalid_parameter_value(format!(
        "Value ({name}) for parameter device is invalid. {name} is not a valid EBS device name."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names() {
        for name in ["/dev/sda1", "/dev/xvda", "xvdba", "/dev/sdf", "/dev/sdf12"] {
            assert!(device_name(name).is_ok(), "{name}");
        }
        for name in ["", "/dev/", "/dev/nvme0n1", "sda123", "/dev/sd1", "../sda"] {
            assert!(device_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn each_type_has_its_sizes_iops_and_throughput() {
        assert_eq!(performance("gp3", 8, None, None).unwrap(), (Some(3_000), Some(125)));
        assert_eq!(performance("gp3", 8, Some(4_000), Some(1_000)).unwrap(), (Some(4_000), Some(1_000)));
        assert_eq!(performance("gp2", 1, None, None).unwrap(), (Some(100), None));
        assert_eq!(performance("gp2", 1_000, None, None).unwrap(), (Some(3_000), None));
        assert_eq!(performance("io1", 4, Some(200), None).unwrap(), (Some(200), None));
        assert_eq!(performance("io2", 4, Some(4_000), None).unwrap(), (Some(4_000), None));
        assert_eq!(performance("st1", 125, None, None).unwrap(), (None, None));
        for (volume_type, size, iops, throughput, code) in [
            ("gp4", 8, None, None, "InvalidParameterValue"),
            ("st1", 8, None, None, "InvalidParameterValue"),
            ("standard", 2_000, None, None, "InvalidParameterValue"),
            ("io1", 3, Some(100), None, "InvalidParameterValue"),
            ("io1", 4, None, None, "InvalidParameterCombination"),
            ("io1", 4, Some(201), None, "InvalidParameterCombination"),
            ("gp3", 8, Some(4_001), None, "InvalidParameterCombination"),
            ("gp3", 8, Some(2_999), None, "InvalidParameterValue"),
            ("gp3", 8, None, Some(751), "InvalidParameterCombination"),
            ("gp3", 8, None, Some(124), "InvalidParameterValue"),
            ("gp2", 8, None, Some(125), "InvalidParameterCombination"),
            ("gp2", 8, Some(100), None, "InvalidParameterCombination"),
            ("sc1", 125, Some(100), None, "InvalidParameterCombination"),
        ] {
            let refused = performance(volume_type, size, iops, throughput).unwrap_err();
            assert_eq!(refused.code, code, "{volume_type} {size} {iops:?} {throughput:?}");
        }
    }
}
