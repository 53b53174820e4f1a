//! Trunk interfaces, whose branches reach an instance by a tag of their frames. There are none here: they are not among the
//! interfaces that can be made.

use crate::Context;
use crate::engine::describe;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub(super) fn unsupported() -> Error {
    Error::new("UnsupportedOperation", "Trunk interfaces are not supported by this cloud.")
}

fn not_found(id: &str) -> Error {
    Error::new("InvalidAssociationID.NotFound", format!("The association ID '{id}' does not exist"))
}

pub async fn associate_trunk_interface(
    context: &Context,
    input: ec2::AssociateTrunkInterfaceRequest,
) -> Result<ec2::AssociateTrunkInterfaceResult> {
    for id in [&input.trunk_interface_id, &input.branch_interface_id] {
        let id = Id::parse(Kind::NetworkInterface, id.as_deref().unwrap_or_default())?;
        let tables = context.tables();
        tables.network_interfaces.find(&id).ok_or_else(|| Id::not_found(Kind::NetworkInterface, &id))?;
    }
    Err(unsupported())
}

pub async fn disassociate_trunk_interface(
    _: &Context,
    input: ec2::DisassociateTrunkInterfaceRequest,
) -> Result<ec2::DisassociateTrunkInterfaceResult> {
    Err(not_found(input.association_id.as_deref().unwrap_or_default()))
}

pub async fn describe_trunk_interface_associations(
    _: &Context,
    input: ec2::DescribeTrunkInterfaceAssociationsRequest,
) -> Result<ec2::DescribeTrunkInterfaceAssociationsResult> {
    if let Some(id) = input.association_ids.first() {
        return Err(not_found(id));
    }
    let names = ["gre-key", "interface-protocol", "vlan-id"];
    describe::none(&names, &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeTrunkInterfaceAssociationsResult::default())
}
