//! CreateTags, DeleteTags, DescribeTags: over every kind of resource that has tags.

use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::filter::{self, Filter, Pattern};
use crate::engine::table::{Record, Table};
use crate::engine::view::Has;
use crate::engine::{Tables, Tags, Tx};
use crate::security_group::rules::{find_rule, no_such_rule};
use crate::security_group::{SecurityGroup, SecurityGroupRule};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Most resources in one call (EC2 API Reference, CreateTags).
const RESOURCES_MAX: usize = 1000;

/// A record whose tags can be changed.
trait Taggable: Record + Clone {
    const KIND: Kind;
    fn tags_mut(&mut self) -> &mut Tags;
}

/// Names every taggable kind once; what is done with tags is done for all of them.
macro_rules! taggable {
    ($($kind:ident: $record:ty as $table:ident),+ $(,)?) => {
        $(impl Taggable for $record {
            const KIND: Kind = Kind::$kind;
            fn tags_mut(&mut self) -> &mut Tags {
                &mut self.tags
            }
        })+

        fn change_one(tx: &mut Tx<'_>, kind: Kind, id: &str, change: &dyn Fn(&mut Tags) -> Result<()>) -> Result<()> {
            match kind {
                $(Kind::$kind => change_record::<$record>(tx, id, change),)+
                _ => Err(Error::invalid_parameter_value(format!("The resource '{id}' cannot be tagged."))),
            }
        }

        /// All tags of the resources that `wanted` names, or of all.
        fn collect(tables: &Tables, wanted: Option<&BTreeSet<String>>) -> Vec<Found> {
            let mut found = Vec::new();
            $(collect_table(&tables.$table, wanted, &mut found);)+
            collect_rules(tables, wanted, &mut found);
            found.sort();
            found
        }
    };
}

taggable! {
    Instance: crate::instance::Instance as instances,
    Volume: crate::volume::Volume as volumes,
    Snapshot: crate::snapshot::Snapshot as snapshots,
    ReplaceRootVolumeTask: crate::replace_root_volume_task::ReplaceRootVolumeTask as replace_root_volume_tasks,
    Image: crate::image::Image as images,
    ImageUsageReport: crate::image::usage_report::ImageUsageReport as image_usage_reports,
    KeyPair: crate::key_pair::KeyPair as key_pairs,
    Vpc: crate::vpc::Vpc as vpcs,
    Subnet: crate::subnet::Subnet as subnets,
    SubnetCidrReservation: crate::subnet::reservation::SubnetCidrReservation as subnet_cidr_reservations,
    SecurityGroup: crate::security_group::SecurityGroup as security_groups,
    NetworkInterface: crate::network_interface::NetworkInterface as network_interfaces,
    NetworkInsightsPath: crate::network_insights::NetworkInsightsPath as network_insights_paths,
    NetworkInsightsAnalysis: crate::network_insights::NetworkInsightsAnalysis as network_insights_analyses,
    NetworkInsightsAccessScope: crate::network_insights::NetworkInsightsAccessScope
        as network_insights_access_scopes,
    NetworkInsightsAccessScopeAnalysis: crate::network_insights::NetworkInsightsAccessScopeAnalysis
        as network_insights_access_scope_analyses,
    RouteTable: crate::route_table::RouteTable as route_tables,
    EgressOnlyInternetGateway: crate::egress_only_internet_gateway::EgressOnlyInternetGateway
        as egress_only_internet_gateways,
    InternetGateway: crate::internet_gateway::InternetGateway as internet_gateways,
    VpcPeeringConnection: crate::vpc_peering_connection::VpcPeeringConnection as vpc_peering_connections,
    VpcBlockPublicAccessExclusion: crate::vpc_block_public_access::VpcBlockPublicAccessExclusion
        as vpc_block_public_access_exclusions,
    VpcEndpoint: crate::vpc_endpoint::VpcEndpoint as vpc_endpoints,
    PrefixList: crate::prefix_list::PrefixList as prefix_lists,
    NetworkAcl: crate::network_acl::NetworkAcl as network_acls,
    DhcpOptions: crate::dhcp_options::DhcpOptions as dhcp_options,
    PlacementGroup: crate::placement_group::PlacementGroup as placement_groups,
    ElasticIp: crate::address::Address as addresses,
    PublicIpv4Pool: crate::public_pool::PublicPool as public_pools,
    NatGateway: crate::nat_gateway::NatGateway as nat_gateways,
    Host: crate::dedicated_host::DedicatedHost as dedicated_hosts,
}

/// One tag of one resource; ordered as they are listed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    resource_id: String,
    key: String,
    value: String,
    resource_type: &'static str,
}

fn change_record<T: Taggable + PartialEq>(
    tx: &mut Tx<'_>,
    id: &str,
    change: &dyn Fn(&mut Tags) -> Result<()>,
) -> Result<()>
where
    Tables: Has<T>,
{
    let before = tx.get::<T>(id).ok_or_else(|| Id::not_found(T::KIND, id))?;
    let mut record = (*before).clone();
    change(record.tags_mut())?;
    // What is so already is not written again.
    if record != *before {
        tx.put(&record);
    }
    Ok(())
}

/// Rules are in the records of their groups: a group is written once, however many of its rules change, and with
/// its own change if it has one.
fn change_groups(tx: &mut Tx<'_>, ids: &[&str], change: &dyn Fn(&mut Tags) -> Result<()>) -> Result<()> {
    let mut groups: BTreeMap<Id, SecurityGroup> = BTreeMap::new();
    for id in ids {
        let group_id = match Id::kind_of(id) {
            Some(Kind::SecurityGroupRule) => {
                let (group, _) = find_rule(tx.tables(), id).ok_or_else(|| no_such_rule(id))?;
                group.group_id.clone()
            }
            _ => Id::parse(Kind::SecurityGroup, id)?,
        };
        let group = match groups.entry(group_id.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let group = tx.get::<SecurityGroup>(&group_id);
                let group = group.ok_or_else(|| Id::not_found(Kind::SecurityGroup, &group_id))?;
                entry.insert((*group).clone())
            }
        };
        match group.rules.iter_mut().find(|rule| *rule.rule_id == **id) {
            Some(rule) => change(&mut rule.tags)?,
            None => change(&mut group.tags)?,
        }
    }
    groups.values().for_each(|group| tx.put(group));
    Ok(())
}

fn found<'a>(kind: Kind, id: &'a str, tags: &'a Tags) -> impl Iterator<Item = Found> {
    tags.iter().map(move |(key, value)| Found {
        resource_id: id.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        resource_type: kind.resource_type(),
    })
}

fn collect_table<T: Taggable>(
    table: &Table<T>,
    wanted: Option<&BTreeSet<String>>,
    collected: &mut Vec<Found>,
) {
    let mut add = |record: &T| {
        collected.extend(record.tags().into_iter().flat_map(|tags| found(T::KIND, record.id(), tags)));
    };
    match wanted {
        Some(ids) => ids.iter().filter_map(|id| table.find(id)).for_each(|record| add(record)),
        None => table.iter().for_each(|record| add(record)),
    }
}

fn collect_rules(tables: &Tables, wanted: Option<&BTreeSet<String>>, collected: &mut Vec<Found>) {
    let mut add = |rule: &SecurityGroupRule| {
        collected.extend(found(Kind::SecurityGroupRule, &rule.rule_id, &rule.tags));
    };
    match wanted {
        Some(ids) => ids.iter().filter_map(|id| find_rule(tables, id)).for_each(|(_, rule)| add(rule)),
        None => tables.security_groups.iter().flat_map(|group| &group.rules).for_each(add),
    }
}

async fn change_all(
    context: &Context,
    ids: &[String],
    change: impl Fn(&mut Tags) -> Result<()>,
) -> Result<()> {
    if ids.len() > RESOURCES_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "At most {RESOURCES_MAX} resources can be tagged in one request"
        )));
    }
    let mut named: BTreeMap<&str, Kind> = BTreeMap::new();
    for id in ids {
        let kind =
            Id::kind_of(id).ok_or_else(|| Error::new("InvalidID", format!("The ID '{id}' is not valid")))?;
        named.insert(id, kind);
    }
    let in_groups = |kind: &Kind| matches!(kind, Kind::SecurityGroup | Kind::SecurityGroupRule);
    let groups: Vec<&str> = named.iter().filter(|(_, kind)| in_groups(kind)).map(|(id, _)| *id).collect();
    named.retain(|_, kind| !in_groups(kind));
    context
        .transact(|tx| {
            change_groups(tx, &groups, &change)?;
            named.iter().try_for_each(|(id, kind)| change_one(tx, *kind, id, &change))
        })
        .await
}

pub async fn create_tags(context: &Context, input: ec2::CreateTagsRequest) -> Result<()> {
    let tags = Tags::from_api(&input.tags)?;
    change_all(context, &input.resources, |have| have.set(&tags)).await
}

/// Without tags named, all of a resource's go.
pub async fn delete_tags(context: &Context, input: ec2::DeleteTagsRequest) -> Result<()> {
    change_all(context, &input.resources, |have| {
        if input.tags.is_empty() {
            have.clear();
        }
        for tag in &input.tags {
            have.unset(tag.key.as_deref().unwrap_or_default(), tag.value.as_deref());
        }
        Ok(())
    })
    .await
}

pub async fn describe_tags(
    context: &Context,
    input: ec2::DescribeTagsRequest,
) -> Result<ec2::DescribeTagsResult> {
    let filters = filter::parse(&input.filters)?;
    let tables = context.tables();
    let mut passed = Vec::new();
    for found in collect(&tables, named_resources(&filters).as_ref()) {
        let passes = filter::passes(&filters, |name, values| match name {
            "key" => filter::one(values, found.key.clone()),
            "value" => filter::one(values, found.value.clone()),
            "resource-id" => filter::one(values, found.resource_id.clone()),
            "resource-type" => filter::one(values, found.resource_type),
            _ => match name.strip_prefix("tag:") {
                Some(key) if key == found.key => filter::one(values, found.value.clone()),
                Some(_) => true,
                None => false,
            },
        })?;
        if passes {
            passed.push(found);
        }
    }
    let key = |found: &Found| format!("{}\0{}", found.resource_id, found.key);
    let (page, next_token) =
        page_of(&passed, key, &input.filters, input.max_results, input.next_token.as_deref())?;
    let to_api = |found: Found| ec2::TagDescription {
        key: Some(found.key),
        value: Some(found.value),
        resource_id: Some(found.resource_id),
        resource_type: Some(found.resource_type.into()),
    };
    Ok(ec2::DescribeTagsResult { tags: page.into_iter().map(to_api).collect(), next_token })
}

/// The resources that a filter names one by one, so that others need not be looked at.
fn named_resources(filters: &[Filter]) -> Option<BTreeSet<String>> {
    let filter = filters.iter().find(|filter| filter.name == "resource-id")?;
    filter
        .patterns
        .iter()
        .map(|pattern| match pattern {
            Pattern::Exact(id) => Some(id.clone()),
            Pattern::Wild(_) => None,
        })
        .collect()
}
