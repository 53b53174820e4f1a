//! CreateTags, DeleteTags, DescribeTags: over every kind of resource that has tags.

use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::filter::{self, Filter, Pattern};
use crate::engine::table::{Record, Table};
use crate::engine::view::Has;
use crate::engine::{Tables, Tags, Tx};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

/// Most resources in one call (EC2 API Reference, CreateTags).
const RESOURCES_MAX: usize = 1000;

/// A record whose tags can be changed.
pub trait Taggable: Record + Clone {
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
        fn collect(tables: &Tables, wanted: Option<&[String]>) -> Vec<Found> {
            let mut found = Vec::new();
            $(collect_table(&tables.$table, wanted, &mut found);)+
            found.sort();
            found
        }
    };
}

taggable! {
    Instance: crate::instance::Instance as instances,
    Volume: crate::volume::Volume as volumes,
    Snapshot: crate::snapshot::Snapshot as snapshots,
    Image: crate::image::Image as images,
    KeyPair: crate::key_pair::KeyPair as key_pairs,
    Vpc: crate::vpc::Vpc as vpcs,
    Subnet: crate::subnet::Subnet as subnets,
    SecurityGroup: crate::security_group::SecurityGroup as security_groups,
    NetworkInterface: crate::network_interface::NetworkInterface as network_interfaces,
    RouteTable: crate::route_table::RouteTable as route_tables,
    InternetGateway: crate::internet_gateway::InternetGateway as internet_gateways,
    NetworkAcl: crate::network_acl::NetworkAcl as network_acls,
    DhcpOptions: crate::dhcp_options::DhcpOptions as dhcp_options,
    PlacementGroup: crate::placement_group::PlacementGroup as placement_groups,
}

/// One tag of one resource; ordered as they are listed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    resource_id: String,
    key: String,
    value: String,
    resource_type: &'static str,
}

fn change_record<T: Taggable>(tx: &mut Tx<'_>, id: &str, change: &dyn Fn(&mut Tags) -> Result<()>) -> Result<()>
where
    Tables: Has<T>,
{
    let before = tx.get::<T>(id).ok_or_else(|| Id::not_found(T::KIND, id))?;
    let mut record = (*before).clone();
    change(record.tags_mut())?;
    tx.put(&record);
    Ok(())
}

fn collect_table<T: Taggable>(table: &Table<T>, wanted: Option<&[String]>, found: &mut Vec<Found>) {
    let mut add = |record: &T| {
        for (key, value) in record.tags().into_iter().flat_map(Tags::iter) {
            found.push(Found {
                resource_id: record.id().to_owned(),
                key: key.to_owned(),
                value: value.to_owned(),
                resource_type: T::KIND.resource_type(),
            });
        }
    };
    match wanted {
        Some(ids) => ids.iter().filter_map(|id| table.find(id)).for_each(|record| add(record)),
        None => table.iter().for_each(|record| add(record)),
    }
}

async fn change_all(context: &Context, ids: &[String], change: impl Fn(&mut Tags) -> Result<()>) -> Result<()> {
    if ids.len() > RESOURCES_MAX {
        return Err(Error::invalid_parameter_value(format!("At most {RESOURCES_MAX} resources can be tagged in one request")));
    }
    let mut named: Vec<(&String, Kind)> = Vec::with_capacity(ids.len());
    for id in ids {
        let kind = Id::kind_of(id).ok_or_else(|| Error::new("InvalidID", format!("The ID '{id}' is not valid")))?;
        named.push((id, kind));
    }
    named.sort();
    named.dedup();
    context.transact(|tx| named.iter().try_for_each(|(id, kind)| change_one(tx, *kind, id, &change))).await
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

pub async fn describe_tags(context: &Context, input: ec2::DescribeTagsRequest) -> Result<ec2::DescribeTagsResult> {
    let filters = filter::parse(&input.filters)?;
    let tables = context.tables();
    let mut passed = Vec::new();
    for found in collect(&tables, named_resources(&filters).as_deref()) {
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
fn named_resources(filters: &[Filter]) -> Option<Vec<String>> {
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
