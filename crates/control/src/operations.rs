//! The operations that this cloud offers, and how a request finds its handler.
//!
//! Adding one is a line here: decoding, DryRun, the client token, authorization and encoding come with it. The
//! handler is `async fn(&Context, Input) -> Result<Output>` in the file named after its resource.

use crate::context::{Caller, Context};
use crate::{Control, authorization};
use aws_api::{Operation, Request, Response, Service};
use futures::future::BoxFuture;
use model::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

type Handler = Box<dyn Fn(Context, Request) -> BoxFuture<'static, Result<Response>> + Send + Sync>;

struct Offered {
    name: &'static str,
    read_only: bool,
    handler: Handler,
}

/// The operations of each service, by name.
type Operations = HashMap<Service, BTreeMap<&'static str, Offered>>;

static OFFERED: LazyLock<Operations> = LazyLock::new(offered);

impl Control {
    /// Answers one authenticated request.
    pub async fn call(
        self: &Arc<Self>,
        caller: Caller,
        service: Service,
        operation: &str,
        request: Request,
    ) -> Result<Response> {
        let offered =
            OFFERED.get(&service).and_then(|operations| operations.get(operation)).ok_or_else(|| {
                let why = if aws_api::known_to_model(service, operation) {
                    "is not offered by this cloud"
                } else {
                    "is not valid for this web service"
                };
                Error::new("InvalidAction", format!("The action {operation} {why}."))
            })?;
        authorization::authorize(&caller, service, offered.name)?;
        let context = Context::new(self.clone(), caller, offered.name).await?;
        let now = self.environment.clock.now();
        context.region.throttle.take(context.account().as_str(), offered.name, offered.read_only, now)?;
        (offered.handler)(context, request).await
    }

    /// Names of all offered operations, for tests and documentation.
    pub fn offered() -> Vec<(Service, &'static str)> {
        let operations =
            Service::ALL.into_iter().filter_map(|service| Some((service, OFFERED.get(&service)?)));
        operations
            .flat_map(|(service, operations)| operations.keys().map(move |name| (service, *name)))
            .collect()
    }
}

/// Wraps a handler: decode, call, encode.
fn handle<O, F, Fut>(handler: F) -> Handler
where
    O: Operation + 'static,
    O::Input: Send + 'static,
    O::Output: Send + 'static,
    F: Fn(Context, O::Input) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<O::Output>> + Send + 'static,
{
    Box::new(move |mut context, request| {
        let handler = handler.clone();
        Box::pin(async move {
            let input = aws_api::decode::<O>(&request)?;
            context.dry_run = O::dry_run(&input);
            context.set_client_token(O::client_token(&input), O::SERVICE, &request)?;
            let (dry_run, request_id) = (context.dry_run, context.caller.request_id.clone());
            let output = handler(context, input).await?;
            if dry_run {
                return Err(Error::dry_run());
            }
            Ok(aws_api::encode::<O>(&output, &request_id))
        })
    })
}

macro_rules! offer {
    ($map:ident, $service:ident, $module:ident: $($name:ident => $handler:path),+ $(,)?) => {
        $(
            let handler = handle::<aws_api::$module::$name, _, _>(|context, input| async move {
                $handler(&context, input).await
            });
            let name = stringify!($name);
            let read_only = <aws_api::$module::$name as Operation>::READ_ONLY;
            $map.entry(Service::$service).or_default().insert(name, Offered { name, read_only, handler });
        )+
    };
}

fn offered() -> Operations {
    use crate::*;
    let mut map = Operations::new();
    offer!(map, Ec2, ec2:
        RunInstances => instance::run::run_instances,
        DescribeInstances => instance::describe::describe_instances,
        DescribeInstanceStatus => instance::status::describe_instance_status,
        StartInstances => instance::lifecycle::start_instances,
        StopInstances => instance::lifecycle::stop_instances,
        RebootInstances => instance::lifecycle::reboot_instances,
        TerminateInstances => instance::lifecycle::terminate_instances,
        GetConsoleOutput => instance::console::get_console_output,
        GetConsoleScreenshot => instance::console::get_console_screenshot,
        GetInstanceUefiData => instance::uefi_data::get_instance_uefi_data,
        GetPasswordData => instance::console::get_password_data,
        DescribeInstanceAttribute => instance::attribute::describe_instance_attribute,
        ModifyInstanceAttribute => instance::attribute::modify_instance_attribute,
        ResetInstanceAttribute => instance::attribute::reset_instance_attribute,
        ModifyPrivateDnsNameOptions => instance::names::modify_private_dns_name_options,
        ModifyInstanceMetadataOptions => instance::attribute::modify_instance_metadata_options,
        ModifyInstancePlacement => instance::placement::modify_instance_placement,
        MonitorInstances => instance::monitoring::monitor_instances,
        UnmonitorInstances => instance::monitoring::unmonitor_instances,
        DescribeInstanceCreditSpecifications => instance::credit::describe_instance_credit_specifications,
        ModifyInstanceCreditSpecification => instance::credit::modify_instance_credit_specification,
        CreateKeyPair => key_pair::create_key_pair,
        ImportKeyPair => key_pair::import_key_pair,
        DescribeKeyPairs => key_pair::describe_key_pairs,
        DeleteKeyPair => key_pair::delete_key_pair,
        CreateImage => image::create::create_image,
        CopyImage => image::copy::copy_image,
        RegisterImage => image::register::register_image,
        DeregisterImage => image::register::deregister_image,
        DescribeImages => image::describe::describe_images,
        DescribeImageAttribute => image::attribute::describe_image_attribute,
        ModifyImageAttribute => image::attribute::modify_image_attribute,
        ResetImageAttribute => image::attribute::reset_image_attribute,
        EnableImage => image::attribute::enable_image,
        DisableImage => image::attribute::disable_image,
        EnableImageDeprecation => image::attribute::enable_image_deprecation,
        DisableImageDeprecation => image::attribute::disable_image_deprecation,
        EnableImageDeregistrationProtection => image::enable_image_deregistration_protection,
        DisableImageDeregistrationProtection => image::disable_image_deregistration_protection,
        CancelImageLaunchPermission => image::attribute::cancel_image_launch_permission,
        GetImageAncestry => image::get_image_ancestry,
        CreateImageUsageReport => image::usage_report::create_image_usage_report,
        DescribeImageUsageReports => image::usage_report::describe_image_usage_reports,
        DescribeImageUsageReportEntries => image::usage_report::describe_image_usage_report_entries,
        DeleteImageUsageReport => image::usage_report::delete_image_usage_report,
        DescribeImageReferences => image::usage::describe_image_references,
        DescribeInstanceImageMetadata => image::usage::describe_instance_image_metadata,
        EnableAllowedImagesSettings => image::enable_allowed_images_settings,
        DisableAllowedImagesSettings => image::disable_allowed_images_settings,
        GetAllowedImagesSettings => image::get_allowed_images_settings,
        ReplaceImageCriteriaInAllowedImagesSettings => image::replace_image_criteria_in_allowed_images_settings,
        EnableImageBlockPublicAccess => image::public_access::enable_image_block_public_access,
        DisableImageBlockPublicAccess => image::public_access::disable_image_block_public_access,
        GetImageBlockPublicAccessState => image::public_access::get_image_block_public_access_state,
        DescribeFastLaunchImages => image::fast_launch::describe_fast_launch_images,
        EnableFastLaunch => image::fast_launch::enable_fast_launch,
        DisableFastLaunch => image::fast_launch::disable_fast_launch,
        DescribeSnapshots => snapshot::describe_snapshots,
        DeleteSnapshot => snapshot::delete_snapshot,
        CreateSnapshot => snapshot::create::create_snapshot,
        CreateSnapshots => snapshot::create::create_snapshots,
        CopySnapshot => snapshot::copy::copy_snapshot,
        DescribeSnapshotAttribute => snapshot::attribute::describe_snapshot_attribute,
        ModifySnapshotAttribute => snapshot::attribute::modify_snapshot_attribute,
        ResetSnapshotAttribute => snapshot::attribute::reset_snapshot_attribute,
        EnableSnapshotBlockPublicAccess => snapshot::public_access::enable_snapshot_block_public_access,
        DisableSnapshotBlockPublicAccess => snapshot::public_access::disable_snapshot_block_public_access,
        EnableFastSnapshotRestores => snapshot::fast_restore::enable_fast_snapshot_restores,
        DisableFastSnapshotRestores => snapshot::fast_restore::disable_fast_snapshot_restores,
        DescribeFastSnapshotRestores => snapshot::fast_restore::describe_fast_snapshot_restores,
        GetSnapshotBlockPublicAccessState => snapshot::public_access::get_snapshot_block_public_access_state,
        EnableEbsEncryptionByDefault => encryption::enable_ebs_encryption_by_default,
        DisableEbsEncryptionByDefault => encryption::disable_ebs_encryption_by_default,
        GetEbsEncryptionByDefault => encryption::get_ebs_encryption_by_default,
        GetEbsDefaultKmsKeyId => encryption::get_ebs_default_kms_key_id,
        ModifyEbsDefaultKmsKeyId => encryption::modify_ebs_default_kms_key_id,
        ResetEbsDefaultKmsKeyId => encryption::reset_ebs_default_kms_key_id,
        CopyVolumes => volume::copy::copy_volumes,
        CreateVolume => volume::create::create_volume,
        DeleteVolume => volume::create::delete_volume,
        AttachVolume => volume::attach::attach_volume,
        DetachVolume => volume::attach::detach_volume,
        ModifyVolume => volume::modify::modify_volume,
        DescribeVolumesModifications => volume::modify::describe_volumes_modifications,
        ModifyVolumeAttribute => volume::modify::modify_volume_attribute,
        EnableVolumeIO => volume::modify::enable_volume_io,
        DescribeVolumes => volume::describe::describe_volumes,
        DescribeVolumeStatus => volume::describe::describe_volume_status,
        DescribeVolumeAttribute => volume::describe::describe_volume_attribute,
        CreateReplaceRootVolumeTask => replace_root_volume_task::create_replace_root_volume_task,
        DescribeReplaceRootVolumeTasks => replace_root_volume_task::describe_replace_root_volume_tasks,
        DescribeInstanceTypes => instance_type::describe_instance_types,
        DescribeInstanceTypeOfferings => instance_type::describe_instance_type_offerings,
        DescribeRegions => location::describe_regions,
        DescribeAvailabilityZones => location::describe_availability_zones,
        DescribeAccountAttributes => location::describe_account_attributes,
        CreateTags => tag::create_tags,
        DeleteTags => tag::delete_tags,
        DescribeTags => tag::describe_tags,
        CreateVpc => vpc::create::create_vpc,
        CreateDefaultVpc => vpc::create::create_default_vpc,
        DeleteVpc => vpc::create::delete_vpc,
        DescribeVpcs => vpc::describe_vpcs,
        DescribeVpcAttribute => vpc::attribute::describe_vpc_attribute,
        ModifyVpcAttribute => vpc::attribute::modify_vpc_attribute,
        ModifyVpcTenancy => vpc::attribute::modify_vpc_tenancy,
        AssociateVpcCidrBlock => vpc::cidr::associate_vpc_cidr_block,
        DisassociateVpcCidrBlock => vpc::cidr::disassociate_vpc_cidr_block,
        DescribeIpv6Pools => vpc::ipv6_pool::describe_ipv6_pools,
        GetAssociatedIpv6PoolCidrs => vpc::ipv6_pool::get_associated_ipv6_pool_cidrs,
        CreateVpcEncryptionControl => vpc::encryption_control::create_vpc_encryption_control,
        ModifyVpcEncryptionControl => vpc::encryption_control::modify_vpc_encryption_control,
        DeleteVpcEncryptionControl => vpc::encryption_control::delete_vpc_encryption_control,
        DescribeVpcEncryptionControls => vpc::encryption_control::describe_vpc_encryption_controls,
        GetVpcResourcesBlockingEncryptionEnforcement =>
            vpc::encryption_control::get_vpc_resources_blocking_encryption_enforcement,
        DescribeVpcClassicLink => vpc::classic::describe_vpc_classic_link,
        EnableVpcClassicLink => vpc::classic::enable_vpc_classic_link,
        DisableVpcClassicLink => vpc::classic::disable_vpc_classic_link,
        DescribeVpcClassicLinkDnsSupport => vpc::classic::describe_vpc_classic_link_dns_support,
        EnableVpcClassicLinkDnsSupport => vpc::classic::enable_vpc_classic_link_dns_support,
        DisableVpcClassicLinkDnsSupport => vpc::classic::disable_vpc_classic_link_dns_support,
        DescribeClassicLinkInstances => vpc::classic::describe_classic_link_instances,
        AttachClassicLinkVpc => vpc::classic::attach_classic_link_vpc,
        DetachClassicLinkVpc => vpc::classic::detach_classic_link_vpc,
        CreateVpcPeeringConnection => vpc_peering_connection::change::create_vpc_peering_connection,
        AcceptVpcPeeringConnection => vpc_peering_connection::change::accept_vpc_peering_connection,
        RejectVpcPeeringConnection => vpc_peering_connection::change::reject_vpc_peering_connection,
        DeleteVpcPeeringConnection => vpc_peering_connection::change::delete_vpc_peering_connection,
        DescribeVpcPeeringConnections => vpc_peering_connection::describe_vpc_peering_connections,
        ModifyVpcPeeringConnectionOptions =>
            vpc_peering_connection::change::modify_vpc_peering_connection_options,
        CreateVpcEndpoint => vpc_endpoint::change::create_vpc_endpoint,
        ModifyVpcEndpoint => vpc_endpoint::change::modify_vpc_endpoint,
        DeleteVpcEndpoints => vpc_endpoint::change::delete_vpc_endpoints,
        DescribeVpcEndpoints => vpc_endpoint::describe_vpc_endpoints,
        DescribeVpcEndpointAssociations => vpc_endpoint::describe_vpc_endpoint_associations,
        DescribeVpcEndpointServices => vpc_endpoint::service::describe_vpc_endpoint_services,
        DescribeVpcBlockPublicAccessOptions =>
            vpc_block_public_access::describe_vpc_block_public_access_options,
        ModifyVpcBlockPublicAccessOptions => vpc_block_public_access::modify_vpc_block_public_access_options,
        CreateVpcBlockPublicAccessExclusion =>
            vpc_block_public_access::create_vpc_block_public_access_exclusion,
        ModifyVpcBlockPublicAccessExclusion =>
            vpc_block_public_access::modify_vpc_block_public_access_exclusion,
        DeleteVpcBlockPublicAccessExclusion =>
            vpc_block_public_access::delete_vpc_block_public_access_exclusion,
        DescribeVpcBlockPublicAccessExclusions =>
            vpc_block_public_access::describe_vpc_block_public_access_exclusions,
        CreateSubnet => subnet::create::create_subnet,
        CreateDefaultSubnet => subnet::create::create_default_subnet,
        DeleteSubnet => subnet::create::delete_subnet,
        DescribeSubnets => subnet::describe_subnets,
        ModifySubnetAttribute => subnet::attribute::modify_subnet_attribute,
        AssociateSubnetCidrBlock => subnet::ipv6::associate_subnet_cidr_block,
        DisassociateSubnetCidrBlock => subnet::ipv6::disassociate_subnet_cidr_block,
        CreateSubnetCidrReservation => subnet::reservation::create_subnet_cidr_reservation,
        GetSubnetCidrReservations => subnet::reservation::get_subnet_cidr_reservations,
        DeleteSubnetCidrReservation => subnet::reservation::delete_subnet_cidr_reservation,
        DescribeRouteTables => route_table::describe_route_tables,
        CreateRouteTable => route_table::create::create_route_table,
        DeleteRouteTable => route_table::create::delete_route_table,
        AssociateRouteTable => route_table::association::associate_route_table,
        DisassociateRouteTable => route_table::association::disassociate_route_table,
        ReplaceRouteTableAssociation => route_table::association::replace_route_table_association,
        CreateRoute => route_table::route::create_route,
        ReplaceRoute => route_table::route::replace_route,
        EnableVgwRoutePropagation => route_table::propagation::enable_vgw_route_propagation,
        DisableVgwRoutePropagation => route_table::propagation::disable_vgw_route_propagation,
        DeleteRoute => route_table::route::delete_route,
        CreateEgressOnlyInternetGateway =>
            egress_only_internet_gateway::create_egress_only_internet_gateway,
        DescribeEgressOnlyInternetGateways =>
            egress_only_internet_gateway::describe_egress_only_internet_gateways,
        DeleteEgressOnlyInternetGateway =>
            egress_only_internet_gateway::delete_egress_only_internet_gateway,
        DescribeInternetGateways => internet_gateway::describe_internet_gateways,
        CreateInternetGateway => internet_gateway::create_internet_gateway,
        AttachInternetGateway => internet_gateway::attach_internet_gateway,
        DetachInternetGateway => internet_gateway::detach_internet_gateway,
        DeleteInternetGateway => internet_gateway::delete_internet_gateway,
        DescribeNetworkAcls => network_acl::describe_network_acls,
        CreateNetworkAcl => network_acl::create::create_network_acl,
        DeleteNetworkAcl => network_acl::create::delete_network_acl,
        CreateNetworkAclEntry => network_acl::entries::create_network_acl_entry,
        ReplaceNetworkAclEntry => network_acl::entries::replace_network_acl_entry,
        DeleteNetworkAclEntry => network_acl::entries::delete_network_acl_entry,
        ReplaceNetworkAclAssociation => network_acl::association::replace_network_acl_association,
        CreateManagedPrefixList => prefix_list::create::create_managed_prefix_list,
        DeleteManagedPrefixList => prefix_list::create::delete_managed_prefix_list,
        DescribeManagedPrefixLists => prefix_list::describe_managed_prefix_lists,
        DescribePrefixLists => prefix_list::aws::describe_prefix_lists,
        ModifyManagedPrefixList => prefix_list::modify::modify_managed_prefix_list,
        RestoreManagedPrefixListVersion => prefix_list::modify::restore_managed_prefix_list_version,
        GetManagedPrefixListEntries => prefix_list::entries::get_managed_prefix_list_entries,
        GetManagedPrefixListAssociations => prefix_list::entries::get_managed_prefix_list_associations,
        DescribeDhcpOptions => dhcp_options::describe_dhcp_options,
        CreateDhcpOptions => dhcp_options::create::create_dhcp_options,
        DeleteDhcpOptions => dhcp_options::create::delete_dhcp_options,
        AssociateDhcpOptions => dhcp_options::create::associate_dhcp_options,
        CreateNatGateway => nat_gateway::create_nat_gateway,
        DeleteNatGateway => nat_gateway::delete_nat_gateway,
        AssignPrivateNatGatewayAddress => nat_gateway::assign_private_nat_gateway_address,
        UnassignPrivateNatGatewayAddress => nat_gateway::unassign_private_nat_gateway_address,
        AssociateNatGatewayAddress => nat_gateway::associate_nat_gateway_address,
        DisassociateNatGatewayAddress => nat_gateway::disassociate_nat_gateway_address,
        DescribeNatGateways => nat_gateway::describe_nat_gateways,
        AllocateAddress => address::allocate_address,
        AssociateAddress => address::associate_address,
        DescribeAddressesAttribute => address::describe_addresses_attribute,
        ModifyAddressAttribute => address::modify_address_attribute,
        ResetAddressAttribute => address::reset_address_attribute,
        DescribePublicIpv4Pools => public_pool::describe_public_ipv4_pools,
        CreatePublicIpv4Pool => public_pool::byoip::create_public_ipv4_pool,
        DeletePublicIpv4Pool => public_pool::byoip::delete_public_ipv4_pool,
        ProvisionPublicIpv4PoolCidr => public_pool::byoip::provision_public_ipv4_pool_cidr,
        DeprovisionPublicIpv4PoolCidr => public_pool::byoip::deprovision_public_ipv4_pool_cidr,
        DescribeByoipCidrs => public_pool::byoip::describe_byoip_cidrs,
        AdvertiseByoipCidr => public_pool::byoip::advertise_byoip_cidr,
        WithdrawByoipCidr => public_pool::byoip::withdraw_byoip_cidr,
        ProvisionByoipCidr => public_pool::byoip::provision_byoip_cidr,
        DeprovisionByoipCidr => public_pool::byoip::deprovision_byoip_cidr,
        EnableAddressTransfer => address::enable_address_transfer,
        DisableAddressTransfer => address::disable_address_transfer,
        DescribeAddressTransfers => address::describe_address_transfers,
        AcceptAddressTransfer => address::accept_address_transfer,
        DescribeMovingAddresses => address::describe_moving_addresses,
        MoveAddressToVpc => address::move_address_to_vpc,
        RestoreAddressToClassic => address::restore_address_to_classic,
        DescribeAddresses => address::describe_addresses,
        DisassociateAddress => address::disassociate_address,
        ReleaseAddress => address::release_address,
        CreateNetworkInsightsPath => network_insights::create_network_insights_path,
        DescribeNetworkInsightsPaths => network_insights::describe_network_insights_paths,
        DeleteNetworkInsightsPath => network_insights::delete_network_insights_path,
        StartNetworkInsightsAnalysis => network_insights::start_network_insights_analysis,
        DescribeNetworkInsightsAnalyses => network_insights::describe_network_insights_analyses,
        DeleteNetworkInsightsAnalysis => network_insights::delete_network_insights_analysis,
        EnableReachabilityAnalyzerOrganizationSharing =>
            network_insights::enable_reachability_analyzer_organization_sharing,
        CreateNetworkInsightsAccessScope => network_insights::create_network_insights_access_scope,
        DescribeNetworkInsightsAccessScopes => network_insights::describe_network_insights_access_scopes,
        GetNetworkInsightsAccessScopeContent => network_insights::get_network_insights_access_scope_content,
        DeleteNetworkInsightsAccessScope => network_insights::delete_network_insights_access_scope,
        StartNetworkInsightsAccessScopeAnalysis => network_insights::start_network_insights_access_scope_analysis,
        DescribeNetworkInsightsAccessScopeAnalyses => network_insights::describe_network_insights_access_scope_analyses,
        GetNetworkInsightsAccessScopeAnalysisFindings => network_insights::get_network_insights_access_scope_analysis_findings,
        DeleteNetworkInsightsAccessScopeAnalysis => network_insights::delete_network_insights_access_scope_analysis,
        CreateNetworkInterface => network_interface::create::create_network_interface,
        DeleteNetworkInterface => network_interface::create::delete_network_interface,
        AttachNetworkInterface => network_interface::attach::attach_network_interface,
        DetachNetworkInterface => network_interface::attach::detach_network_interface,
        ModifyNetworkInterfaceAttribute => network_interface::modify::modify_network_interface_attribute,
        ResetNetworkInterfaceAttribute => network_interface::modify::reset_network_interface_attribute,
        AssignPrivateIpAddresses => network_interface::address::assign_private_ip_addresses,
        UnassignPrivateIpAddresses => network_interface::address::unassign_private_ip_addresses,
        AssignIpv6Addresses => network_interface::ipv6::assign_ipv6_addresses,
        UnassignIpv6Addresses => network_interface::ipv6::unassign_ipv6_addresses,
        CreateNetworkInterfacePermission => network_interface::permission::create_network_interface_permission,
        ModifyPublicIpDnsNameOptions => network_interface::public_name::modify_public_ip_dns_name_options,
        AssociateTrunkInterface => network_interface::trunk::associate_trunk_interface,
        DisassociateTrunkInterface => network_interface::trunk::disassociate_trunk_interface,
        DescribeTrunkInterfaceAssociations =>
            network_interface::trunk::describe_trunk_interface_associations,
        DeleteNetworkInterfacePermission => network_interface::permission::delete_network_interface_permission,
        DescribeNetworkInterfacePermissions =>
            network_interface::permission::describe_network_interface_permissions,
        DescribeNetworkInterfaces => network_interface::describe::describe_network_interfaces,
        DescribeNetworkInterfaceAttribute => network_interface::describe::describe_network_interface_attribute,
        DescribeSecurityGroups => security_group::describe_security_groups,
        DescribeSecurityGroupReferences => security_group::peered::describe_security_group_references,
        DescribeStaleSecurityGroups => security_group::peered::describe_stale_security_groups,
        GetSecurityGroupsForVpc => security_group::get_security_groups_for_vpc,
        AssociateSecurityGroupVpc => security_group::association::associate_security_group_vpc,
        DisassociateSecurityGroupVpc => security_group::association::disassociate_security_group_vpc,
        DescribeSecurityGroupVpcAssociations => security_group::association::describe_security_group_vpc_associations,
        CreateSecurityGroup => security_group::create_security_group,
        DeleteSecurityGroup => security_group::delete_security_group,
        DescribeSecurityGroupRules => security_group::rules::describe_security_group_rules,
        AuthorizeSecurityGroupIngress => security_group::rules::authorize_security_group_ingress,
        AuthorizeSecurityGroupEgress => security_group::rules::authorize_security_group_egress,
        RevokeSecurityGroupIngress => security_group::rules::revoke_security_group_ingress,
        RevokeSecurityGroupEgress => security_group::rules::revoke_security_group_egress,
        ModifySecurityGroupRules => security_group::rules::modify_security_group_rules,
        UpdateSecurityGroupRuleDescriptionsIngress =>
            security_group::rules::update_security_group_rule_descriptions_ingress,
        UpdateSecurityGroupRuleDescriptionsEgress =>
            security_group::rules::update_security_group_rule_descriptions_egress,
        CreatePlacementGroup => placement_group::create_placement_group,
        DescribePlacementGroups => placement_group::describe_placement_groups,
        DeletePlacementGroup => placement_group::delete_placement_group,
        AllocateHosts => dedicated_host::allocate_hosts,
        DescribeHosts => dedicated_host::describe_hosts,
        ModifyHosts => dedicated_host::modify_hosts,
        ReleaseHosts => dedicated_host::release_hosts,
    );
    offer!(map, Sts, sts:
        GetCallerIdentity => sts::get_caller_identity,
    );
    offer!(map, Ebs, ebs:
        StartSnapshot => ebs_direct::start_snapshot,
        PutSnapshotBlock => ebs_direct::put_snapshot_block,
        CompleteSnapshot => ebs_direct::complete_snapshot,
        ListSnapshotBlocks => ebs_direct::list_snapshot_blocks,
        ListChangedBlocks => ebs_direct::list_changed_blocks,
        GetSnapshotBlock => ebs_direct::get_snapshot_block,
    );
    offer!(map, Cumulet, cumulet:
        ListHosts => operator::list_hosts,
        CreateInstanceType => instance_type::create_instance_type,
        DeleteInstanceType => instance_type::delete_instance_type,
        ListInstanceTypes => instance_type::list_instance_types,
        CreatePublicPool => public_pool::create_public_pool,
        DeletePublicPool => public_pool::delete_public_pool,
        ListPublicPools => public_pool::list_public_pools,
        ExplainPlacement => operator::explain_placement,
        TraceNetwork => network_insights::trace_network,
        ListWorkflows => operator::list_workflows,
        ListEvents => operator::list_events,
        CreateBackup => operator::create_backup,
    );
    map
}
