//! Calls of EC2 operations.

#[derive(Clone, Debug)]
pub struct Call {
    pub operation: &'static str,
    pub parameters: Vec<(String, String)>,
}

impl Call {
    pub fn new(operation: &'static str, parameters: Vec<(&str, &str)>) -> Call {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Call { operation, parameters: parameters.into_iter().map(owned).collect() }
    }

    pub fn value(&self, wanted: &str) -> Option<&str> {
        self.parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    /// What it wants to be no more.
    pub fn ended(&self) -> Option<&str> {
        self.value(match self.operation {
            "DeleteSecurityGroup" => "GroupId",
            "ReleaseHosts" => "HostId.1",
            "ReleaseAddress" => "AllocationId",
            "DeleteNetworkInterface" => "NetworkInterfaceId",
            "DeleteVpc" => "VpcId",
            "DeleteSubnet" => "SubnetId",
            "DeleteInternetGateway" => "InternetGatewayId",
            "DeleteEgressOnlyInternetGateway" => "EgressOnlyInternetGatewayId",
            // One that comes to be the main one goes with its VPC.
            "DeleteRouteTable" | "ReplaceRouteTableAssociation" => "RouteTableId",
            "DeleteNetworkAcl" => "NetworkAclId",
            "DeleteNetworkInterfacePermission" => "NetworkInterfacePermissionId",
            "DeleteNatGateway" => "NatGatewayId",
            "DeleteVpcEndpoints" => "VpcEndpointId.1",
            "DeleteDhcpOptions" => "DhcpOptionsId",
            _ => return None,
        })
    }

    /// Where its answer names what it has made.
    pub fn made(&self) -> Option<&'static str> {
        Some(match self.operation {
            "RunInstances" => "instanceId",
            "CreateVolume" => "volumeId",
            "CreateSnapshot" | "CreateSnapshots" | "CopySnapshot" => "snapshotId",
            "CreateSecurityGroup" => "groupId",
            "AllocateHosts" => "item",
            "AllocateAddress" => "allocationId",
            "CreateNetworkInterface" => "networkInterfaceId",
            "CreateVpc" | "CreateDefaultVpc" => "vpcId",
            "CreateSubnet" => "subnetId",
            "CreateInternetGateway" => "internetGatewayId",
            "CreateEgressOnlyInternetGateway" => "egressOnlyInternetGatewayId",
            "CreateRouteTable" => "routeTableId",
            "CreateNetworkAcl" => "networkAclId",
            "CreateNatGateway" => "natGatewayId",
            "CreateVpcEndpoint" => "vpcEndpointId",
            "CreateDhcpOptions" => "dhcpOptionsId",
            _ => return None,
        })
    }
}
