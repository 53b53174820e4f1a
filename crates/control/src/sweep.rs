//! What ends after a while: launches that no host brings about, terminated instances, released Dedicated Hosts,
//! deleted NAT gateways and peering connections that are over after an hour, client tokens after a day.

use crate::Control;
use crate::dedicated_host::DedicatedHost;
use crate::engine::token::ClientToken;
use crate::engine::transaction;
use crate::instance::{Instance, lifecycle};
use crate::nat_gateway::NatGateway;
use crate::region::RegionState;
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
    let older = |at: Timestamp, age: Duration| now.duration_since(at).unsigned_abs() > age && now > at;
    let started_by = now.saturating_sub(START_FOR).unwrap_or(Timestamp::MIN);
    let pending: Vec<String> = {
        let tables = region.view.read();
        let pending = tables.instances.with("instance-state-name", InstanceState::Pending.name());
        let overdue = pending.filter(|instance| instance.launched_at <= started_by);
        overdue.map(|instance| instance.instance_id.to_string()).take(BATCH).collect()
    };
    transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
        pending.iter().for_each(|id| lifecycle::overdue(tx, id, started_by));
        Ok(())
    })
    .await?;
    loop {
        let (instances, hosts, tokens, nats, peerings) = {
            let tables = region.view.read();
            let instances: Vec<String> = tables
                .instances
                .with("instance-state-name", InstanceState::Terminated.name())
                .filter(|instance| instance.terminated_at.is_some_and(|at| older(at, TERMINATED_FOR)))
                .map(|instance| instance.instance_id.to_string())
                .take(BATCH)
                .collect();
            let hosts: Vec<String> = tables
                .dedicated_hosts
                .iter()
                .filter(|host| host.released_at.is_some_and(|at| older(at, RELEASED_FOR)))
                .map(|host| host.host_id.to_string())
                .take(BATCH)
                .collect();
            let tokens: Vec<String> = tables
                .client_tokens
                .iter()
                .filter(|token| older(token.at, TOKEN_FOR))
                .map(|token| token.key.clone())
                .take(BATCH)
                .collect();
            let nats: Vec<String> = tables
                .nat_gateways
                .iter()
                .filter(|gateway| gateway.deleted_at.is_some_and(|at| older(at, DELETED_FOR)))
                .map(|gateway| gateway.nat_gateway_id.to_string())
                .take(BATCH)
                .collect();
            let peerings: Vec<String> = tables
                .vpc_peering_connections
                .iter()
                .filter(|peering| peering.over_since(now).is_some_and(|at| older(at, PEERED_FOR)))
                .map(|peering| peering.peering_id.to_string())
                .take(BATCH)
                .collect();
            (instances, hosts, tokens, nats, peerings)
        };
        if instances.is_empty()
            && hosts.is_empty()
            && tokens.is_empty()
            && nats.is_empty()
            && peerings.is_empty()
        {
            return Ok(());
        }
        transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
            instances.iter().for_each(|id| tx.delete::<Instance>(id));
            hosts.iter().for_each(|id| tx.delete::<DedicatedHost>(id));
            peerings.iter().for_each(|id| tx.delete::<VpcPeeringConnection>(id));
            nats.iter().for_each(|id| tx.delete::<NatGateway>(id));
            tokens.iter().for_each(|key| tx.delete::<ClientToken>(key));
            Ok(())
        })
        .await?;
    }
}
