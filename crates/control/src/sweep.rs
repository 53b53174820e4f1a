//! What ends after a while: launches that no host brings about, uploads that rest, terminated instances (and what is told
//! of their root volumes), released Dedicated Hosts, deleted NAT gateways and exclusions, and peering connections that are
//! over after an hour, client tokens after a day, reports of how images are used after a month.

use crate::Control;
use crate::dedicated_host::DedicatedHost;
use crate::ebs_direct;
use crate::engine::Record;
use crate::engine::token::ClientToken;
use crate::engine::transaction;
use crate::image::usage_report::{self, ImageUsageReport};
use crate::instance::{Instance, lifecycle};
use crate::nat_gateway::NatGateway;
use crate::region::RegionState;
use crate::replace_root_volume_task::ReplaceRootVolumeTask;
use crate::snapshot::SnapshotState;
use crate::vpc_block_public_access::VpcBlockPublicAccessExclusion;
use crate::vpc_peering_connection::VpcPeeringConnection;
use model::{InstanceState, Timestamp};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(60);
/// How long a host may take to start an instance, or be away meanwhile.
const START_FOR: Duration = Duration::from_secs(15 * 60);
/// How long a terminated instance stays visible (EC2 User Guide: "a short while, usually less than an hour").
const TERMINATED_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a released Dedicated Host stays visible, and counts towards the quota.
const RELEASED_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a deleted NAT gateway stays visible (EC2 API Reference, DescribeNatGateways: "about an hour").
const DELETED_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a peering connection stays visible that is over (VPC Peering Guide: "for a period of time").
const PEERED_FOR: Duration = Duration::from_secs(60 * 60);
/// How long an exclusion stays visible that is deleted.
const EXCLUDED_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a client token is good for.
const TOKEN_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Most rows in one transaction.
const BATCH: usize = 256;

pub(crate) fn start(control: &Arc<Control>, region: &Arc<RegionState>) {
    let (control, region) = (Arc::downgrade(control), Arc::downgrade(region));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            let Some((control, region)) = alive(&control, &region) else { return };
            if let Err(error) = sweep(&control, &region).await {
                tracing::warn!(%error, "sweeping what is over");
            }
        }
    });
}

fn alive(control: &Weak<Control>, region: &Weak<RegionState>) -> Option<(Arc<Control>, Arc<RegionState>)> {
    Some((control.upgrade()?, region.upgrade()?))
}

pub(crate) async fn sweep(control: &Control, region: &RegionState) -> model::Result<()> {
    let now = control.environment.clock.now();
    let started_by = now.saturating_sub(START_FOR).unwrap_or(Timestamp::MIN);
    let pending: Vec<String> = {
        let tables = region.view.read();
        let pending = tables.instances.with("instance-state-name", InstanceState::Pending.name());
        let overdue = pending.filter(|instance| instance.launched_at <= started_by);
        overdue.map(|instance| instance.instance_id.to_string()).take(BATCH).collect()
    };
    let uploads: Vec<String> = {
        let tables = region.view.read();
        let pending = tables.snapshots.with("status", SnapshotState::Pending.name());
        over(pending, |snapshot| snapshot.upload.is_some_and(|upload| upload.is_overdue(now)))
    };
    transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
        pending.iter().for_each(|id| lifecycle::overdue(tx, id, started_by));
        uploads.iter().for_each(|id| ebs_direct::overdue(tx, id));
        Ok(())
    })
    .await?;
    while sweep_some(control, region).await? {}
    Ok(())
}

/// Deletes a batch of each kind that is over; false where nothing is.
async fn sweep_some(control: &Control, region: &RegionState) -> model::Result<bool> {
    let now = control.environment.clock.now();
    let past = |at: Option<Timestamp>, age: Duration| {
        at.is_some_and(|at| now.duration_since(at).unsigned_abs() > age && now > at)
    };
    let (instances, tasks, hosts, tokens, nats, peerings, exclusions, reports) = {
        let tables = region.view.read();
        let terminated = tables.instances.with("instance-state-name", InstanceState::Terminated.name());
        (
            over(terminated, |instance| past(instance.terminated_at, TERMINATED_FOR)),
            over(tables.replace_root_volume_tasks.iter(), |task| {
                !tables.instances.contains(&task.instance_id)
            }),
            over(tables.dedicated_hosts.iter(), |host| past(host.released_at, RELEASED_FOR)),
            over(tables.client_tokens.iter(), |token| past(Some(token.at), TOKEN_FOR)),
            over(tables.nat_gateways.iter(), |gateway| past(gateway.deleted_at, DELETED_FOR)),
            over(tables.vpc_peering_connections.iter(), |one| past(one.over_since(now), PEERED_FOR)),
            over(tables.vpc_block_public_access_exclusions.iter(), |one| past(one.deleted_at, EXCLUDED_FOR)),
            over(tables.image_usage_reports.iter(), |one| past(Some(one.created_at), usage_report::KEPT_FOR)),
        )
    };
    if [&instances, &tasks, &hosts, &tokens, &nats, &peerings, &exclusions, &reports]
        .iter()
        .all(|ids| ids.is_empty())
    {
        return Ok(false);
    }
    transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
        instances.iter().for_each(|id| tx.delete::<Instance>(id));
        tasks.iter().for_each(|id| tx.delete::<ReplaceRootVolumeTask>(id));
        hosts.iter().for_each(|id| tx.delete::<DedicatedHost>(id));
        tokens.iter().for_each(|id| tx.delete::<ClientToken>(id));
        nats.iter().for_each(|id| tx.delete::<NatGateway>(id));
        peerings.iter().for_each(|id| tx.delete::<VpcPeeringConnection>(id));
        exclusions.iter().for_each(|id| tx.delete::<VpcBlockPublicAccessExclusion>(id));
        reports.iter().for_each(|id| tx.delete::<ImageUsageReport>(id));
        Ok(())
    })
    .await?;
    Ok(true)
}

/// Ids of the records that are over.
fn over<'t, T: Record>(
    records: impl Iterator<Item = &'t Arc<T>>,
    is_over: impl Fn(&T) -> bool,
) -> Vec<String> {
    records.filter(|record| is_over(record)).map(|record| record.id().to_owned()).take(BATCH).collect()
}
