//! What interfaces let through for everybody, as rules that hold said: remembered in a file, since flows that they let
//! begin outlive the daemon, and what ends them is that their rule is gone (`untracked`).
//!
//! The file is never waited for to be on the disk: where the kernel goes down, the flows go too.

use datapath::{Peer, Plan, Rule};
use model::Id;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const FILE: &str = "open.json";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    /// The groups of each.
    interfaces: BTreeMap<Id, Vec<Id>>,
    /// The rules of each group that are for everybody: ingress and egress.
    groups: BTreeMap<Id, [Vec<Rule>; 2]>,
}

impl Open {
    pub(super) fn of(plan: &Plan) -> Open {
        let for_everybody =
            |rules: &[Rule]| rules.iter().filter(|rule| is_for_everybody(rule)).cloned().collect();
        let interfaces = plan.interfaces.iter().map(|nic| (nic.interface_id.clone(), nic.groups.clone()));
        let groups = plan.groups.iter().map(|group| {
            (group.group_id.clone(), [for_everybody(&group.ingress), for_everybody(&group.egress)])
        });
        Open { interfaces: interfaces.collect(), groups: groups.collect() }
    }

    /// What either lets through.
    pub(super) fn with(mut self, other: Open) -> Open {
        for (interface_id, groups) in other.interfaces {
            let all = self.interfaces.entry(interface_id).or_default();
            add(all, groups);
        }
        for (group_id, rules) in other.groups {
            let all = self.groups.entry(group_id).or_default();
            all.iter_mut().zip(rules).for_each(|(all, rules)| add(all, rules));
        }
        self
    }

    /// What an interface let through: ingress and egress. Nothing where it was not there.
    pub(super) fn rules(&self, interface_id: &Id) -> [Vec<&Rule>; 2] {
        let groups = self.interfaces.get(interface_id).into_iter().flatten();
        let groups: Vec<_> = groups.filter_map(|group| self.groups.get(group)).collect();
        [0, 1].map(|way| groups.iter().flat_map(|rules| &rules[way]).collect())
    }

    /// What an earlier daemon remembered; nothing where there was none.
    pub(super) async fn recall(directory: &Path) -> Open {
        let read = tokio::fs::read(directory.join(FILE)).await;
        let known = read.and_then(|json| Ok(serde_json::from_slice(&json)?));
        known.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "what was open to everybody is not known");
            }
            Open::default()
        })
    }

    pub(super) async fn remember(&self, directory: &Path) -> io::Result<()> {
        tokio::fs::create_dir_all(directory).await?;
        let new = directory.join(format!("{FILE}.new"));
        tokio::fs::write(&new, serde_json::to_vec(self)?).await?;
        tokio::fs::rename(&new, directory.join(FILE)).await
    }

    pub(super) async fn forget(directory: &Path) -> io::Result<()> {
        match tokio::fs::remove_file(directory.join(FILE)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn add<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

fn is_for_everybody(rule: &Rule) -> bool {
    matches!(rule.peer, Peer::Cidr(net) if net.prefix_len() == 0)
}
