use crate::cloud::Cloud;

#[tokio::test]
async fn regions_and_zones() {
    let cloud = Cloud::start().await;
    assert_eq!(cloud.ok("DescribeRegions", &[]).await.all("regionName").len(), model::Region::AWS.len());
    let one = cloud.ok("DescribeRegions", &[("RegionName.1", "eu-west-1")]).await;
    assert_eq!(one.one("regionEndpoint"), "ec2.eu-west-1.amazonaws.com");
    assert_eq!(
        cloud.call("DescribeRegions", &[("RegionName.1", "eu-moon-1")]).await.unwrap_err(),
        "InvalidParameterValue"
    );
    let zones = cloud.ok("DescribeAvailabilityZones", &[]).await;
    assert_eq!(zones.all("zoneName"), ["us-east-1a", "us-east-1b"]);
    assert_eq!(zones.all("zoneId"), ["use1-az1", "use1-az2"]);
}

#[tokio::test]
async fn the_default_vpc_is_whole() {
    let cloud = Cloud::start().await;
    let vpc = cloud.ok("DescribeAccountAttributes", &[("AttributeName.1", "default-vpc")]).await;
    let vpc_id = vpc.one("attributeValue");
    let of_vpc = [("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", vpc_id)];
    assert_eq!(cloud.ok("DescribeSubnets", &of_vpc).await.all("subnetId").len(), 2);
    let routes = cloud.ok("DescribeRouteTables", &of_vpc).await;
    assert_eq!(routes.all("destinationCidrBlock"), ["172.31.0.0/16", "0.0.0.0/0"]);
    let attached = [("Filter.1.Name", "attachment.vpc-id"), ("Filter.1.Value.1", vpc_id)];
    let gateway = cloud.ok("DescribeInternetGateways", &attached).await;
    assert_eq!(routes.all("gatewayId"), ["local", gateway.one("internetGatewayId")]);
    let acl = cloud.ok("DescribeNetworkAcls", &of_vpc).await;
    assert_eq!(acl.all("ruleNumber").len(), 4);
    assert_eq!(acl.all("subnetId").len(), 2);
    let options = cloud.ok("DescribeDhcpOptions", &[]).await;
    assert_eq!(options.all("value"), ["ec2.internal", "AmazonProvidedDNS"]);
}

#[tokio::test]
async fn instance_types_come_in_pages_of_a_hundred() {
    let cloud = Cloud::start().await;
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = cloud.ok("DescribeInstanceTypes", &[("NextToken", &token)]).await;
        let here = page.all("instanceType");
        assert!(here.len() <= 100);
        names.extend(here.iter().map(|name| (*name).to_owned()));
        match page.all("nextToken").as_slice() {
            [next] => token = (*next).to_owned(),
            _ => break,
        }
    }
    assert!(names.len() > 800 && names.windows(2).all(|pair| pair[0] < pair[1]));
    let unknown = [("InstanceType.1", "t9.colossal")];
    assert_eq!(cloud.call("DescribeInstanceTypes", &unknown).await.unwrap_err(), "InvalidInstanceType");
    let by_zone = [
        ("LocationType", "availability-zone"),
        ("Filter.1.Name", "instance-type"),
        ("Filter.1.Value.1", "t3.micro"),
    ];
    let offerings = cloud.ok("DescribeInstanceTypeOfferings", &by_zone).await;
    assert_eq!(offerings.all("location"), ["us-east-1a", "us-east-1b"]);
}
