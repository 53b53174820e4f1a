use crate::cloud::Cloud;

#[tokio::test]
async fn a_group_in_use_is_not_deleted() {
    let cloud = Cloud::start().await;
    let group = [("GroupName", "pg"), ("Strategy", "cluster")];
    cloud.ok("CreatePlacementGroup", &group).await;
    assert_eq!(
        cloud.call("CreatePlacementGroup", &group).await.unwrap_err(),
        "InvalidPlacementGroup.Duplicate"
    );
    cloud.run(&[("Placement.GroupName", "pg")]).await;
    let delete = [("GroupName", "pg")];
    assert_eq!(cloud.call("DeletePlacementGroup", &delete).await.unwrap_err(), "InvalidPlacementGroup.InUse");
}

#[tokio::test]
async fn a_group_is_found_by_name_and_filter_until_it_is_deleted() {
    let cloud = Cloud::start().await;
    let made = cloud
        .ok("CreatePlacementGroup", &[("GroupName", "p"), ("Strategy", "partition"), ("PartitionCount", "3")])
        .await;
    assert_eq!(made.one("partitionCount"), "3");
    cloud.ok("CreatePlacementGroup", &[("GroupName", "s"), ("Strategy", "spread")]).await;
    let spread = cloud
        .ok("DescribePlacementGroups", &[("Filter.1.Name", "strategy"), ("Filter.1.Value.1", "spread")])
        .await;
    assert_eq!((spread.one("groupName"), spread.one("spreadLevel")), ("s", "rack"));
    assert_eq!(
        cloud.ok("DescribePlacementGroups", &[("GroupName.1", "p")]).await.one("strategy"),
        "partition"
    );
    cloud.ok("DeletePlacementGroup", &[("GroupName", "p")]).await;
    for (operation, name) in
        [("DeletePlacementGroup", "GroupName"), ("DescribePlacementGroups", "GroupName.1")]
    {
        assert_eq!(cloud.call(operation, &[(name, "p")]).await.unwrap_err(), "InvalidPlacementGroup.Unknown");
    }
}

#[tokio::test]
async fn partitions_are_one_to_seven_and_of_partition_groups() {
    let cloud = Cloud::start().await;
    let create = async |strategy: &str, count: &str| {
        let parameters = [("GroupName", "g"), ("Strategy", strategy), ("PartitionCount", count)];
        cloud.call("CreatePlacementGroup", &parameters).await.unwrap_err()
    };
    assert_eq!(create("partition", "0").await, "InvalidParameterValue");
    assert_eq!(create("partition", "8").await, "InvalidParameterValue");
    assert_eq!(create("spread", "2").await, "InvalidParameterCombination");
}
