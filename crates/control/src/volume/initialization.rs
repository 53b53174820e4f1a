//! How much has come of what volumes are made of (EBS User Guide, "Monitor the status of Amazon EBS volume
//! initialization"). Their hosts know, and are asked.

use super::{Condition, Volume};
use crate::Context;
use crate::region::HostLink;
use agent_api::Unfilled;
use aws_api::ec2;
use futures::future::join_all;
use model::Id;
use std::collections::{BTreeMap, BTreeSet};

const MIB: u64 = 1 << 20;

/// What hosts say of the volumes that they have.
pub struct Initialization {
    unfilled: BTreeMap<Id, Unfilled>,
    /// Of these hosts nothing is known.
    silent: BTreeSet<String>,
}

impl Initialization {
    /// The hosts of these volumes, or all where none is named.
    pub async fn ask(context: &Context, volume_ids: &[String]) -> Initialization {
        let region = &context.region;
        let hosts: Vec<&HostLink> = match volume_ids {
            [] => region.hosts.iter().collect(),
            named => {
                let tables = context.tables();
                let host_of = |id: &String| tables.volumes.find(id)?.host_id.clone();
                let host_ids: BTreeSet<_> = named.iter().filter_map(host_of).collect();
                host_ids.iter().filter_map(|host_id| region.host(host_id)).collect()
            }
        };
        let asked = hosts.into_iter().map(|host| async {
            let said = host.agent.unfilled_volumes().await;
            said.map_err(|error| {
                let host_id = host.description.host_id.clone();
                tracing::warn!(
                    host_id,
                    error = &error as &dyn std::error::Error,
                    "unfilled volumes not told"
                );
                host_id
            })
        });
        let mut all = Initialization { unfilled: BTreeMap::new(), silent: BTreeSet::new() };
        for said in join_all(asked).await {
            match said {
                Ok(unfilled) => all.unfilled.extend(unfilled),
                Err(host_id) => drop(all.silent.insert(host_id)),
            }
        }
        all
    }

    /// None of one that was empty at first, or of which nothing is known.
    pub fn details(&self, volume: &Volume) -> Option<ec2::InitializationStatusDetails> {
        let is_silent = volume.host_id.as_deref().is_some_and(|host_id| self.silent.contains(host_id));
        if is_silent || (volume.snapshot_id.is_none() && volume.copied.is_none()) {
            return None;
        }
        let kind = match volume.initialization_rate {
            _ if volume.copied.is_some() => "volume-copy",
            Some(_) => "provisioned-rate",
            None => "default",
        };
        let unfilled = self.unfilled.get(&volume.volume_id);
        let is_made = !matches!(volume.condition, Condition::Creating | Condition::Failed);
        let progress = if is_made { unfilled.map_or(100, |unfilled| unfilled.percent_there()) } else { 0 };
        let seconds = |rate: i32| {
            let left = unfilled.map_or(0, |unfilled| unfilled.bytes_left);
            left.div_ceil(u64::from(rate.unsigned_abs().max(1)) * MIB) as i64
        };
        Some(ec2::InitializationStatusDetails {
            initialization_type: Some(kind.into()),
            progress: Some(progress.into()),
            estimated_time_to_complete_in_seconds: volume
                .initialization_rate
                .filter(|_| is_made)
                .map(seconds),
        })
    }

    /// As DescribeVolumeStatus says it among the details.
    pub fn state(&self, volume: &Volume) -> Option<&'static str> {
        let progress = self.details(volume)?.progress;
        Some(if progress == Some(100) { "completed" } else { "initializing" })
    }
}
