//! The services that gateway endpoints lead to, and DescribeVpcEndpointServices.

use super::GATEWAY;
use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::filter;
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{Error, Id, Kind, Region, Result};
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;

pub struct Service {
    /// As in `s3.us-east-1.amazonaws.com`.
    name: &'static str,
    /// Where endpoints find it: its prefix list.
    pub range: Ipv4Net,
}

/// The ranges are of 192.0.0.0/24, IETF protocol assignments: never routed on the internet (RFC 6890), and what is
/// assigned in it is elsewhere (.0 to .10, .170, .171), so that no list takes anybody's addresses away. Link-local
/// addresses would not do: many guests take all of 169.254.0.0/16 for their own link, and ask no router for it.
pub const SERVICES: [&Service; 2] = [
    &Service { name: "dynamodb", range: Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 80), 28) },
    &Service { name: "s3", range: Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 64), 28) },
];

pub const ADDRESS_TYPE: &str = "ipv4";

impl Service {
    pub fn full_name(&self, region: &Region) -> String {
        format!("com.amazonaws.{region}.{}", self.name)
    }

    /// The same in every cloud, as AWS's are the same for every account.
    pub fn prefix_list_id(&self, region: &Region) -> Id {
        let digest: [u8; 32] = Sha256::digest(self.full_name(region)).into();
        let mut bytes = [0; 9];
        bytes.copy_from_slice(&digest[..9]);
        Id::of_bytes(Kind::PrefixList, bytes)
    }

    fn service_id(&self, region: &Region) -> String {
        format!("vpce-svc-{}", self.prefix_list_id(region).trim_start_matches("pl-"))
    }
}

pub fn named(region: &Region, name: &str) -> Result<&'static Service> {
    let found = SERVICES.into_iter().find(|service| service.full_name(region) == name);
    found.ok_or_else(|| {
        Error::new("InvalidServiceName", format!("The Vpc Endpoint Service '{name}' does not exist"))
    })
}

pub async fn describe_vpc_endpoint_services(
    context: &Context,
    input: ec2::DescribeVpcEndpointServicesRequest,
) -> Result<ec2::DescribeVpcEndpointServicesResult> {
    let region = &context.region.view.region;
    let filters = filter::parse(&input.filters)?;
    for name in &input.service_names {
        named(region, name)?;
    }
    let here =
        input.service_regions.is_empty() || input.service_regions.iter().any(|of| of == region.as_str());
    let mut passed: Vec<&Service> = Vec::new();
    for service in SERVICES {
        let name = service.full_name(region);
        let asked = input.service_names.is_empty() || input.service_names.contains(&name);
        let passes = filter::passes(&filters, |field, values| match field {
            "owner" => filter::one(values, OWNER),
            "service-name" => filter::one(values, name.clone()),
            "service-region" => filter::one(values, region.to_string()),
            "service-type" => filter::one(values, GATEWAY),
            "supported-ip-address-types" => filter::one(values, ADDRESS_TYPE),
            // They have no tags.
            "tag-key" => true,
            other => other.starts_with("tag:"),
        })?;
        if here && asked && passes {
            passed.push(service);
        }
    }
    let (page, next_token) = page_of(
        &passed,
        |service| service.name.to_owned(),
        &input.filters,
        input.max_results,
        input.next_token.as_deref(),
    )?;
    Ok(ec2::DescribeVpcEndpointServicesResult {
        service_names: page.iter().map(|service| service.full_name(region)).collect(),
        service_details: page.iter().map(|service| to_api(context, service)).collect(),
        next_token,
    })
}

const OWNER: &str = "amazon";

fn to_api(context: &Context, service: &Service) -> ec2::ServiceDetail {
    let region = &context.region.view.region;
    ec2::ServiceDetail {
        service_name: Some(service.full_name(region)),
        service_id: Some(service.service_id(region)),
        service_type: vec![ec2::ServiceTypeDetail { service_type: Some(GATEWAY.into()) }],
        service_region: Some(region.to_string()),
        availability_zones: context.region.zones.iter().map(|zone| zone.name.clone()).collect(),
        availability_zone_ids: context.region.zones.iter().map(|zone| zone.id.clone()).collect(),
        owner: Some(OWNER.into()),
        base_endpoint_dns_names: vec![format!("{}.{region}.amazonaws.com", service.name)],
        vpc_endpoint_policy_supported: Some(true),
        acceptance_required: Some(false),
        manages_vpc_endpoints: Some(false),
        supported_ip_address_types: vec![ADDRESS_TYPE.into()],
        ..Default::default()
    }
}
