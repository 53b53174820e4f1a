//! DescribeInstanceStatus: what the status checks of instances have found (EC2 User Guide, "Status checks for Amazon
//! EC2 instances").
//!
//! A host tells what has changed, and that is written; whether the host is heard from at all is known at the time of
//! the question.

use super::Instance;
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::filter;
use crate::engine::table::Values;
use crate::region::RegionState;
use agent_api::{Check, StatusChecks};
use aws_api::ec2;
use model::{Error, InstanceState, Kind, Result, Timestamp};

/// The filters of an instance's own that this operation has too.
const INSTANCE_FILTERS: [&str; 3] = ["availability-zone", "instance-state-code", "instance-state-name"];

pub async fn describe_instance_status(
    context: &Context,
    input: ec2::DescribeInstanceStatusRequest,
) -> Result<ec2::DescribeInstanceStatusResult> {
    // Only running instances are told of unless all are asked for.
    let all = input.include_all_instances.unwrap_or(false);
    let is_told = |instance: &Instance| all || instance.state == InstanceState::Running;
    let is_named = !input.instance_ids.is_empty();
    let tables = context.tables();
    let query = Query {
        ids: &input.instance_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "instancesSet",
    };
    for filter in filter::parse(&input.filters)? {
        let name = filter.name.as_str();
        if !INSTANCE_FILTERS.contains(&name) && !field(&context.region, None, name, &mut Vec::new()) {
            return Err(Error::invalid_parameter_value(format!("The filter '{name}' is invalid")));
        }
    }
    let mut page = describe::select(
        &tables.instances,
        Kind::Instance,
        &query,
        // One that is named is there, whether it is told of or not.
        |instance| is_named || is_told(instance),
        |instance, name, values| field(&context.region, Some(instance), name, values),
    )?;
    page.records.retain(|instance| is_told(instance));
    Ok(ec2::DescribeInstanceStatusResult {
        instance_statuses: page.records.iter().map(|instance| to_api(&context.region, instance)).collect(),
        next_token: page.next_token,
    })
}

/// The values of an instance under a filter's name; none of nobody. False where there is no such filter.
fn field<'t>(
    region: &RegionState,
    instance: Option<&'t Instance>,
    name: &str,
    values: &mut Values<'t>,
) -> bool {
    let statuses =
        || instance.map(|instance| Statuses::of(instance, region.hears(&instance.placement.host_id)));
    match name {
        "instance-status.status" => filter::some(values, statuses().map(|all| all.instance.name())),
        "instance-status.reachability" => {
            filter::some(values, statuses().map(|all| all.instance.reachability()))
        }
        "system-status.status" => filter::some(values, statuses().map(|all| all.system.name())),
        "system-status.reachability" => filter::some(values, statuses().map(|all| all.system.reachability())),
        "attached-ebs-status.status" => filter::some(values, statuses().map(|all| all.attached_ebs.name())),
        "operator.managed" => filter::one(values, "false"),
        "availability-zone-id" => {
            let zone = instance.and_then(|instance| region.zone_named(&instance.placement.zone));
            filter::some(values, zone.map(|zone| zone.id.clone()))
        }
        // Nothing is scheduled for an instance, and nobody else operates it.
        "event.code"
        | "event.description"
        | "event.instance-event-id"
        | "event.not-after"
        | "event.not-before"
        | "event.not-before-deadline"
        | "operator.principal" => true,
        _ => false,
    }
}

/// What is shown of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The instance does not run.
    NotApplicable,
    Initializing,
    Ok,
    Impaired {
        since: Timestamp,
    },
    /// Its host is not heard from.
    InsufficientData,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statuses {
    pub system: Status,
    pub instance: Status,
    pub attached_ebs: Status,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::NotApplicable => "not-applicable",
            Status::Initializing => "initializing",
            Status::Ok => "ok",
            Status::Impaired { .. } => "impaired",
            Status::InsufficientData => "insufficient-data",
        }
    }

    fn reachability(self) -> &'static str {
        match self {
            Status::Ok => "passed",
            Status::Impaired { .. } => "failed",
            other => other.name(),
        }
    }

    fn impaired_since(self) -> Option<Timestamp> {
        match self {
            Status::Impaired { since } => Some(since),
            _ => None,
        }
    }
}

impl Statuses {
    pub(crate) fn of(instance: &Instance, host_is_heard: bool) -> Statuses {
        let all = |status| Statuses { system: status, instance: status, attached_ebs: status };
        if instance.state != InstanceState::Running {
            return all(Status::NotApplicable);
        }
        if !host_is_heard {
            return all(Status::InsufficientData);
        }
        let status = |check| match check {
            Check::Initializing => Status::Initializing,
            Check::Passed => Status::Ok,
            Check::Failed { since } => Status::Impaired { since: since.timestamp() },
        };
        match instance.checks {
            Some((boot, found)) if boot == instance.boot => Statuses {
                system: status(found.system),
                instance: status(found.instance),
                attached_ebs: status(found.attached_ebs),
            },
            _ => all(Status::Initializing),
        }
    }

    fn named(&self) -> [(&'static str, Status); 3] {
        [("system", self.system), ("instance", self.instance), ("attached EBS", self.attached_ebs)]
    }

    /// What became of the checks of a running instance that failed or fail no more, for those who watch.
    pub(crate) fn told_after(&self, before: &Statuses) -> Option<String> {
        let is_impaired = |status: Status| matches!(status, Status::Impaired { .. });
        let now = self.named().into_iter().zip(before.named());
        let told: Vec<String> = now
            .filter(|((_, now), (_, before))| {
                is_impaired(*now) && !is_impaired(*before) || *now == Status::Ok && is_impaired(*before)
            })
            .map(|((name, now), _)| format!("{name} status {}", now.name()))
            .collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

/// What was found now; what failed before already, as a host that started anew may not know, has failed since then.
pub(super) fn since_before(
    before: Option<(u64, StatusChecks)>,
    boot: u64,
    found: StatusChecks,
) -> StatusChecks {
    let Some((_, before)) = before.filter(|(of, _)| *of == boot) else { return found };
    let merged = |before, found| match (before, found) {
        (Check::Failed { since }, Check::Failed { since: later }) => {
            Check::Failed { since: since.min(later) }
        }
        _ => found,
    };
    StatusChecks {
        system: merged(before.system, found.system),
        instance: merged(before.instance, found.instance),
        attached_ebs: merged(before.attached_ebs, found.attached_ebs),
    }
}

fn to_api(region: &RegionState, instance: &Instance) -> ec2::InstanceStatus {
    let statuses = Statuses::of(instance, region.hears(&instance.placement.host_id));
    let is_checked = instance.state == InstanceState::Running;
    let summary = |status: Status| ec2::InstanceStatusSummary {
        status: Some(status.name().into()),
        details: is_checked
            .then(|| ec2::InstanceStatusDetails {
                name: Some("reachability".into()),
                status: Some(status.reachability().into()),
                impaired_since: status.impaired_since(),
            })
            .into_iter()
            .collect(),
    };
    let ebs = statuses.attached_ebs;
    ec2::InstanceStatus {
        instance_id: Some(instance.instance_id.to_string()),
        availability_zone: Some(instance.placement.zone.to_string()),
        availability_zone_id: region.zone_named(&instance.placement.zone).map(|zone| zone.id.clone()),
        instance_state: Some(super::lifecycle::state_to_api(instance.state)),
        instance_status: Some(summary(statuses.instance)),
        system_status: Some(summary(statuses.system)),
        attached_ebs_status: Some(ec2::EbsStatusSummary {
            status: Some(ebs.name().into()),
            details: is_checked
                .then(|| ec2::EbsStatusDetails {
                    name: Some("reachability".into()),
                    status: Some(ebs.reachability().into()),
                    impaired_since: ebs.impaired_since(),
                })
                .into_iter()
                .collect(),
        }),
        operator: Some(ec2::OperatorResponse { managed: Some(false), ..Default::default() }),
        ..Default::default()
    }
}
