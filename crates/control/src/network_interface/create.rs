//! CreateNetworkInterface, DeleteNetworkInterface.

use super::{Asked, AskedIpv6, NetworkInterface, Purpose, describe, groups, tracking};
use crate::engine::tags::Specified;
use crate::engine::unsupported::refuse;
use crate::{Context, description, subnet};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn create_network_interface(
    context: &Context,
    input: ec2::CreateNetworkInterfaceRequest,
) -> Result<ec2::CreateNetworkInterfaceResult> {
    refuse([(input.operator.is_some(), "Operators of resources are")])?;
    let subnet_id = input.subnet_id.as_deref().ok_or_else(|| Error::missing_parameter("subnetId"))?;
    let text = input.description.as_deref().unwrap_or_default();
    description::check(text)?;
    let purpose = Purpose::asked(input.interface_type.as_deref())?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::NetworkInterface])?;
    let prefixes: Vec<_> = input.ipv4_prefixes.iter().map(|one| one.ipv4_prefix.as_deref()).collect();
    let asked = Asked::new(
        input.private_ip_address.as_deref(),
        &input.private_ip_addresses,
        input.secondary_private_ip_address_count,
        &prefixes,
        input.ipv4_prefix_count,
        AskedIpv6::new(
            &input.ipv6_addresses,
            input.ipv6_address_count,
            &input.ipv6_prefixes,
            input.ipv6_prefix_count,
            input.enable_primary_ipv6,
        )?,
    )?
    .of_purpose(purpose)?;
    let tracking = tracking::asked(Default::default(), input.connection_tracking_specification.as_ref())?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let subnet = subnet::depend(tx, subnet_id)?;
            let groups = groups::resolve(tx.tables(), &subnet.vpc_id, &input.groups, &[])?;
            groups::depend(tx, &groups)?;
            let interface = NetworkInterface {
                description: text.into(),
                purpose,
                security_groups: groups,
                tracking,
                tags: tags.of(Kind::NetworkInterface),
                ..NetworkInterface::new(tx, &subnet, &asked)?
            };
            tx.create(&interface);
            idempotent.remember(tx, vec![interface.interface_id.to_string()]);
            Ok(interface.interface_id.to_string())
        })
        .await?;
    let tables = context.tables();
    let made =
        tables.network_interfaces.find(&id).ok_or_else(|| Id::not_found(Kind::NetworkInterface, &id))?;
    // As EC2 says of one that it has just made.
    let shown =
        ec2::NetworkInterface { status: Some("pending".into()), ..describe::to_api(context, &tables, made) };
    Ok(ec2::CreateNetworkInterfaceResult { client_token: input.client_token, network_interface: Some(shown) })
}

pub async fn delete_network_interface(
    context: &Context,
    input: ec2::DeleteNetworkInterfaceRequest,
) -> Result<()> {
    let id = input.network_interface_id.as_deref().unwrap_or_default();
    context
        .transact(|tx| {
            let interface = super::own(tx, id)?;
            if interface.attachment.is_some() {
                return Err(Error::new(
                    "InvalidParameterValue",
                    format!("Network interface '{id}' is currently in use."),
                ));
            }
            interface.delete(tx);
            Ok(())
        })
        .await
}
