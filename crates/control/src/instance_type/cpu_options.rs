//! The CPU options of a launch: fewer cores than the type has, or one thread a core
//! (EC2 User Guide, "CPU options for Amazon EC2 instances").

use super::{MachineShape, info};
use crate::engine::Tables;
use aws_api::ec2;
use model::{Error, Result};

/// What the type is with the options; memory and all else stay.
pub fn with_cpu_options(
    tables: &Tables,
    instance_type: &str,
    shape: MachineShape,
    options: &ec2::CpuOptionsRequest,
) -> Result<MachineShape> {
    let enabled = |option: &Option<String>| option.as_deref() == Some("enabled");
    if enabled(&options.amd_sev_snp) || enabled(&options.nested_virtualization) {
        return Err(Error::new(
            "UnsupportedOperation",
            "AMD SEV-SNP and nested virtualization are not supported by this cloud.",
        ));
    }
    let (cores, threads) = match (options.core_count, options.threads_per_core) {
        (None, None) => return Ok(shape),
        (Some(cores), Some(threads)) => (cores, threads),
        _ => {
            return Err(Error::invalid_parameter_combination(
                "You must specify both CoreCount and ThreadsPerCore",
            ));
        }
    };
    let valid = info(tables, instance_type).and_then(|info| info.v_cpu_info).unwrap_or_default();
    if valid.valid_cores.is_empty() || valid.valid_threads_per_core.is_empty() {
        return Err(Error::new(
            "UnsupportedOperation",
            format!("CPU options are not supported by the instance type {instance_type}."),
        ));
    }
    check("CoreCount", cores, &valid.valid_cores, instance_type)?;
    check("ThreadsPerCore", threads, &valid.valid_threads_per_core, instance_type)?;
    // Both are of the type's lists: small and above zero.
    let threads_per_core = threads as u32;
    Ok(MachineShape { vcpus: cores as u32 * threads_per_core, threads_per_core, ..shape })
}

fn check(name: &str, value: i32, valid: &[i32], instance_type: &str) -> Result<()> {
    if valid.contains(&value) {
        return Ok(());
    }
    let valid: Vec<String> = valid.iter().map(i32::to_string).collect();
    Err(Error::invalid_parameter_value(format!(
        "Value ({value}) for parameter {name} is invalid for the instance type {instance_type}. Valid values are {}.",
        valid.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::super::shape;
    use super::*;

    fn with(name: &str, core_count: Option<i32>, threads_per_core: Option<i32>) -> Result<(u32, u32)> {
        let tables = Tables::default();
        let options = ec2::CpuOptionsRequest { core_count, threads_per_core, ..Default::default() };
        let shape = with_cpu_options(&tables, name, shape(&tables, name)?, &options)?;
        Ok((shape.vcpus, shape.threads_per_core))
    }

    #[test]
    fn options_are_held_to_the_types_lists() {
        assert_eq!(with("m5.2xlarge", None, None).unwrap(), (8, 2));
        assert_eq!(with("m5.2xlarge", Some(2), Some(1)).unwrap(), (2, 1));
        assert_eq!(with("m5.2xlarge", Some(2), Some(2)).unwrap(), (4, 2));
        assert_eq!(with("m6g.xlarge", Some(4), Some(1)).unwrap(), (4, 1));
        for (name, cores, threads, code) in [
            ("m5.2xlarge", Some(3), Some(1), "InvalidParameterValue"),
            ("m5.2xlarge", Some(0), Some(1), "InvalidParameterValue"),
            ("m5.2xlarge", Some(-1), Some(-1), "InvalidParameterValue"),
            ("m5.2xlarge", Some(1), Some(3), "InvalidParameterValue"),
            ("m6g.xlarge", Some(4), Some(2), "InvalidParameterValue"),
            ("m5.2xlarge", Some(1), None, "InvalidParameterCombination"),
            ("m5.2xlarge", None, Some(1), "InvalidParameterCombination"),
            ("m1.small", Some(1), Some(1), "UnsupportedOperation"),
        ] {
            assert_eq!(with(name, cores, threads).unwrap_err().code, code, "{name} {cores:?} {threads:?}");
        }
    }
}
