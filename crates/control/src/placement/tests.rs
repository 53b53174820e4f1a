//! What the scheduler chooses, held against every rule on its own and every host one by one.

use super::*;
// Named, for proptest has a trait of that name.
use crate::placement_group::Strategy;
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn hosts(zones: usize, racks: usize, each: usize) -> Vec<Candidate<'static>> {
    let mut hosts = Vec::new();
    for zone in 0..zones {
        for rack in 0..racks {
            for host in 0..each {
                hosts.push(Candidate {
                    host_id: leak(format!("host-{zone}-{rack}-{host}")),
                    zone: leak(format!("zone-{zone}")),
                    rack: leak(format!("rack-{rack}")),
                    architecture: Architecture::X86_64,
                    away: false,
                    capacity: Load { vcpus: 16, memory_mib: 16 * 1024 },
                    load: Load::default(),
                    tenants: Tenants::default(),
                    allocation: None,
                });
            }
        }
    }
    hosts
}

fn request<'a>(zones: &'a [String], wanted: Load, group: Option<Group>) -> Request<'a> {
    Request {
        instance_type: "m5.large",
        architecture: Architecture::X86_64,
        wanted,
        zones,
        bound_to: None,
        tenancy: Tenancy::Default,
        dedicated_host_id: None,
        group,
    }
}

fn place(hosts: &mut [Candidate<'static>], group: &mut Group, zones: &[String]) -> Option<Choice> {
    let wanted = Load { vcpus: 2, memory_mib: 1024 };
    let choice = choose(hosts, &request(zones, wanted, Some(group.clone()))).ok()?;
    let host = hosts.iter_mut().find(|host| host.host_id == choice.host_id)?;
    host.load += wanted;
    group.members.push(Member { host_id: choice.host_id.clone(), partition: choice.partition });
    Some(choice)
}

fn group(strategy: Strategy, partition_count: u32, spread_level: SpreadLevel) -> Group {
    Group { strategy, partition_count, spread_level, partition: None, members: Vec::new() }
}

fn rack_of<'a>(hosts: &[Candidate<'a>], id: &str) -> Rack<'a> {
    rack(hosts.iter().find(|host| host.host_id == id).unwrap())
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![Just(Strategy::Cluster), Just(Strategy::Partition), Just(Strategy::Spread)]
}

fn levels() -> impl proptest::strategy::Strategy<Value = SpreadLevel> {
    prop_oneof![Just(SpreadLevel::Rack), Just(SpreadLevel::Host)]
}

fn tenancies() -> impl proptest::strategy::Strategy<Value = Tenancy> {
    prop_oneof![Just(Tenancy::Default), Just(Tenancy::Dedicated), Just(Tenancy::Host)]
}

/// Two zones of three racks of two hosts, each in some state that a cloud may leave it in.
fn worlds() -> impl proptest::strategy::Strategy<Value = Vec<Candidate<'static>>> {
    let state = (0u64..17, 0u8..8, 0u8..12, any::<bool>(), any::<bool>());
    proptest::collection::vec(state, 12).prop_map(|states| {
        let mut hosts = hosts(2, 3, 2);
        for (index, (host, (load, kind, arm, auto_placement, one_type))) in
            hosts.iter_mut().zip(states).enumerate()
        {
            host.load = Load { vcpus: load, memory_mib: load * 1024 };
            if arm == 0 {
                host.architecture = Architecture::Arm64;
            }
            match kind {
                0..=2 => host.tenants.default = load as u32,
                3..=4 => host.tenants.dedicated = load as u32,
                5 => host.load = Load::default(),
                _ => {
                    host.allocation = Some(Allocation {
                        dedicated_host_id: leak(format!("h-{index}")),
                        auto_placement,
                        instance_type: one_type.then_some("m5.large"),
                        instance_family: if kind == 6 { "m5" } else { "c5" },
                    });
                }
            }
        }
        hosts
    })
}

/// Whether every rule lets the request, in this partition, onto this host: each rule in its own words, by looking at
/// everything there is.
fn permitted(
    hosts: &[Candidate<'_>],
    request: &Request<'_>,
    host: &Candidate<'_>,
    partition: Option<u32>,
) -> bool {
    let named = request.dedicated_host_id;
    let by_tenancy = match (request.tenancy, &host.allocation) {
        (Tenancy::Default, allocation) => allocation.is_none() && host.tenants.dedicated == 0,
        (Tenancy::Dedicated, allocation) => allocation.is_none() && host.tenants.default == 0,
        (Tenancy::Host, None) => false,
        (Tenancy::Host, Some(allocation)) => {
            let wanted_here =
                named == Some(allocation.dedicated_host_id) || (named.is_none() && allocation.auto_placement);
            let type_fits = allocation.instance_type.map_or_else(
                || request.instance_type.starts_with(&format!("{}.", allocation.instance_family)),
                |only| only == request.instance_type,
            );
            wanted_here && type_fits
        }
    };
    let fits = host.load.vcpus + request.wanted.vcpus <= host.capacity.vcpus
        && host.load.memory_mib + request.wanted.memory_mib <= host.capacity.memory_mib;
    let place = |id: &str| hosts.iter().find(|host| host.host_id == id).map(|host| (host.zone, host.rack));
    let by_group = request.group.as_ref().is_none_or(|group| {
        let here = Some((host.zone, host.rack));
        let same_rack = |member: &&Member| place(&member.host_id) == here;
        let mut members = group.members.iter();
        match group.strategy {
            Strategy::Cluster => group.members.is_empty() || members.any(|member| same_rack(&member)),
            Strategy::Partition => {
                group.partition.is_none_or(|named| partition == Some(named))
                    && partition.is_some_and(|number| (1..=group.partition_count).contains(&number))
                    && members.filter(same_rack).all(|member| member.partition == partition)
            }
            Strategy::Spread => {
                let in_zone = members
                    .clone()
                    .filter(|member| place(&member.host_id).is_some_and(|at| at.0 == host.zone));
                in_zone.count() < 7
                    && match group.spread_level {
                        SpreadLevel::Rack => !members.any(|member| same_rack(&member)),
                        SpreadLevel::Host => !members.any(|member| member.host_id == host.host_id),
                    }
            }
        }
    });
    request.zones.iter().any(|zone| zone == host.zone)
        && host.architecture == request.architecture
        && request.bound_to.is_none_or(|id| id == host.host_id)
        && by_tenancy
        && fits
        && by_group
}

/// Members that obey their group's rules, at these hosts as far as they do.
fn members(hosts: &[Candidate<'_>], group: &mut Group, at: &[usize]) {
    let roomy: Vec<Candidate<'_>> = hosts
        .iter()
        .map(|host| Candidate {
            load: Load::default(),
            tenants: Tenants::default(),
            allocation: None,
            architecture: Architecture::X86_64,
            ..host.clone()
        })
        .collect();
    let zones = ["zone-0".to_owned(), "zone-1".to_owned()];
    for index in at {
        let asked = request(&zones, Load::default(), Some(group.clone()));
        let partition =
            (group.strategy == Strategy::Partition).then_some(*index as u32 % group.partition_count + 1);
        let host = &roomy[*index];
        if permitted(&roomy, &asked, host, partition) {
            group.members.push(Member { host_id: host.host_id.to_owned(), partition });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What is chosen breaks no rule, and a request is refused only where brute force finds no host for it.
    #[test]
    fn the_choice_is_as_brute_force_has_it(
        hosts in worlds(), tenancy in tenancies(), strategy in proptest::option::of(strategies()), level in levels(),
        partitions in 1u32..5, at in proptest::collection::vec(0usize..12, 0..9), named_partition in any::<bool>(),
        one_zone in any::<bool>(), wanted in 1u64..12, large in any::<bool>(),
        named_host in proptest::option::of(0usize..12), bound_to in proptest::option::weighted(0.2, 0usize..12),
    ) {
        let zones: Vec<String> = (0..if one_zone { 1 } else { 2 }).map(|zone| format!("zone-{zone}")).collect();
        let group = strategy.map(|strategy| {
            let mut group = group(strategy, partitions, level);
            members(&hosts, &mut group, &at);
            group.partition = (strategy == Strategy::Partition && named_partition).then_some(1);
            group
        });
        let name = named_host.map(|index| format!("h-{index}"));
        let request = Request {
            instance_type: if large { "m5.large" } else { "m5.xlarge" },
            tenancy,
            dedicated_host_id: name.as_deref(),
            bound_to: bound_to.map(|index| hosts[index].host_id),
            ..request(&zones, Load { vcpus: wanted, memory_mib: wanted * 1024 }, group)
        };
        let partitions: Vec<Option<u32>> = match &request.group {
            Some(group) if group.strategy == Strategy::Partition => (1..=group.partition_count).map(Some).collect(),
            _ => vec![None],
        };
        let possible = |host: &&Candidate<'_>| {
            partitions.iter().any(|partition| permitted(&hosts, &request, host, *partition))
        };
        match choose(&hosts, &request) {
            Ok(choice) => {
                let host = hosts.iter().find(|host| host.host_id == choice.host_id).unwrap();
                prop_assert!(permitted(&hosts, &request, host, choice.partition), "{choice:?}");
                let id = host.allocation.as_ref().map(|allocation| allocation.dedicated_host_id);
                prop_assert_eq!(choice.dedicated_host_id.as_deref(), id);
            }
            Err(refusals) => {
                prop_assert!(hosts.iter().find(possible).is_none());
                prop_assert_eq!(refusals.len(), hosts.len());
            }
        }
        // Of a partition group only a member is judged.
        if request.group.as_ref().is_none_or(|group| group.strategy != Strategy::Partition || group.partition.is_some()) {
            let partition = request.group.as_ref().and_then(|group| group.partition);
            for (host, refusal) in hosts.iter().zip(judge(&hosts, &request)) {
                prop_assert_eq!(refusal.is_none(), permitted(&hosts, &request, host, partition), "{}", host.host_id);
            }
        }
    }

    /// Whole hosts are empty ones, and are refused only where there are too few of them.
    #[test]
    fn whole_hosts_are_as_brute_force_has_them(hosts in worlds(), count in 1usize..5, wanted in 1u64..20) {
        let any_of = [Load { vcpus: wanted, memory_mib: 1 }, Load { vcpus: 1000, memory_mib: 1 }];
        let request = WholeRequest { zone: "zone-1", architecture: Architecture::X86_64, any_of: &any_of, count };
        let free: Vec<&str> = hosts
            .iter()
            .filter(|host| host.zone == "zone-1" && host.architecture == Architecture::X86_64)
            .filter(|host| host.load.vcpus == 0 && host.load.memory_mib == 0 && host.allocation.is_none())
            .filter(|host| wanted <= host.capacity.vcpus)
            .map(|host| host.host_id)
            .collect();
        match choose_whole(&hosts, &request) {
            Some(chosen) => {
                prop_assert_eq!(chosen.len(), count);
                prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "of hosts of one size");
                prop_assert!(chosen.iter().all(|id| free.contains(id)));
            }
            None => prop_assert!(free.len() < count),
        }
    }

    #[test]
    fn no_rule_is_ever_broken(
        zones in 1usize..3, racks in 1usize..5, each in 1usize..4, partitions in 1u32..8, count in 1usize..40,
        strategy in strategies(), level in levels(),
    ) {
        let mut hosts = hosts(zones, racks, each);
        let names: Vec<String> = (0..zones).map(|zone| format!("zone-{zone}")).collect();
        let mut group = group(strategy, partitions, level);
        for _ in 0..count {
            place(&mut hosts, &mut group, &names);
        }
        for host in &hosts {
            prop_assert!(host.load.vcpus <= host.capacity.vcpus && host.load.memory_mib <= host.capacity.memory_mib);
        }
        for (at, one) in group.members.iter().enumerate() {
            for other in &group.members[..at] {
                let same_rack = rack_of(&hosts, &one.host_id) == rack_of(&hosts, &other.host_id);
                match strategy {
                    Strategy::Cluster => prop_assert!(same_rack),
                    Strategy::Partition => prop_assert!(!same_rack || one.partition == other.partition),
                    Strategy::Spread if level == SpreadLevel::Rack => prop_assert!(!same_rack),
                    Strategy::Spread => prop_assert!(one.host_id != other.host_id),
                }
            }
        }
    }

    /// However launches of all tenancies follow each other, none ends beside one that it may not be with.
    #[test]
    fn tenancies_never_mix(asked in proptest::collection::vec((tenancies(), 1u64..5), 1..40), allocated in 0usize..4) {
        let mut hosts = hosts(1, 2, 3);
        for (index, host) in hosts.iter_mut().take(allocated).enumerate() {
            host.allocation = Some(Allocation {
                dedicated_host_id: leak(format!("h-{index}")),
                auto_placement: true,
                instance_type: None,
                instance_family: "m5",
            });
        }
        let zones = ["zone-0".to_owned()];
        let mut placed: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (tenancy, size) in asked {
            let wanted = Load { vcpus: size, memory_mib: size * 1024 };
            let Ok(choice) = choose(&hosts, &Request { tenancy, ..request(&zones, wanted, None) }) else { continue };
            let host = hosts.iter_mut().find(|host| host.host_id == choice.host_id).unwrap();
            host.load += wanted;
            host.tenants.add(tenancy);
            placed.entry(choice.host_id).or_default().insert(tenancy.name());
        }
        for (host_id, tenancies) in placed {
            let host = hosts.iter().find(|host| host.host_id == host_id).unwrap();
            prop_assert_eq!(tenancies.len(), 1, "{}: {:?}", host_id, tenancies);
            prop_assert_eq!(tenancies.contains("host"), host.allocation.is_some());
        }
    }
}

#[test]
fn partitions_are_balanced() {
    let mut hosts = hosts(1, 4, 3);
    let mut group = group(Strategy::Partition, 3, SpreadLevel::Rack);
    let zones = ["zone-0".to_owned()];
    let mut partitions: Vec<_> =
        (0..9).map(|_| place(&mut hosts, &mut group, &zones).unwrap().partition.unwrap()).collect();
    partitions.sort();
    assert_eq!(partitions, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
}

#[test]
fn a_spread_group_has_seven_instances_in_a_zone() {
    for level in [SpreadLevel::Rack, SpreadLevel::Host] {
        let mut hosts = hosts(2, 9, 1);
        let mut group = group(Strategy::Spread, 1, level);
        let zones = ["zone-0".to_owned()];
        for _ in 0..7 {
            place(&mut hosts, &mut group, &zones).unwrap();
        }
        let wanted = Load { vcpus: 2, memory_mib: 1024 };
        let refusals = choose(&hosts, &request(&zones, wanted, Some(group.clone()))).unwrap_err();
        assert!(refusals.values().all(|refusal| [Refusal::SpreadLimit, Refusal::Zone].contains(refusal)));
        let both = [zones[0].clone(), "zone-1".to_owned()];
        assert!(place(&mut hosts, &mut group, &both).unwrap().host_id.starts_with("host-1"));
    }
}

#[test]
fn a_host_that_is_taken_from_everybody_is_a_small_one() {
    let mut hosts = hosts(1, 1, 3);
    hosts[0].capacity.memory_mib *= 4;
    let zones = ["zone-0".to_owned()];
    let wanted = Load { vcpus: 1, memory_mib: 1024 };
    let dedicated = Request { tenancy: Tenancy::Dedicated, ..request(&zones, wanted, None) };
    assert_eq!(choose(&hosts, &dedicated).unwrap().host_id, "host-0-0-1");
    assert_eq!(choose(&hosts, &request(&zones, wanted, None)).unwrap().host_id, "host-0-0-0");
    let any_of = [wanted];
    let whole =
        WholeRequest { zone: "zone-0", architecture: Architecture::X86_64, any_of: &any_of, count: 2 };
    assert_eq!(choose_whole(&hosts, &whole).unwrap(), ["host-0-0-1", "host-0-0-2"]);
}

#[test]
fn the_other_architecture_is_refused_with_its_reason() {
    let zones = ["zone-0".to_owned()];
    let wanted = Load { vcpus: 1, memory_mib: 1 };
    let request = Request { architecture: Architecture::Arm64, ..request(&zones, wanted, None) };
    let refusals = choose(&hosts(1, 1, 1), &request).unwrap_err();
    assert_eq!(refusals.values().collect::<Vec<_>>(), [&Refusal::Architecture]);
}

#[test]
fn a_host_that_is_away_takes_nothing() {
    let mut hosts = hosts(1, 1, 2);
    hosts[0].away = true;
    let zones = ["zone-0".to_owned()];
    let wanted = Load { vcpus: 1, memory_mib: 1 };
    assert_eq!(choose(&hosts, &request(&zones, wanted, None)).unwrap().host_id, "host-0-0-1");
    let whole =
        WholeRequest { zone: "zone-0", architecture: Architecture::X86_64, any_of: &[wanted], count: 1 };
    assert_eq!(choose_whole(&hosts, &whole).unwrap(), ["host-0-0-1"]);
    let bound = Request { bound_to: Some("host-0-0-0"), ..request(&zones, wanted, None) };
    let refusals = choose(&hosts, &bound).unwrap_err();
    assert_eq!(refusals.values().collect::<Vec<_>>(), [&Refusal::Away, &Refusal::Volumes]);
}

#[test]
fn dedicated_instances_share_a_host_before_they_take_another() {
    let mut hosts = hosts(1, 1, 3);
    hosts[1].tenants.dedicated = 1;
    hosts[1].load = Load { vcpus: 8, memory_mib: 8 * 1024 };
    let zones = ["zone-0".to_owned()];
    let asked =
        Request { tenancy: Tenancy::Dedicated, ..request(&zones, Load { vcpus: 8, memory_mib: 1024 }, None) };
    assert_eq!(choose(&hosts, &asked).unwrap().host_id, "host-0-0-1");
    hosts[1].load.vcpus = 16;
    assert_eq!(choose(&hosts, &asked).unwrap().host_id, "host-0-0-0");
}
