//! What holds of every cloud at every moment, worked out from the records alone and not by the code under test.

use agent_api::HostDescription;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What an instance holds while it takes up a host.
#[derive(Clone, Debug)]
pub struct Held {
    pub instance: String,
    pub host: String,
    pub vcpus: u64,
    pub memory_mib: u64,
    /// Instances of different tenancies never share a host.
    pub tenancy: &'static str,
    pub group: Option<Group>,
}

#[derive(Clone, Debug)]
pub struct Group {
    pub id: String,
    pub rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    Cluster,
    Partition(u32),
    Spread,
}

/// A thing and who has it; nobody else may.
pub type Owned = (String, String);

/// What is wrong, a line each.
pub fn violations(hosts: &[HostDescription], held: &[Held], owned: &[Owned]) -> Vec<String> {
    let by_id: HashMap<&str, &HostDescription> =
        hosts.iter().map(|host| (host.host_id.as_str(), host)).collect();
    let mut wrong = Vec::new();
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (thing, owner) in owned {
        match owners.insert(thing, owner) {
            Some(other) if other != owner => wrong.push(format!("{thing} is of {other} and of {owner}")),
            _ => {}
        }
    }
    let mut taken: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut tenants: BTreeMap<&str, &Held> = BTreeMap::new();
    let mut racks: BTreeMap<&str, Vec<(&Held, &str)>> = BTreeMap::new();
    for one in held {
        let Some(host) = by_id.get(one.host.as_str()) else {
            wrong.push(format!("{} is on {}, which is no host", one.instance, one.host));
            continue;
        };
        let first = tenants.entry(&one.host).or_insert(one);
        if first.tenancy != one.tenancy {
            wrong.push(format!("{} and {} share {}", first.instance, one.instance, one.host));
        }
        let sum = taken.entry(&one.host).or_default();
        *sum = (sum.0 + one.vcpus, sum.1 + one.memory_mib);
        if let Some(group) = &one.group {
            racks.entry(&group.id).or_default().push((one, &host.rack));
        }
    }
    for (host, (vcpus, memory_mib)) in taken {
        let most = u64::from(by_id[host].cores) * control::placement::VCPU_OVERCOMMIT;
        if vcpus > most || memory_mib > by_id[host].memory_mib {
            wrong.push(format!("{host} is oversold: {vcpus} of {most} vCPUs, {memory_mib} MiB"));
        }
    }
    for (group, members) in racks {
        wrong.extend(broken(group, &members));
    }
    wrong
}

fn broken(group: &str, members: &[(&Held, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, (one, rack)) in members.iter().enumerate() {
        for (other, other_rack) in &members[..at] {
            let rules = [one, other].map(|held| held.group.as_ref().map(|group| &group.rule));
            let holds = match rules {
                [Some(Rule::Cluster), _] => rack == other_rack,
                [Some(Rule::Spread), _] => rack != other_rack,
                [Some(Rule::Partition(a)), Some(Rule::Partition(b))] => a == b || rack != other_rack,
                _ => false,
            };
            if !holds {
                wrong.push(format!(
                    "{} and {} break {group}: {rack}, {other_rack}",
                    one.instance, other.instance
                ));
            }
        }
    }
    wrong
}

/// Instances that were promised and have no record.
pub fn lost(acknowledged: &BTreeSet<String>, recorded: &BTreeSet<String>) -> Vec<String> {
    acknowledged.difference(recorded).map(|id| format!("{id} was acknowledged and is not there")).collect()
}

#[test]
fn what_is_wrong_is_told() {
    let host = |number: u32, rack: &str| HostDescription {
        host_id: format!("h{number}"),
        protocol_version: agent_api::PROTOCOL_VERSION,
        architecture: agent_api::Architecture::X86_64,
        cores: 1,
        memory_mib: 1024,
        disk_gib: 10,
        zone: 0,
        rack: rack.into(),
        acceleration: "simulated".into(),
        links: Vec::new(),
    };
    let hosts = [host(1, "a"), host(2, "a"), host(3, "b")];
    let held = |instance: &str, host: &str, rule: Option<Rule>| Held {
        instance: instance.into(),
        host: host.into(),
        vcpus: 2,
        memory_mib: 512,
        tenancy: "default",
        group: rule.map(|rule| Group { id: "g".into(), rule }),
    };
    let count = |held: &[Held]| violations(&hosts, held, &[]).len();
    let two = |one: &str, other: &str, rules: [Rule; 2]| {
        let [first, second] = rules;
        count(&[held("i1", one, Some(first)), held("i2", other, Some(second))])
    };
    assert_eq!(count(&[held("i1", "h1", None), held("i2", "h1", None)]), 0);
    assert_eq!(count(&[held("i1", "h1", None), held("i2", "h1", None), held("i3", "h1", None)]), 1);
    assert_eq!(count(&[held("i1", "nowhere", None)]), 1);
    assert_eq!(two("h1", "h3", [Rule::Cluster, Rule::Cluster]), 1);
    assert_eq!(two("h1", "h2", [Rule::Cluster, Rule::Cluster]), 0);
    assert_eq!(two("h1", "h2", [Rule::Spread, Rule::Spread]), 1);
    assert_eq!(two("h1", "h3", [Rule::Spread, Rule::Spread]), 0);
    assert_eq!(two("h1", "h2", [Rule::Partition(1), Rule::Partition(2)]), 1);
    assert_eq!(two("h1", "h2", [Rule::Partition(1), Rule::Partition(1)]), 0);
    let dedicated = Held { tenancy: "dedicated", ..held("i2", "h1", None) };
    assert_eq!(count(&[held("i1", "h1", None), dedicated]), 1);
    let owned = |owner: &str| ("10.0.0.1".to_owned(), owner.to_owned());
    assert_eq!(violations(&hosts, &[], &[owned("a"), owned("b")]).len(), 1);
    assert_eq!(violations(&hosts, &[], &[owned("a"), owned("a")]).len(), 0);
    assert_eq!(lost(&["i1".to_owned()].into(), &BTreeSet::new()).len(), 1);
}
