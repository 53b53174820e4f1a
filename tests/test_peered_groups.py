"""Rules that name security groups of peered VPCs, and what makes them stale, through boto3."""

import pytest
from conftest import error_code

SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}


class Peers:
    """Two VPCs that are peered, and a security group in each."""

    def __init__(self, ec2):
        self.ec2 = ec2
        self.vpcs = [ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"] for number in (1, 2)]
        group = lambda vpc: ec2.create_security_group(GroupName="g", Description="of a peer", VpcId=vpc)
        self.here, self.there = [group(vpc)["GroupId"] for vpc in self.vpcs]
        self.peering = self.connect()

    def connect(self):
        asked = self.ec2.create_vpc_peering_connection(VpcId=self.vpcs[0], PeerVpcId=self.vpcs[1])
        id = asked["VpcPeeringConnection"]["VpcPeeringConnectionId"]
        self.ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=id)
        return id

    def permission(self, **more):
        return [{**SSH, "UserIdGroupPairs": [{"GroupId": self.there, **more}]}]

    def authorize(self, direction="ingress", **more):
        call = getattr(self.ec2, f"authorize_security_group_{direction}")
        return call(GroupId=self.here, IpPermissions=self.permission(**more))["SecurityGroupRules"]

    def pair(self):
        """The one group that the rules name."""
        (group,) = self.ec2.describe_security_groups(GroupIds=[self.here])["SecurityGroups"]
        (permission,) = group["IpPermissions"]
        (pair,) = permission["UserIdGroupPairs"]
        return pair

    def stale(self):
        return self.ec2.describe_stale_security_groups(VpcId=self.vpcs[0])["StaleSecurityGroupSet"]

    def references(self):
        return self.ec2.describe_security_group_references(GroupId=[self.there])["SecurityGroupReferenceSet"]


@pytest.fixture
def peers(ec2):
    return Peers(ec2)


def test_a_rule_names_a_group_of_the_other_vpc(ec2, peers):
    (rule,) = peers.authorize()
    named = {"GroupId": peers.there, "VpcId": peers.vpcs[1]}
    named |= {"VpcPeeringConnectionId": peers.peering, "PeeringStatus": "active"}
    shown = rule["ReferencedGroupInfo"]
    assert shown.items() >= named.items() and peers.pair().items() >= named.items()
    rules = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
    assert rules["SecurityGroupRules"][0]["ReferencedGroupInfo"] == shown
    assert error_code(peers.authorize) == "InvalidPermission.Duplicate"
    assert peers.stale() == []
    reference = {"GroupId": peers.there, "ReferencingVpcId": peers.vpcs[0], "VpcPeeringConnectionId": peers.peering}
    assert peers.references() == [reference]
    filters = [{"Name": "ip-permission.group-id", "Values": [peers.there]}]
    (found,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    assert found["GroupId"] == peers.here
    # As it is shown, or as briefly as it was asked for.
    described = [{**SSH, "UserIdGroupPairs": [{**peers.pair(), "Description": "the other side"}]}]
    ec2.update_security_group_rule_descriptions_ingress(GroupId=peers.here, IpPermissions=described)
    assert peers.pair()["Description"] == "the other side"
    ec2.revoke_security_group_ingress(GroupId=peers.here, IpPermissions=peers.permission())
    assert peers.references() == []


def test_only_groups_of_connected_vpcs_can_be_named(ec2, peers):
    third = ec2.create_vpc(CidrBlock="10.3.0.0/16")["Vpc"]["VpcId"]
    stranger = ec2.create_security_group(GroupName="g", Description="of none", VpcId=third)["GroupId"]
    for more in [
        {"GroupId": stranger},
        {"GroupId": "sg-0123456789abcdef0"},
        {"VpcId": third},
        {"VpcPeeringConnectionId": "pcx-0123456789abcdef0"},
    ]:
        assert error_code(peers.authorize, **more) == "InvalidGroup.NotFound", more
    asked = ec2.create_vpc_peering_connection(VpcId=peers.vpcs[0], PeerVpcId=third)["VpcPeeringConnection"]
    assert error_code(peers.authorize, GroupId=stranger) == "InvalidGroup.NotFound"
    ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=asked["VpcPeeringConnectionId"])
    assert error_code(peers.authorize, GroupId=stranger) is None


def test_a_rule_is_stale_once_its_connection_is_gone(ec2, peers):
    peers.authorize()
    peers.authorize("egress")
    ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=peers.peering)
    assert peers.pair()["PeeringStatus"] == "deleted" and peers.references() == []
    (stale,) = peers.stale()
    assert (stale["GroupId"], stale["GroupName"], stale["VpcId"]) == (peers.here, "g", peers.vpcs[0])
    for permissions in (stale["StaleIpPermissions"], stale["StaleIpPermissionsEgress"]):
        (permission,) = permissions
        assert permission["FromPort"] == 22
        assert permission["UserIdGroupPairs"][0]["VpcPeeringConnectionId"] == peers.peering
    # It is of the connection that it was made over, and no other.
    again = peers.connect()
    assert len(peers.stale()) == 1
    assert error_code(peers.authorize) == "InvalidPermission.Duplicate"
    ec2.revoke_security_group_ingress(GroupId=peers.here, IpPermissions=stale["StaleIpPermissions"])
    ec2.revoke_security_group_egress(GroupId=peers.here, IpPermissions=peers.permission())
    assert peers.stale() == []
    peers.authorize()
    assert peers.pair()["VpcPeeringConnectionId"] == again


def test_a_rule_is_stale_once_its_group_is_gone(ec2, peers):
    peers.authorize()
    friend = ec2.create_security_group(GroupName="friend", Description="of the same", VpcId=peers.vpcs[1])["GroupId"]
    own = [{**SSH, "UserIdGroupPairs": [{"GroupId": peers.there}]}]
    ec2.authorize_security_group_ingress(GroupId=friend, IpPermissions=own)
    # Rules of its own VPC keep a group, those of another do not.
    assert error_code(ec2.delete_security_group, GroupId=peers.there) == "DependencyViolation"
    ec2.revoke_security_group_ingress(GroupId=friend, IpPermissions=own)
    ec2.delete_security_group(GroupId=peers.there)
    assert len(peers.stale()) == 1 and "UserId" not in peers.pair()
    assert error_code(peers.references) == "InvalidGroup.NotFound"
    assert error_code(peers.authorize, direction="egress") == "InvalidGroup.NotFound"
    ec2.revoke_security_group_ingress(GroupId=peers.here, IpPermissions=peers.permission())
    assert peers.stale() == []
    assert error_code(ec2.describe_stale_security_groups, VpcId="vpc-0123456789abcdef0") == "InvalidVpcID.NotFound"


def test_the_groups_that_a_vpc_can_use(ec2, peers):
    usable = lambda *filters: ec2.get_security_groups_for_vpc(
        VpcId=peers.vpcs[0], Filters=[{"Name": name, "Values": [value]} for name, value in filters]
    )["SecurityGroupForVpcs"]
    assert sorted(group["GroupName"] for group in usable()) == ["default", "g"]
    (found,) = usable(("group-id", peers.here))
    assert found["PrimaryVpcId"] == peers.vpcs[0] and found["Description"] == "of a peer"
    assert usable(("group-name", "g"), ("description", "of a peer"), ("owner-id", found["OwnerId"])) == [found]
    assert usable(("primary-vpc-id", peers.vpcs[1])) == []
    with pytest.raises(ec2.exceptions.ClientError, match="colour"):
        usable(("colour", "red"))
