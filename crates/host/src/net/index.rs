//! The plan, by id.

use datapath::{Elsewhere, Interface, Plan, SecurityGroup, Vpc};
use model::Id;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Index<'a> {
    pub vpcs: BTreeMap<&'a Id, &'a Vpc>,
    pub groups: BTreeMap<&'a Id, &'a SecurityGroup>,
    interfaces: BTreeMap<&'a Id, Vec<&'a Interface>>,
    elsewhere: BTreeMap<&'a Id, Vec<&'a Elsewhere>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let mut index = Index {
            vpcs: plan.vpcs.iter().map(|vpc| (&vpc.vpc_id, vpc)).collect(),
            groups: plan.groups.iter().map(|group| (&group.group_id, group)).collect(),
            ..Index::default()
        };
        for interface in &plan.interfaces {
            index.interfaces.entry(&interface.vpc_id).or_default().push(interface);
        }
        for elsewhere in &plan.elsewhere {
            index.elsewhere.entry(&elsewhere.interface.vpc_id).or_default().push(elsewhere);
        }
        index
    }

    /// The VPC's interfaces on this host.
    pub(super) fn interfaces(&self, vpc_id: &Id) -> &[&'a Interface] {
        self.interfaces.get(vpc_id).map_or(&[], Vec::as_slice)
    }

    /// And on others.
    pub(super) fn elsewhere(&self, vpc_id: &Id) -> &[&'a Elsewhere] {
        self.elsewhere.get(vpc_id).map_or(&[], Vec::as_slice)
    }
}
