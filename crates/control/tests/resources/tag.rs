use crate::cloud::Cloud;

#[tokio::test]
async fn tags_are_set_on_all_or_on_none() {
    let cloud = Cloud::start().await;
    let instance = cloud.run(&[]).await;
    let group = cloud.ok("CreateSecurityGroup", &[("GroupName", "web"), ("GroupDescription", "web")]).await;
    let group = group.one("groupId").to_owned();
    let tag = |second: &'static str| [("ResourceId.2", second), ("Tag.1.Key", "k"), ("Tag.1.Value", "v")];
    let mut both = vec![("ResourceId.1", instance.as_str())];
    both.extend(tag("sg-0123456789abcdef0"));
    assert_eq!(cloud.call("CreateTags", &both).await.unwrap_err(), "InvalidGroup.NotFound");
    assert!(cloud.ok("DescribeTags", &[]).await.all("key").is_empty());
    cloud
        .ok(
            "CreateTags",
            &[
                ("ResourceId.1", &instance),
                ("ResourceId.2", &group),
                ("Tag.1.Key", "k"),
                ("Tag.1.Value", "v"),
            ],
        )
        .await;
    let of_instance = [("Filter.1.Name", "resource-id"), ("Filter.1.Value.1", instance.as_str())];
    let found = cloud.ok("DescribeTags", &of_instance).await;
    assert_eq!((found.one("resourceType"), found.one("key"), found.one("value")), ("instance", "k", "v"));
    assert_eq!(cloud.ok("DescribeTags", &[]).await.all("resourceType"), ["instance", "security-group"]);
    let by_tag = [("Filter.1.Name", "tag:k"), ("Filter.1.Value.1", "v")];
    assert_eq!(cloud.ok("DescribeSecurityGroups", &by_tag).await.one("groupId"), group);
}

#[tokio::test]
async fn a_tag_goes_by_key_or_by_key_and_value() {
    let cloud = Cloud::start().await;
    let instance = cloud.run(&[]).await;
    let id = ("ResourceId.1", instance.as_str());
    cloud
        .ok(
            "CreateTags",
            &[
                id,
                ("Tag.1.Key", "a"),
                ("Tag.1.Value", "1"),
                ("Tag.2.Key", "b"),
                ("Tag.2.Value", "2"),
                ("Tag.3.Key", "c"),
                ("Tag.3.Value", "3"),
            ],
        )
        .await;
    cloud.ok("DeleteTags", &[id, ("Tag.1.Key", "a"), ("Tag.2.Key", "b"), ("Tag.2.Value", "other")]).await;
    assert_eq!(cloud.ok("DescribeTags", &[]).await.all("key"), ["b", "c"]);
    cloud.ok("DeleteTags", &[id]).await;
    assert!(cloud.ok("DescribeTags", &[]).await.all("key").is_empty());
    assert_eq!(
        cloud.call("CreateTags", &[("ResourceId.1", "x-1"), ("Tag.1.Key", "a")]).await.unwrap_err(),
        "InvalidID"
    );
}

#[tokio::test]
async fn rules_of_one_group_are_tagged_together() {
    let cloud = Cloud::start().await;
    let rules = cloud.ok("DescribeSecurityGroupRules", &[]).await;
    let ids = rules.all("securityGroupRuleId");
    let group = rules.all("groupId")[0];
    assert_eq!(ids.len(), 2);
    cloud
        .ok(
            "CreateTags",
            &[
                ("ResourceId.1", ids[0]),
                ("ResourceId.2", ids[1]),
                ("ResourceId.3", group),
                ("Tag.1.Key", "k"),
                ("Tag.1.Value", "v"),
            ],
        )
        .await;
    let types = cloud.ok("DescribeTags", &[]).await;
    assert_eq!(types.all("resourceType"), ["security-group", "security-group-rule", "security-group-rule"]);
    let by_tag = [("Filter.1.Name", "tag:k"), ("Filter.1.Value.1", "v")];
    assert_eq!(cloud.ok("DescribeSecurityGroupRules", &by_tag).await.all("securityGroupRuleId"), ids);
}
