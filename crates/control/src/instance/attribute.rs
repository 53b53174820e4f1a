//! Attributes of an instance: described one at a time, modified one at a time
//! (EC2 API Reference, ModifyInstanceAttribute).

use super::run::check_user_data;
use super::{Instance, MetadataOptions, ShutdownBehavior};
use crate::Context;
use crate::engine::Tx;
use crate::instance_type::{self, OwnType};
use crate::network_interface::{NetworkInterface, attach, queues};
use crate::security_group;
use crate::volume::{Volume, multi_attach};
use aws_api::ec2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, Id, InstanceState, Kind, Result};

pub async fn describe_instance_attribute(
    context: &Context,
    input: ec2::DescribeInstanceAttributeRequest,
) -> Result<ec2::InstanceAttribute> {
    let id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let tables = context.tables();
    let instance = tables.instances.find(&id).ok_or_else(|| Id::not_found(Kind::Instance, &id))?;
    let primary = instance.primary_interface(&tables);
    let boolean = |value| Some(ec2::AttributeBooleanValue { value: Some(value) });
    let text = |value: &str| Some(ec2::AttributeValue { value: Some(value.to_owned()) });
    let mut answer = ec2::InstanceAttribute { instance_id: Some(id.to_string()), ..Default::default() };
    match input.attribute.as_deref().unwrap_or_default() {
        "instanceType" => answer.instance_type = text(&instance.instance_type),
        "kernel" => answer.kernel_id = Some(Default::default()),
        "ramdisk" => answer.ramdisk_id = Some(Default::default()),
        "userData" => {
            answer.user_data = Some(ec2::AttributeValue { value: instance.user_data.clone().map(Into::into) })
        }
        "disableApiTermination" => answer.disable_api_termination = boolean(instance.disable_api_termination),
        "disableApiStop" => answer.disable_api_stop = boolean(instance.disable_api_stop),
        "instanceInitiatedShutdownBehavior" => {
            answer.instance_initiated_shutdown_behavior = text(instance.shutdown_behavior.name());
        }
        "rootDeviceName" => answer.root_device_name = text(&instance.root_device_name),
        "blockDeviceMapping" => {
            answer.block_device_mappings =
                super::describe::to_api(context, &tables, instance).block_device_mappings;
        }
        "sourceDestCheck" => {
            answer.source_dest_check = boolean(primary.is_none_or(|interface| interface.source_dest_check));
        }
        "groupSet" => {
            answer.groups = super::describe::to_api(context, &tables, instance).security_groups;
        }
        "ebsOptimized" => answer.ebs_optimized = boolean(instance.ebs_optimized),
        "enaSupport" => answer.ena_support = boolean(instance.ena_support),
        "enclaveOptions" => answer.enclave_options = Some(ec2::EnclaveOptions { enabled: Some(false) }),
        "productCodes" => {}
        "sriovNetSupport" => answer.sriov_net_support = Some(Default::default()),
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    Ok(answer)
}

/// One change of one attribute.
enum Modification {
    InstanceType(String),
    UserData(Option<String>),
    DisableApiTermination(bool),
    DisableApiStop(bool),
    ShutdownBehavior(ShutdownBehavior),
    SourceDestCheck(bool),
    EbsOptimized(bool),
    EnaSupport(bool),
    SecurityGroups(Vec<Id>),
    /// Device name and `DeleteOnTermination`.
    BlockDevices(Vec<(String, bool)>),
}

pub async fn modify_instance_attribute(
    context: &Context,
    input: ec2::ModifyInstanceAttributeRequest,
) -> Result<()> {
    let id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let mut modifications = modifications(&input)?;
    let modification = match (modifications.pop(), modifications.is_empty()) {
        (Some(one), true) => one,
        (None, _) => return Err(Error::invalid_parameter_combination("No attributes specified.")),
        _ => {
            return Err(Error::invalid_parameter_combination(
                "Fields for multiple attribute types specified",
            ));
        }
    };
    context
        .transact(|tx| {
            let before = tx.get::<Instance>(&id).ok_or_else(|| Id::not_found(Kind::Instance, &id))?;
            let mut instance = (*before).clone();
            modify(tx, &mut instance, &modification)?;
            if instance != *before {
                tx.put(&instance);
            }
            Ok(())
        })
        .await
}

/// Both ways to say it: the attribute's own field, or `Attribute` and `Value`.
fn modifications(input: &ec2::ModifyInstanceAttributeRequest) -> Result<Vec<Modification>> {
    let mut found = Vec::new();
    let flag = |value: &Option<ec2::AttributeBooleanValue>| value.as_ref().and_then(|value| value.value);
    let text = |value: &Option<ec2::AttributeValue>| value.as_ref().and_then(|value| value.value.clone());
    found.extend(text(&input.instance_type).map(Modification::InstanceType));
    if let Some(user_data) = &input.user_data {
        // The field is a blob: its text was decoded once on the way in.
        let bytes = user_data.value.as_deref().unwrap_or_default();
        found.push(Modification::UserData((!bytes.is_empty()).then(|| STANDARD.encode(bytes))));
    }
    found.extend(flag(&input.disable_api_termination).map(Modification::DisableApiTermination));
    found.extend(flag(&input.disable_api_stop).map(Modification::DisableApiStop));
    if let Some(behavior) = text(&input.instance_initiated_shutdown_behavior) {
        found.push(Modification::ShutdownBehavior(ShutdownBehavior::parse(&behavior)?));
    }
    found.extend(flag(&input.source_dest_check).map(Modification::SourceDestCheck));
    found.extend(flag(&input.ebs_optimized).map(Modification::EbsOptimized));
    found.extend(flag(&input.ena_support).map(Modification::EnaSupport));
    if !input.groups.is_empty() {
        let groups: Result<Vec<Id>> =
            input.groups.iter().map(|id| Id::parse(Kind::SecurityGroup, id)).collect();
        found.push(Modification::SecurityGroups(groups?));
    }
    if !input.block_device_mappings.is_empty() {
        let devices = input.block_device_mappings.iter().filter_map(|mapping| {
            Some((mapping.device_name.clone()?, mapping.ebs.as_ref()?.delete_on_termination?))
        });
        found.push(Modification::BlockDevices(devices.collect()));
    }
    if input.kernel.is_some() || input.ramdisk.is_some() || input.sriov_net_support.is_some() {
        return Err(Error::new(
            "UnsupportedOperation",
            "The kernel, RAM disk and SR-IOV attributes cannot be modified in this cloud.",
        ));
    }
    if let Some(attribute) = input.attribute.as_deref() {
        let value = input.value.as_deref().ok_or_else(|| Error::missing_parameter("Value"))?;
        found.push(by_name(attribute, value)?);
    }
    Ok(found)
}

fn by_name(attribute: &str, value: &str) -> Result<Modification> {
    let flag = || match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Error::invalid_parameter_value(format!(
            "Value ({value}) for parameter value is invalid. Expected a boolean."
        ))),
    };
    Ok(match attribute {
        "instanceType" => Modification::InstanceType(value.to_owned()),
        "userData" => Modification::UserData((!value.is_empty()).then(|| value.to_owned())),
        "disableApiTermination" => Modification::DisableApiTermination(flag()?),
        "disableApiStop" => Modification::DisableApiStop(flag()?),
        "instanceInitiatedShutdownBehavior" => {
            Modification::ShutdownBehavior(ShutdownBehavior::parse(value)?)
        }
        "sourceDestCheck" => Modification::SourceDestCheck(flag()?),
        "ebsOptimized" => Modification::EbsOptimized(flag()?),
        "enaSupport" => Modification::EnaSupport(flag()?),
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. The attribute cannot be modified."
            )));
        }
    })
}

fn modify(tx: &mut Tx<'_>, instance: &mut Instance, modification: &Modification) -> Result<()> {
    match modification {
        Modification::DisableApiTermination(value) => instance.disable_api_termination = *value,
        Modification::DisableApiStop(value) => instance.disable_api_stop = *value,
        Modification::ShutdownBehavior(behavior) => instance.shutdown_behavior = *behavior,
        Modification::SourceDestCheck(value) => {
            change_interface(tx, instance, |interface| interface.source_dest_check = *value)?;
        }
        Modification::SecurityGroups(groups) => {
            for group in groups {
                let found = security_group::depend(tx, group)?;
                if found.vpc_id != instance.vpc_id {
                    return Err(Error::new(
                        "InvalidGroup.NotFound",
                        format!("The security group '{group}' does not exist in VPC '{}'", instance.vpc_id),
                    ));
                }
            }
            change_interface(tx, instance, |interface| interface.security_groups = groups.as_slice().into())?;
        }
        Modification::BlockDevices(devices) => {
            for (device_name, delete_on_termination) in devices {
                change_device(tx, instance, device_name, *delete_on_termination)?;
            }
        }
        Modification::InstanceType(instance_type) => {
            only_stopped(instance, "instanceType")?;
            resize(tx, instance, instance_type)?;
        }
        Modification::UserData(user_data) => {
            only_stopped(instance, "userData")?;
            user_data.as_deref().map(check_user_data).transpose()?;
            instance.user_data = user_data.clone().map(Into::into);
        }
        Modification::EbsOptimized(value) => {
            only_stopped(instance, "ebsOptimized")?;
            instance.ebs_optimized = *value;
        }
        Modification::EnaSupport(value) => {
            only_stopped(instance, "enaSupport")?;
            instance.ena_support = *value;
        }
    }
    Ok(())
}

fn only_stopped(instance: &Instance, attribute: &str) -> Result<()> {
    if instance.state == InstanceState::Stopped {
        return Ok(());
    }
    Err(Error::new(
        "IncorrectInstanceState",
        format!(
            "The instance '{}' is not in the 'stopped' state: its attribute {attribute} cannot be modified.",
            instance.instance_id
        ),
    ))
}

fn resize(tx: &mut Tx<'_>, instance: &mut Instance, instance_type: &str) -> Result<()> {
    let shape = instance_type::shape(tx.tables(), instance_type)?;
    // Depended upon: an own type that is deleted meanwhile is noticed.
    tx.get::<OwnType>(instance_type);
    if shape.architecture != instance.architecture {
        return Err(Error::invalid_parameter_value(format!(
            "The architecture of '{instance_type}' does not match the instance's."
        )));
    }
    let mut volumes = instance.disks.iter().filter_map(|disk| tx.get::<Volume>(&disk.volume_id));
    if volumes.any(|volume| volume.multi_attach) {
        multi_attach::check_type(tx.tables(), instance_type)?;
    }
    let limits = instance_type::performance(tx.tables(), instance_type).interfaces;
    let interfaces: Vec<_> = attach::attached(tx.tables(), instance).collect();
    attach::check_interfaces(&interfaces, instance_type, &limits)?;
    queues::check(&queues::of_instance(tx.tables(), instance), instance_type, &limits)?;
    for interface_id in &instance.interfaces {
        let interface = tx.get::<NetworkInterface>(interface_id);
        interface.map_or(Ok(()), |interface| attach::check_addresses(&interface, &limits))?;
    }
    instance.instance_type = instance_type.into();
    // CPU options do not outlive the type that they were for.
    instance.vcpus = shape.vcpus;
    instance.threads_per_core = shape.threads_per_core;
    instance.memory_mib = shape.memory_mib;
    Ok(())
}

fn change_interface(
    tx: &mut Tx<'_>,
    instance: &Instance,
    change: impl FnOnce(&mut NetworkInterface),
) -> Result<()> {
    let found = instance.interfaces.first().and_then(|id| tx.get::<NetworkInterface>(id));
    let mut interface = (*found.ok_or_else(|| {
        Error::new(
            "IncorrectInstanceState",
            format!("The instance '{}' has no network interface.", instance.instance_id),
        )
    })?)
    .clone();
    change(&mut interface);
    tx.put(&interface);
    Ok(())
}

fn change_device(
    tx: &mut Tx<'_>,
    instance: &Instance,
    device_name: &str,
    delete_on_termination: bool,
) -> Result<()> {
    let disk = instance.disks.iter().find(|disk| disk.device_name == device_name);
    let volume = disk.and_then(|disk| tx.get::<Volume>(&disk.volume_id));
    let mut volume = (*volume.ok_or_else(|| {
        Error::new("InvalidInstanceAttributeValue", format!("No device is currently mapped at {device_name}"))
    })?)
    .clone();
    if let Some(attachment) = volume.attachment_to_mut(&instance.instance_id) {
        attachment.delete_on_termination = delete_on_termination;
    }
    tx.put(&volume);
    Ok(())
}

/// Only `sourceDestCheck` has a default to go back to here; kernel and RAM disk are not there.
pub async fn reset_instance_attribute(
    context: &Context,
    input: ec2::ResetInstanceAttributeRequest,
) -> Result<()> {
    let id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    match input.attribute.as_deref().unwrap_or_default() {
        "sourceDestCheck" => {}
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. The attribute cannot be reset."
            )));
        }
    }
    context
        .transact(|tx| {
            let instance = tx.get::<Instance>(&id).ok_or_else(|| Id::not_found(Kind::Instance, &id))?;
            change_interface(tx, &instance, |interface| interface.source_dest_check = true)
        })
        .await
}

/// A change of metadata options; what is None stays.
pub struct WantedMetadataOptions<'a> {
    pub endpoint: Option<&'a str>,
    pub tokens: Option<&'a str>,
    pub hop_limit: Option<i32>,
    pub instance_tags: Option<&'a str>,
    pub ipv6: Option<&'a str>,
}

pub fn change_metadata_options(
    options: &mut MetadataOptions,
    wanted: WantedMetadataOptions<'_>,
) -> Result<()> {
    let choice = |name: &str, value: &str, yes: &str, no: &str| match value {
        _ if value == yes => Ok(true),
        _ if value == no => Ok(false),
        _ => Err(Error::invalid_parameter_value(format!(
            "Value ({value}) for parameter {name} is invalid. Valid values are {no} and {yes}."
        ))),
    };
    if let Some(value) = wanted.endpoint {
        options.http_endpoint = choice("httpEndpoint", value, "enabled", "disabled")?;
    }
    if let Some(value) = wanted.tokens {
        options.http_tokens_required = choice("httpTokens", value, "required", "optional")?;
    }
    if let Some(value) = wanted.instance_tags {
        options.instance_tags = choice("instanceMetadataTags", value, "enabled", "disabled")?;
    }
    if let Some(limit) = wanted.hop_limit {
        options.hop_limit = u8::try_from(limit).ok().filter(|limit| (1..=64).contains(limit)).ok_or_else(|| {
            Error::invalid_parameter_value(format!("Value ({limit}) for parameter httpPutResponseHopLimit is invalid. It must be between 1 and 64."))
        })?;
    }
    if let Some(value) = wanted.ipv6 {
        options.http_ipv6 = choice("httpProtocolIpv6", value, "enabled", "disabled")?;
    }
    Ok(())
}

pub fn metadata_options_to_api(options: &MetadataOptions) -> ec2::InstanceMetadataOptionsResponse {
    let choice = |value: bool, yes: &str, no: &str| Some(if value { yes } else { no }.to_owned());
    ec2::InstanceMetadataOptionsResponse {
        state: Some("applied".into()),
        http_endpoint: choice(options.http_endpoint, "enabled", "disabled"),
        http_tokens: choice(options.http_tokens_required, "required", "optional"),
        http_put_response_hop_limit: Some(i32::from(options.hop_limit)),
        http_protocol_ipv6: choice(options.http_ipv6, "enabled", "disabled"),
        instance_metadata_tags: choice(options.instance_tags, "enabled", "disabled"),
    }
}

pub async fn modify_instance_metadata_options(
    context: &Context,
    input: ec2::ModifyInstanceMetadataOptionsRequest,
) -> Result<ec2::ModifyInstanceMetadataOptionsResult> {
    let id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let options = context
        .transact(|tx| {
            let before = tx.get::<Instance>(&id).ok_or_else(|| Id::not_found(Kind::Instance, &id))?;
            if matches!(before.state, InstanceState::ShuttingDown | InstanceState::Terminated) {
                return Err(Error::new("IncorrectInstanceState", format!("The instance '{id}' is not in a state from which its metadata options can be modified.")));
            }
            let mut instance = (*before).clone();
            change_metadata_options(
                &mut instance.metadata_options,
                WantedMetadataOptions {
                    endpoint: input.http_endpoint.as_deref(),
                    tokens: input.http_tokens.as_deref(),
                    hop_limit: input.http_put_response_hop_limit,
                    instance_tags: input.instance_metadata_tags.as_deref(),
                    ipv6: input.http_protocol_ipv6.as_deref(),
                },
            )?;
            if instance != *before {
                tx.put(&instance);
            }
            Ok(instance.metadata_options)
        })
        .await?;
    Ok(ec2::ModifyInstanceMetadataOptionsResult {
        instance_id: Some(id.to_string()),
        instance_metadata_options: Some(metadata_options_to_api(&options)),
    })
}
