//! RunInstances: everything is checked first, then one transaction makes the instances, their interfaces, volumes
//! and address claims; the hosts learn of them from the reconciler.

use super::{
    AutoRecovery, CreditOption, InGroup, Instance, InstanceDisk, MetadataOptions, Placement,
    ShutdownBehavior, Tenancy,
};
use crate::Context;
use crate::attachment::AttachmentState;
use crate::dedicated_host::{self, DedicatedHost};
use crate::encryption::{self, Encryption, Unnamed};
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tables, Tx};
use crate::image::{self, Image};
use crate::instance_type::{self, MachineShape, OwnType};
use crate::key_pair;
use crate::placement_group::PlacementGroup;
use crate::snapshot::fast_restore;
use crate::subnet::Subnet;
use crate::volume::{Volume, VolumeAttachment};
use agent_api::{Architecture, BootMode, DiskBus};
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};
use smallvec::SmallVec;
use std::sync::Arc;

mod block_devices;
mod network;
pub(crate) mod place;
mod user_data;

pub use block_devices::DiskPlan;
pub use network::NetworkRequest;
pub(crate) use place::PlacingGuard;
pub(super) use user_data::check as check_user_data;

/// Most instances of one request; EC2's own bound is the account's vCPU quota.
const INSTANCES_MAX: i32 = 1000;
/// What EC2 runs when no type is given.
const DEFAULT_INSTANCE_TYPE: &str = "m1.small";

/// A checked request: nothing in it can fail any more but the lack of room, addresses and the like.
struct Launch {
    min: usize,
    max: usize,
    image: Arc<Image>,
    instance_type: String,
    shape: MachineShape,
    boot_mode: BootMode,
    disk_bus: DiskBus,
    public_key: Option<(String, String)>,
    user_data: Option<String>,
    network: NetworkRequest,
    disks: Vec<DiskPlan>,
    options: MetadataOptions,
    shutdown_behavior: ShutdownBehavior,
    tags: Specified,
}

pub async fn run_instances(context: &Context, input: ec2::RunInstancesRequest) -> Result<ec2::Reservation> {
    refuse_what_is_not_there(&input)?;
    // A repetition has its answer whatever became of the image and the key pair since.
    let launch = check(context, &input);
    let idempotent = context.idempotent()?;
    let guard = PlacingGuard::new(context.region.clone(), context.environment.random.u64());
    let ids = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made);
            }
            let launch = launch.as_ref().map_err(Clone::clone)?;
            let made = launch.make(context, &input, tx, &guard)?;
            let ids: Vec<String> = made.iter().map(|instance| instance.instance_id.to_string()).collect();
            idempotent.remember(tx, ids.clone());
            Ok(ids)
        })
        .await?;
    drop(guard);
    let tables = context.tables();
    let instances: Vec<Arc<Instance>> =
        ids.iter().filter_map(|id| tables.instances.find(id).cloned()).collect();
    super::describe::reservations(context, &tables, &instances)
        .pop()
        .ok_or_else(|| Error::internal("the instances of a launch are not in the view"))
}

/// What the API knows and this cloud has not: refused rather than ignored.
fn refuse_what_is_not_there(input: &ec2::RunInstancesRequest) -> Result<()> {
    if let Some(template) = &input.launch_template {
        return Err(match (&template.launch_template_id, &template.launch_template_name) {
            (Some(id), _) => Error::new(
                "InvalidLaunchTemplateId.NotFound",
                format!("The specified launch template, with template ID {id}, does not exist."),
            ),
            (None, name) => Error::new(
                "InvalidLaunchTemplateName.NotFoundException",
                format!(
                    "The specified launch template, with template name {}, does not exist.",
                    name.as_deref().unwrap_or_default()
                ),
            ),
        });
    }
    if let Some(profile) = &input.iam_instance_profile {
        let (field, value) = match (&profile.arn, &profile.name) {
            (Some(arn), _) => ("arn", arn.as_str()),
            (None, name) => ("name", name.as_deref().unwrap_or_default()),
        };
        return Err(Error::invalid_parameter_value(format!(
            "Value ({value}) for parameter iamInstanceProfile.{field} is invalid. Invalid IAM Instance Profile {field}"
        )));
    }
    let weighting =
        input.network_performance_options.as_ref().and_then(|of| of.bandwidth_weighting.as_deref());
    let weighted = weighting.is_some_and(|weighting| weighting != "default");
    let reservation = input.capacity_reservation_specification.as_ref();
    let reserved = reservation.is_some_and(|of| of.capacity_reservation_target.is_some())
        || reservation_preference(input) == Some("capacity-reservations-only");
    refuse([
        (input.instance_market_options.is_some(), "Spot instances are"),
        (
            input.hibernation_options.as_ref().is_some_and(|options| options.configured == Some(true)),
            "Hibernation is",
        ),
        (input.enclave_options.as_ref().is_some_and(|options| options.enabled == Some(true)), "Enclaves are"),
        (
            !input.elastic_gpu_specification.is_empty() || !input.elastic_inference_accelerators.is_empty(),
            "Elastic accelerators are",
        ),
        (!input.license_specifications.is_empty(), "Licence specifications are"),
        (!input.secondary_interfaces.is_empty(), "Secondary interfaces are"),
        (weighted, "Bandwidth weighting is"),
        (reserved, "Capacity Reservations are"),
        (input.operator.is_some(), "Instances that a service provider operates are"),
        (given(&input.kernel_id) || given(&input.ramdisk_id), "Kernel and RAM disk images are"),
    ])
}

fn reservation_preference(input: &ec2::RunInstancesRequest) -> Option<&str> {
    input.capacity_reservation_specification.as_ref()?.capacity_reservation_preference.as_deref()
}

fn check(context: &Context, input: &ec2::RunInstancesRequest) -> Result<Launch> {
    let (min, max) = counts(input)?;
    let image = image(context, input)?;
    let instance_type = input.instance_type.clone().unwrap_or_else(|| DEFAULT_INSTANCE_TYPE.to_owned());
    let tables = context.tables();
    let mut shape = instance_type::shape(&tables, &instance_type)?;
    if let Some(options) = &input.cpu_options {
        shape = instance_type::with_cpu_options(&tables, &instance_type, shape, options)?;
    }
    if shape.architecture != image.architecture {
        return Err(Error::invalid_parameter_value(format!(
            "The architecture '{}' of the specified instance type does not match the architecture '{}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.",
            super::architecture_name(shape.architecture),
            super::architecture_name(image.architecture)
        )));
    }
    let public_key = match input.key_name.as_deref() {
        None | Some("") => None,
        Some(name) => {
            let key = key_pair::find_by_name(&tables, name).ok_or_else(|| {
                Error::new("InvalidKeyPair.NotFound", format!("The key pair '{name}' does not exist"))
            })?;
            Some((key.key_name.clone(), key.public_key.clone()))
        }
    };
    if let Some(user_data) = &input.user_data {
        check_user_data(user_data)?;
    }
    let network = NetworkRequest::check(context, &tables, input, &instance_type, max)?;
    let disks = block_devices::plan(&tables, &image, &input.block_device_mappings, &instance_type)?;
    Ok(Launch {
        min,
        max,
        boot_mode: boot_mode(&image),
        disk_bus: image.disk_bus()?,
        instance_type,
        shape,
        public_key,
        user_data: input.user_data.clone().filter(|text| !text.is_empty()),
        network,
        disks,
        options: metadata_options(input, &image)?,
        shutdown_behavior: input
            .instance_initiated_shutdown_behavior
            .as_deref()
            .map_or(Ok(ShutdownBehavior::Stop), ShutdownBehavior::parse)?,
        tags: Specified::from_api(
            &input.tag_specifications,
            &[Kind::Instance, Kind::Volume, Kind::NetworkInterface],
        )?,
        image,
    })
}

fn counts(input: &ec2::RunInstancesRequest) -> Result<(usize, usize)> {
    let (min, max) = (input.min_count.unwrap_or(0), input.max_count.unwrap_or(0));
    for (name, value) in [("minCount", min), ("maxCount", max)] {
        if value < 1 {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({value}) for parameter {name} is invalid. Minimum value is 1."
            )));
        }
    }
    if min > max {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({min}) for parameter minCount is invalid. The minimum count may not exceed the maximum count ({max})."
        )));
    }
    if max > INSTANCES_MAX {
        return Err(Error::new(
            "InstanceLimitExceeded",
            format!(
                "You have requested more instances ({max}) than the limit of {INSTANCES_MAX} in one request allows."
            ),
        ));
    }
    Ok((min as usize, max as usize))
}

fn image(context: &Context, input: &ec2::RunInstancesRequest) -> Result<Arc<Image>> {
    let image_id = input.image_id.as_deref().ok_or_else(|| Error::missing_parameter("ImageId"))?;
    let now = context.environment.clock.now();
    let image = image::seen(&context.tables(), context.account(), image_id, now)?;
    image.check_available()?;
    Ok(image)
}

/// The image's boot mode; `uefi-preferred` and none are the firmware that starts fastest.
pub(crate) fn boot_mode(image: &Image) -> BootMode {
    match (image.boot_mode.as_deref(), image.architecture) {
        (Some("uefi"), _) | (_, Architecture::Arm64) => BootMode::Uefi,
        _ => BootMode::LegacyBios,
    }
}

fn metadata_options(input: &ec2::RunInstancesRequest, image: &Image) -> Result<MetadataOptions> {
    // An image that asks for IMDSv2 makes it the default, with two hops (EC2 User Guide, "Configure the AMI").
    let v2 = image.imds_support.as_deref() == Some("v2.0");
    let mut options = MetadataOptions {
        http_endpoint: true,
        http_tokens_required: v2,
        hop_limit: if v2 { 2 } else { 1 },
        instance_tags: false,
        http_ipv6: false,
    };
    if let Some(wanted) = &input.metadata_options {
        super::attribute::change_metadata_options(
            &mut options,
            super::attribute::WantedMetadataOptions {
                endpoint: wanted.http_endpoint.as_deref(),
                tokens: wanted.http_tokens.as_deref(),
                hop_limit: wanted.http_put_response_hop_limit,
                instance_tags: wanted.instance_metadata_tags.as_deref(),
                ipv6: wanted.http_protocol_ipv6.as_deref(),
            },
        )?;
    }
    Ok(options)
}

fn credit_option(input: &ec2::RunInstancesRequest) -> Result<Option<CreditOption>> {
    let credit = input.credit_specification.as_ref().and_then(|credit| credit.cpu_credits.as_deref());
    credit.map(CreditOption::parse).transpose()
}

impl Launch {
    /// Makes as many instances as there is room for, at least the minimum.
    fn make(
        &self,
        context: &Context,
        input: &ec2::RunInstancesRequest,
        tx: &mut Tx<'_>,
        guard: &PlacingGuard,
    ) -> Result<Vec<Instance>> {
        let (asked, affinity) = super::placement::asked(input.placement.as_ref())?;
        let tenancy = self.network.tenancy(tx, asked)?;
        let request = self.place_request(tx.tables(), input, tenancy)?;
        let places = guard.place(tx.tables(), &request, self.min, self.max)?;
        // Depended upon: an own type, group or Dedicated Host that changes meanwhile is noticed.
        instance_type::shape(tx.tables(), &self.instance_type)?;
        tx.get::<OwnType>(&self.instance_type);
        if let Some(group) = &request.group {
            tx.get::<PlacementGroup>(&group.group_id);
        }
        for host_id in places.chosen.iter().filter_map(|choice| choice.dedicated_host_id.as_ref()) {
            tx.get::<DedicatedHost>(host_id);
        }
        image::note_launch(tx, &self.image.image_id);
        let subnet = self.network.subnet_in(&places.zone)?;
        let reservation_id = tx.new_id(Kind::Reservation);
        let mut made = Vec::with_capacity(places.chosen.len());
        for (index, place) in places.chosen.iter().enumerate() {
            let placement = Placement {
                zone: places.zone.as_str().into(),
                host_id: place.host_id.as_str().into(),
                group: request.group.as_ref().map(|group| InGroup::new(group, place.partition).into()),
                tenancy,
                affinity,
                dedicated_host_id: place.dedicated_host_id.clone().map(Into::into),
                targeted: false,
            };
            made.push(self.make_one(context, input, tx, &reservation_id, index, placement, &subnet)?);
        }
        Ok(made)
    }

    fn place_request<'a>(
        &'a self,
        tables: &Tables,
        input: &ec2::RunInstancesRequest,
        tenancy: Tenancy,
    ) -> Result<place::PlaceRequest<'a>> {
        let placement = input.placement.clone().unwrap_or_default();
        let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
        let (name, id) = (given(&placement.group_name), given(&placement.group_id));
        let group = place::find_group(tables, name.as_deref(), id.as_deref(), placement.partition_number)?;
        if let Some(group) = &group {
            place::check_tenancy(group, tenancy)?;
        }
        let dedicated_host = given(&placement.host_id).map(|id| dedicated_host::find(tables, &id));
        Ok(place::PlaceRequest {
            shape: &self.shape,
            instance_type: &self.instance_type,
            zones: self.network.zones(),
            partition: placement.partition_number.filter(|_| group.is_some()).map(|number| number as u32),
            group,
            tenancy,
            dedicated_host: dedicated_host.transpose()?,
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn make_one(
        &self,
        context: &Context,
        input: &ec2::RunInstancesRequest,
        tx: &mut Tx<'_>,
        reservation_id: &Id,
        index: usize,
        placement: Placement,
        subnet: &Arc<Subnet>,
    ) -> Result<Instance> {
        let now = tx.now();
        let instance_id = tx.new_id(Kind::Instance);
        let tags = self.tags.of(Kind::NetworkInterface);
        let interfaces = self.network.make(tx, &instance_id, subnet, context.options.public_pool, &tags)?;
        let mut disks = SmallVec::with_capacity(self.disks.len());
        for plan in &self.disks {
            let source = plan.source.as_ref();
            let encryption = encryption::choose(context, tx, &plan.encrypted, source, Unnamed::Source)?;
            encryption.as_ref().map_or(Ok(()), Encryption::check)?;
            let (id, owner) = (tx.new_id(Kind::Volume), context.account().clone());
            let volume = Volume {
                volume_type: plan.volume_type.as_str().into(),
                iops: plan.iops,
                throughput: plan.throughput,
                snapshot_id: plan.snapshot_id.clone(),
                encryption,
                initialization_rate: plan.initialization_rate,
                fast_restored: plan
                    .snapshot_id
                    .as_ref()
                    .is_some_and(|id| fast_restore::is_enabled(tx.tables(), id, &placement.zone)),
                attachments: smallvec::smallvec![VolumeAttachment {
                    instance_id: instance_id.clone(),
                    device_name: plan.device_name.as_str().into(),
                    delete_on_termination: plan.delete_on_termination,
                    attached_at: now,
                    state: AttachmentState::Attached,
                }],
                host_id: Some(placement.host_id.clone()),
                tags: self.tags.of(Kind::Volume),
                ..Volume::new(id, owner, plan.size_gib, placement.zone.clone(), now)
            };
            tx.create(&volume);
            disks.push(InstanceDisk {
                device_name: plan.device_name.as_str().into(),
                volume_id: volume.volume_id,
            });
        }
        let instance = Instance {
            instance_id,
            reservation_id: reservation_id.clone(),
            owner: context.account().clone(),
            launch_index: index as u32,
            client_token: input.client_token.clone().map(Into::into),
            state: InstanceState::Pending,
            request_id: tx.request_id().map(Into::into),
            boot: 1,
            checks: None,
            force_stop: false,
            hold: None,
            state_reason: None,
            state_transition_reason: Box::default(),
            launched_at: now,
            created_at: now,
            terminated_at: None,
            ended_stopped: false,
            image_id: self.image.image_id.clone(),
            instance_type: self.instance_type.as_str().into(),
            architecture: self.shape.architecture,
            boot_mode: self.boot_mode,
            uefi_data: self
                .image
                .uefi_data
                .as_deref()
                .filter(|_| self.boot_mode == BootMode::Uefi)
                .map(Into::into),
            tpm: self.image.tpm,
            disk_bus: self.disk_bus,
            vcpus: self.shape.vcpus,
            threads_per_core: self.shape.threads_per_core,
            memory_mib: self.shape.memory_mib,
            platform_details: self.image.platform_details.as_str().into(),
            root_device_name: self.image.root_device_name.as_str().into(),
            placement,
            interfaces: interfaces.into(),
            disks,
            vpc_id: subnet.vpc_id.clone(),
            subnet_id: subnet.subnet_id.clone(),
            public_key: self.public_key.clone().map(Into::into),
            user_data: self.user_data.clone().map(Into::into),
            metadata_options: self.options.clone(),
            shutdown_behavior: self.shutdown_behavior,
            disable_api_termination: input.disable_api_termination.unwrap_or(false),
            disable_api_stop: input.disable_api_stop.unwrap_or(false),
            ebs_optimized: input.ebs_optimized.unwrap_or(false),
            ena_support: self.image.ena_support,
            monitoring: input.monitoring.as_ref().and_then(|monitoring| monitoring.enabled).unwrap_or(false),
            cpu_credits: credit_option(input)?,
            auto_recovery: input
                .maintenance_options
                .as_ref()
                .and_then(|options| options.auto_recovery.as_deref())
                .map_or(Ok(AutoRecovery::Default), AutoRecovery::parse)?,
            avoids_reservations: reservation_preference(input) == Some("none"),
            names: super::names::at_launch(input, subnet)?,
            tags: self.tags.of(Kind::Instance),
        };
        tx.create(&instance);
        Ok(instance)
    }
}
