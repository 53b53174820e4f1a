//! DescribeHosts.

use super::{DedicatedHost, on_or_off};
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::{Tables, filter};
use crate::instance_type;
use crate::placement::Load;
use crate::region::HostLink;
use aws_api::ec2;
use model::{Error, Kind, Result};

/// Largest page (EC2 API Reference, DescribeHosts).
const PAGE_MAX: i32 = 500;

pub async fn describe_hosts(
    context: &Context,
    input: ec2::DescribeHostsRequest,
) -> Result<ec2::DescribeHostsResult> {
    if let Some(wanted) = input.max_results.filter(|wanted| *wanted > PAGE_MAX) {
        return Err(Error::invalid_parameter_value(format!(
            "Value ( {wanted} ) for parameter maxResults is invalid. Expecting a value less than or equal to {PAGE_MAX}."
        )));
    }
    let tables = context.tables();
    let query = Query {
        ids: &input.host_ids,
        filters: &input.filter,
        max_results: Some(input.max_results.unwrap_or(PAGE_MAX)).filter(|_| input.host_ids.is_empty()),
        next_token: input.next_token.as_deref(),
        ids_name: "hostIdSet",
    };
    let page = describe::select(
        &tables.dedicated_hosts,
        Kind::Host,
        &query,
        |_| true,
        |host, name, values| name == "state" && filter::one(values, host.state(&context.region)),
    )?;
    Ok(ec2::DescribeHostsResult {
        hosts: page.records.iter().map(|host| to_api(context, &tables, host)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(context: &Context, tables: &Tables, host: &DedicatedHost) -> ec2::Host {
    let flag = |value| Some(on_or_off(value).to_owned());
    let machine = context.region.host(&host.machine_id);
    let here = machine.filter(|_| !host.is_released());
    ec2::Host {
        host_id: Some(host.host_id.to_string()),
        owner_id: Some(host.owner.to_string()),
        state: Some(host.state(&context.region).to_owned()),
        availability_zone: Some(host.zone.clone()),
        availability_zone_id: Some(host.zone_id.clone()),
        auto_placement: flag(host.auto_placement),
        host_recovery: flag(host.host_recovery),
        host_maintenance: flag(host.host_maintenance),
        allows_multiple_instance_types: flag(host.instance_type.is_none()),
        client_token: host.client_token.clone(),
        allocation_time: Some(host.allocated_at),
        release_time: host.released_at,
        host_properties: Some(ec2::HostProperties {
            cores: machine.map(|link| link.description.cores as i32),
            sockets: machine.map(|_| 1),
            total_v_cpus: machine.map(|link| link.capacity().vcpus as i32),
            instance_type: host.instance_type.clone(),
            instance_family: host.instance_type.is_none().then(|| host.instance_family.clone()),
        }),
        available_capacity: here.map(|link| available(tables, host, link)),
        instances: here.map(|link| instances(tables, link)).unwrap_or_default(),
        member_of_service_linked_resource_group: Some(false),
        tags: host.tags.to_api(),
        ..Default::default()
    }
}

fn instances(tables: &Tables, link: &HostLink) -> Vec<ec2::HostInstance> {
    let on = tables.loads.instances_on(&link.description.host_id).filter_map(|id| tables.instances.find(id));
    on.map(|instance| ec2::HostInstance {
        instance_id: Some(instance.instance_id.to_string()),
        instance_type: Some(instance.instance_type.to_string()),
        owner_id: Some(instance.owner.to_string()),
    })
    .collect()
}

/// What else fits: of each size that the host takes, as if the rest were for it alone.
fn available(tables: &Tables, host: &DedicatedHost, link: &HostLink) -> ec2::AvailableCapacity {
    let capacity = link.capacity();
    let mut free = capacity;
    free -= tables.loads.of(&link.description.host_id);
    let shapes = instance_type::on_dedicated_hosts(&host.instance_family);
    let wanted =
        shapes.into_iter().filter(|(name, _)| host.instance_type.as_ref().is_none_or(|only| only == name));
    ec2::AvailableCapacity {
        available_v_cpus: Some(free.vcpus as i32),
        available_instance_capacity: wanted
            .map(|(name, shape)| ec2::InstanceCapacity {
                instance_type: Some(name),
                available_capacity: Some(times(free, shape.load())),
                total_capacity: Some(times(capacity, shape.load())),
            })
            .filter(|size| size.total_capacity != Some(0))
            .collect(),
    }
}

fn times(room: Load, one: Load) -> i32 {
    let times = (room.vcpus / one.vcpus.max(1)).min(room.memory_mib / one.memory_mib.max(1));
    i32::try_from(times).unwrap_or(i32::MAX)
}
