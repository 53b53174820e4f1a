//! ModifyHosts.

use super::{DedicatedHost, Supported, change_each};
use crate::Context;
use crate::engine::Tables;
use aws_api::ec2;
use model::{Error, Result};

pub async fn modify_hosts(
    context: &Context,
    input: ec2::ModifyHostsRequest,
) -> Result<ec2::ModifyHostsResult> {
    let supported =
        Supported::check(context, input.instance_type.as_deref(), input.instance_family.as_deref())?;
    let flag = |value: &Option<String>| value.as_deref().map(|value| value == "on");
    let (auto_placement, recovery, maintenance) =
        (flag(&input.auto_placement), flag(&input.host_recovery), flag(&input.host_maintenance));
    if supported.is_none() && auto_placement.is_none() && recovery.is_none() && maintenance.is_none() {
        return Err(Error::invalid_parameter_combination("No attributes specified."));
    }
    let (successful, unsuccessful) = change_each(context, &input.host_ids, |tables, host, _| {
        if let Some(supported) = &supported {
            change_types(context, tables, host, supported)?;
        }
        host.auto_placement = auto_placement.unwrap_or(host.auto_placement);
        host.host_recovery = recovery.unwrap_or(host.host_recovery);
        host.host_maintenance = maintenance.unwrap_or(host.host_maintenance);
        Ok(())
    })
    .await?;
    Ok(ec2::ModifyHostsResult { successful, unsuccessful })
}

/// Within its family a host takes one type or all; what runs on it must stay among them.
fn change_types(
    context: &Context,
    tables: &Tables,
    host: &mut DedicatedHost,
    supported: &Supported,
) -> Result<()> {
    let refuse = |why: String| Err(Error::new("Client.InvalidHostConfiguration", why));
    if supported.instance_family != host.instance_family {
        return refuse(format!(
            "The Dedicated Host '{}' is of the instance family '{}', which cannot be changed.",
            host.host_id, host.instance_family
        ));
    }
    if let Some(only) = &supported.instance_type {
        let mut on = tables.loads.instances_on(&host.machine_id).filter_map(|id| tables.instances.find(id));
        let other = on.any(|instance| instance.instance_type != *only);
        if other || context.region.is_being_placed_on(&host.machine_id) {
            return refuse(format!(
                "The Dedicated Host '{}' has instances of other types than '{only}'.",
                host.host_id
            ));
        }
    }
    host.instance_type = supported.instance_type.clone();
    Ok(())
}
