//! Status checks, as DescribeInstanceStatus shows what a host finds.

use crate::cloud::{Cloud, Text};
use agent_api::{Check, InstanceObservation, Since, StatusChecks};

const PASSED: StatusChecks =
    StatusChecks { system: Check::Passed, instance: Check::Passed, attached_ebs: Check::Passed };
const SINCE: Since = Since::seconds(1_700_000_060);
const IMPAIRED: StatusChecks = StatusChecks { instance: Check::Failed { since: SINCE }, ..PASSED };

/// The statuses in an answer: instance, system, attached EBS.
fn statuses(answer: &Text) -> Vec<&str> {
    let part = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        answer.0.split_once(&open).unwrap().1.split_once(&close).unwrap().0
    };
    let status = |tag| {
        // The summary's own status is the one outside of the details.
        let text = part(tag);
        let own = text.rsplit("</details>").next().unwrap();
        own.split_once("<status>").unwrap().1.split_once("</status>").unwrap().0
    };
    ["instanceStatus", "systemStatus", "attachedEbsStatus"].map(status).to_vec()
}

async fn running(cloud: &Cloud) -> String {
    let id = cloud.run(&[]).await;
    cloud.observe(&id, 1, InstanceObservation::Running, None);
    cloud.until(&id, |instance| instance.state.name() == "running").await;
    id
}

async fn describe(cloud: &Cloud, parameters: &[(&str, &str)]) -> Text {
    cloud.ok("DescribeInstanceStatus", parameters).await
}

#[tokio::test(start_paused = true)]
async fn what_a_host_finds_is_shown_and_told() {
    let cloud = Cloud::start().await;
    let id = cloud.run(&[]).await;
    let one = [("InstanceId.1", id.as_str()), ("IncludeAllInstances", "true")];
    assert_eq!(statuses(&describe(&cloud, &one).await), ["not-applicable"; 3]);
    cloud.observe(&id, 1, InstanceObservation::Running, None);
    cloud.until(&id, |instance| instance.state.name() == "running").await;
    assert_eq!(statuses(&describe(&cloud, &one).await), ["initializing"; 3]);

    cloud.observe(&id, 1, InstanceObservation::Running, Some(PASSED));
    cloud.until(&id, |instance| instance.checks == Some((1, PASSED))).await;
    assert_eq!(statuses(&describe(&cloud, &one).await), ["ok"; 3]);
    cloud.observe(&id, 1, InstanceObservation::Running, Some(IMPAIRED));
    cloud.until(&id, |instance| instance.checks == Some((1, IMPAIRED))).await;
    let shown = describe(&cloud, &one).await;
    assert_eq!(statuses(&shown), ["impaired", "ok", "ok"]);
    assert_eq!(shown.one("impairedSince"), "2023-11-14T22:14:20.000Z");
    assert_eq!(shown.all("name"), ["running", "reachability", "reachability", "reachability"]);

    // A host that began anew knows of a later time only, or of nothing yet.
    let later = Check::Failed { since: Since::seconds(1_700_000_600) };
    cloud.observe(&id, 1, InstanceObservation::Running, Some(StatusChecks { instance: later, ..IMPAIRED }));
    cloud.observe(&id, 1, InstanceObservation::Running, None);
    let marker = StatusChecks { instance: later, system: later, ..PASSED };
    cloud.observe(&id, 1, InstanceObservation::Running, Some(marker));
    cloud.until(&id, |instance| instance.checks.is_some_and(|(_, found)| found.system == later)).await;
    assert!(describe(&cloud, &one).await.all("impairedSince").contains(&"2023-11-14T22:14:20.000Z"));
    cloud.observe(&id, 1, InstanceObservation::Running, Some(PASSED));
    cloud.until(&id, |instance| instance.checks == Some((1, PASSED))).await;

    // The next boot begins anew, and what is told of the one before is over.
    cloud.ok("RebootInstances", &[("InstanceId.1", &id)]).await;
    cloud.observe(&id, 1, InstanceObservation::Running, Some(IMPAIRED));
    cloud.observe(&id, 2, InstanceObservation::Running, None);
    assert_eq!(statuses(&describe(&cloud, &one).await), ["initializing"; 3]);

    let events = cloud.1.events.after(0, 1000, std::time::Duration::ZERO).await;
    let told: Vec<&str> =
        events.iter().filter(|event| event.message.contains("status")).map(|e| e.message.as_str()).collect();
    let expected =
        ["instance status impaired", "system status impaired", "system status ok, instance status ok"];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn filters_pages_and_all_instances_are_as_documented() {
    let cloud = Cloud::start().await;
    let mut ids = Vec::new();
    for number in 0..12 {
        let id = running(&cloud).await;
        let found = if number % 2 == 0 { PASSED } else { IMPAIRED };
        cloud.observe(&id, 1, InstanceObservation::Running, Some(found));
        cloud.until(&id, |instance| instance.checks == Some((1, found))).await;
        ids.push(id);
    }
    let pending = cloud.run(&[]).await;
    for (name, value, count) in [
        ("instance-status.status", "ok", 6),
        ("instance-status.status", "impaired", 6),
        ("instance-status.reachability", "failed", 6),
        ("instance-status.reachability", "passed", 6),
        ("system-status.status", "ok", 12),
        ("system-status.reachability", "passed", 12),
        ("attached-ebs-status.status", "ok", 12),
        ("attached-ebs-status.status", "impaired", 0),
        ("instance-state-name", "running", 12),
        ("instance-state-code", "16", 12),
        ("availability-zone", "us-east-1a", 12),
        ("availability-zone-id", "use1-az*", 12),
        ("operator.managed", "false", 12),
        ("event.code", "system-reboot", 0),
        ("event.description", "*", 0),
        ("event.instance-event-id", "*", 0),
        ("event.not-after", "*", 0),
        ("event.not-before", "*", 0),
        ("event.not-before-deadline", "*", 0),
        ("operator.principal", "*", 0),
    ] {
        let found = describe(&cloud, &[("Filter.1.Name", name), ("Filter.1.Value.1", value)]).await;
        assert_eq!(found.all("instanceId").len(), count, "{name}={value}");
    }
    let undocumented = [("Filter.1.Name", "image-id"), ("Filter.1.Value.1", "ami-1")];
    assert_eq!(
        cloud.call("DescribeInstanceStatus", &undocumented).await.unwrap_err(),
        "InvalidParameterValue"
    );

    // Pages are full though others stand between.
    cloud.stop(&ids[5]).await;
    let (mut seen, mut sizes, mut token) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let mut parameters = vec![("MaxResults", "5")];
        parameters.extend(token.as_deref().map(|token| ("NextToken", token)));
        let page = describe(&cloud, &parameters).await;
        sizes.push(page.all("instanceId").len());
        seen.extend(page.all("instanceId").iter().map(|id| (*id).to_owned()));
        match page.all("nextToken")[..] {
            [next] => token = Some(next.to_owned()),
            _ => break,
        }
    }
    assert_eq!((seen.len(), &sizes[..]), (11, &[5, 5, 1][..]));
    let all = describe(&cloud, &[("IncludeAllInstances", "true")]).await;
    assert_eq!(all.all("instanceId").len(), 13);
    // One that is named and does not run is no error, and is not told of.
    let named = [("InstanceId.1", pending.as_str()), ("InstanceId.2", &ids[0])];
    assert_eq!(describe(&cloud, &named).await.all("instanceId"), [&ids[0]]);
    let named = [("InstanceId.1", pending.as_str()), ("MaxResults", "5")];
    let both = cloud.call("DescribeInstanceStatus", &named).await;
    assert_eq!(both.unwrap_err(), "InvalidParameterCombination");
}

#[tokio::test(start_paused = true)]
async fn of_a_host_that_is_away_nothing_is_known() {
    let cloud = Cloud::start().await;
    let id = running(&cloud).await;
    cloud.observe(&id, 1, InstanceObservation::Running, Some(PASSED));
    cloud.until(&id, |instance| instance.checks == Some((1, PASSED))).await;
    cloud.host_leaves();
    while statuses(&describe(&cloud, &[]).await)[0] == "ok" {
        tokio::task::yield_now().await;
    }
    assert_eq!(statuses(&describe(&cloud, &[]).await), ["insufficient-data"; 3]);
    cloud.host_returns();
    while statuses(&describe(&cloud, &[]).await)[0] != "ok" {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let events = cloud.1.events.after(0, 1000, std::time::Duration::ZERO).await;
    let host: Vec<&str> =
        events.iter().filter(|event| event.kind == "host").map(|event| event.message.as_str()).collect();
    assert_eq!(host, ["away", "back"]);
}
