//! What the cloud's operator sees behind the API: hosts, why an instance is where it is, what is under way, and what
//! happened lately; and backups.

use crate::Context;
use crate::engine::Tables;
use crate::engine::table::{Record, Table};
use crate::event::Event;
use crate::instance::run::place;
use crate::instance::{Instance, architecture_name};
use crate::placement::{self, Load};
use crate::region::HostLink;
use crate::workflow::Workflow;
use aws_api::cumulet;
use model::{Error, Id, Kind, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PAGE: i32 = 100;

/// A page of a table, in the order of the ids, and the token of the next one.
pub fn page<'t, T: Record>(
    table: &'t Table<T>,
    max_results: Option<i32>,
    next_token: Option<&str>,
) -> (Vec<&'t Arc<T>>, Option<String>) {
    let limit = max_results.unwrap_or(PAGE) as usize;
    let mut rows: Vec<_> = table.after(next_token.unwrap_or_default()).take(limit + 1).collect();
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_token = rows.last().filter(|_| more).map(|last| last.id().to_owned());
    (rows, next_token)
}

fn room(load: Load) -> cumulet::Room {
    cumulet::Room { vcpus: Some(load.vcpus as i64), memory_mi_b: Some(load.memory_mib as i64) }
}

pub async fn list_hosts(
    context: &Context,
    input: cumulet::ListHostsRequest,
) -> Result<cumulet::ListHostsResponse> {
    let after = input.next_token.as_deref().unwrap_or_default();
    let mut links: Vec<&HostLink> =
        context.region.hosts.iter().filter(|link| link.description.host_id.as_str() > after).collect();
    links.sort_by_key(|link| &link.description.host_id);
    let limit = input.max_results.unwrap_or(PAGE) as usize;
    let more = links.len() > limit;
    links.truncate(limit);
    let next_token = links.last().filter(|_| more).map(|last| last.description.host_id.clone());
    let tables = context.tables();
    let allocated = place::allocated(&tables);
    let host = |link: &HostLink| cumulet::Host {
        dedicated_host_id: allocated
            .get(link.description.host_id.as_str())
            .map(|host| host.host_id.to_string()),
        ..host(context, &tables, link)
    };
    Ok(cumulet::ListHostsResponse { hosts: links.into_iter().map(host).collect(), next_token })
}

fn host(context: &Context, tables: &Tables, link: &HostLink) -> cumulet::Host {
    let described = &link.description;
    let instances = tables.loads.instances_on(&described.host_id).filter_map(|id| tables.instances.find(id));
    cumulet::Host {
        host_id: Some(described.host_id.clone()),
        availability_zone: context.region.zone_of(described).map(|zone| zone.name.clone()),
        rack: Some(described.rack.clone()),
        architecture: Some(architecture_name(described.architecture).to_owned()),
        acceleration: Some(described.acceleration.clone()),
        state: Some(if link.is_heard() { "here" } else { "away" }.to_owned()),
        cores: Some(described.cores as i32),
        disk_gi_b: Some(described.disk_gib as i64),
        capacity: Some(room(link.capacity())),
        taken: Some(room(tables.loads.of(&described.host_id))),
        instances: instances.map(|instance| hosted(instance)).collect(),
        dedicated_host_id: None,
    }
}

fn hosted(instance: &Instance) -> cumulet::HostedInstance {
    cumulet::HostedInstance {
        instance_id: Some(instance.instance_id.to_string()),
        instance_type: Some(instance.instance_type.to_string()),
        state: Some(instance.state.name().to_owned()),
        placement_group: instance.placement.group_name().map(Into::into),
        partition_number: instance.placement.partition_number().map(|partition| partition as i32),
    }
}

/// What speaks for and against each host if the instance were placed now.
pub async fn explain_placement(
    context: &Context,
    input: cumulet::ExplainPlacementRequest,
) -> Result<cumulet::ExplainPlacementResponse> {
    let id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let tables = context.tables();
    let instance = tables.instances.find(&id).filter(|instance| !instance.is_terminated());
    let instance = instance.ok_or_else(|| {
        let error = Id::not_found(Kind::Instance, &id);
        Error::new("ResourceNotFoundException", error.message).with_status(404)
    })?;
    let wanted = instance.load();
    let hosts = place::candidates(&context.region, &tables, &[], Some(instance));
    let zones = [instance.placement.zone.to_string()];
    let group = instance.placement.group_name().and_then(|name| {
        let group = tables.placement_groups.with("group-name", name).next()?;
        Some(place::rules(&tables, &[], group, instance.placement.partition_number(), Some(instance)))
    });
    let request = placement::Request {
        instance_type: &instance.instance_type,
        architecture: instance.architecture,
        wanted,
        zones: &zones,
        // Of a real host it could not go away.
        bound_to: (!context.options.simulate).then_some(instance.placement.host_id.as_str()),
        tenancy: instance.placement.tenancy,
        dedicated_host_id: instance.placement.named_host(),
        group,
    };
    let refusals = placement::judge(&hosts, &request);
    // Where it is it may be by its Dedicated Host's name, which it need not go back to.
    let named = placement::Request {
        dedicated_host_id: instance.placement.dedicated_host_id.as_deref(),
        ..request.clone()
    };
    let at_home = placement::judge(&hosts, &named);
    let candidate = |(host, (away, home)): (&placement::Candidate<'_>, _)| {
        let refusal: Option<placement::Refusal> =
            if host.host_id == instance.placement.host_id { home } else { away };
        let mut free = host.capacity;
        free -= host.load;
        cumulet::Candidate {
            host_id: Some(host.host_id.to_owned()),
            availability_zone: Some(host.zone.to_owned()),
            rack: Some(host.rack.to_owned()),
            free: Some(room(free)),
            refusal: refusal.map(|refusal| refusal.reason().to_owned()),
        }
    };
    Ok(cumulet::ExplainPlacementResponse {
        instance_id: Some(id.to_string()),
        host_id: Some(instance.placement.host_id.to_string()),
        wanted: Some(room(wanted)),
        candidates: hosts.iter().zip(refusals.into_iter().zip(at_home)).map(candidate).collect(),
    })
}

/// What is under way in steps.
pub async fn list_workflows(
    context: &Context,
    input: cumulet::ListWorkflowsRequest,
) -> Result<cumulet::ListWorkflowsResponse> {
    let tables = context.tables();
    let (rows, next_token) = page(&tables.workflows, input.max_results, input.next_token.as_deref());
    Ok(cumulet::ListWorkflowsResponse {
        next_token,
        workflows: rows.into_iter().map(|row| workflow(row)).collect(),
    })
}

fn workflow(row: &Workflow) -> cumulet::Workflow {
    let steps = row.work.steps();
    cumulet::Workflow {
        kind: Some(row.work.kind().to_owned()),
        subject: Some(steps.subject().to_owned()),
        step: Some(steps.step().to_owned()),
        begun_at: Some(row.begun_at),
        due_at: Some(row.due_at),
        deadline_at: Some(row.deadline_at),
        attempts: Some(row.attempts as i32),
        last_error: row.last_error.clone(),
        request_id: row.request_id.as_deref().map(str::to_owned),
    }
}

pub async fn list_events(
    context: &Context,
    input: cumulet::ListEventsRequest,
) -> Result<cumulet::ListEventsResponse> {
    let events = &context.region.events;
    let after = match input.newest {
        Some(newest) => events.before_newest(newest as u64),
        None => input.after.unwrap_or(0).max(0) as u64,
    };
    let limit = input.max_results.unwrap_or(PAGE) as usize;
    let patience = Duration::from_secs(input.patience_seconds.unwrap_or(0).max(0) as u64);
    let found = events.after(after, limit, patience).await;
    let event = |event: Event| cumulet::Event {
        number: Some(event.number as i64),
        at: Some(event.at),
        kind: Some(event.kind.to_owned()),
        id: Some(event.id),
        message: Some(event.message),
        request_id: event.request_id.map(Into::into),
    };
    Ok(cumulet::ListEventsResponse { events: found.into_iter().map(event).collect() })
}

/// Copies the cloud's records to a file on its own machine, where the caller must be too.
pub async fn create_backup(context: &Context, input: cumulet::CreateBackupRequest) -> Result<()> {
    if !context.caller.source_ip.is_loopback() {
        return Err(
            Error::new("AccessDenied", "A backup is made on the cloud's own machine.").with_status(403)
        );
    }
    let path = Path::new(input.path.as_deref().unwrap_or_default());
    let refuse = |why: &str| Err(Error::new("ValidationException", format!("{}: {why}", path.display())));
    if !path.is_absolute() {
        return refuse("the path must be absolute");
    }
    match path.try_exists() {
        Ok(false) => {}
        Ok(true) => return refuse("is there already"),
        Err(error) => return refuse(&error.to_string()),
    }
    context.store.backup(path).await.or_else(|error| refuse(&error.to_string()))
}
