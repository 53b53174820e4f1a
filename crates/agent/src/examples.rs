//! Plain desires for tests to start from.

use agent_api::*;
use datapath::{Address, Bandwidth, Peer, Protocol, Rule};
use model::{Id, Timestamp};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A well-formed id of a kind that the number tells from others.
pub(crate) fn id(kind: model::Kind, number: u32) -> Id {
    Id::parse(kind, &format!("{}-0{number:016x}", kind.prefix())).unwrap()
}

pub(crate) fn host_description() -> HostDescription {
    HostDescription {
        host_id: "h-00000000000000001".into(),
        protocol_version: PROTOCOL_VERSION,
        architecture: Architecture::X86_64,
        cores: 2,
        memory_mib: 8192,
        disk_gib: 100,
        zone: 0,
        rack: "r1".into(),
        acceleration: "tcg".into(),
        links: Vec::new(),
    }
}

pub(crate) fn vpc() -> Vpc {
    Vpc {
        generation: 1,
        network: datapath::Vpc {
            cidrs: vec!["172.31.0.0/16".parse().unwrap()],
            subnets: vec![datapath::examples::subnet(1, "172.31.16.0/20")],
            ..datapath::examples::vpc(1)
        },
        dns_domain: "ec2.internal".into(),
        dns_support: true,
        dns_hostnames: true,
        dns64_subnets: Default::default(),
        dhcp_options: DhcpOptions { domain_name: Some("ec2.internal".into()), ..DhcpOptions::default() },
    }
}

pub(crate) fn security_group() -> SecurityGroup {
    SecurityGroup {
        generation: 1,
        network: datapath::SecurityGroup {
            group_id: id(model::Kind::SecurityGroup, 1),
            vpc_id: vpc().network.vpc_id,
            ingress: Vec::new(),
            egress: vec![Rule { protocol: Protocol::All, peer: Peer::Cidr("0.0.0.0/0".parse().unwrap()) }],
            members: [(id(model::Kind::Vpc, 1), ["172.31.16.11/32".parse().unwrap()].into())].into(),
        },
    }
}

pub(crate) fn volume(number: u32) -> Volume {
    Volume {
        volume_id: id(model::Kind::Volume, number),
        generation: 1,
        size_gib: 8,
        snapshot_id: Some(id(model::Kind::Snapshot, 1)),
        made: false,
        key: None,
        snapshot_key: None,
        multi_attach: None,
        initialization_mibps: None,
    }
}

pub(crate) fn disk_limits(per_second: u64) -> DiskLimits {
    DiskLimits {
        operations: Rate { per_second, burst: None },
        bytes: Rate { per_second: 125 << 20, burst: None },
        operation_bytes: 256 << 10,
    }
}

/// On, at its first boot, with one interface at 172.31.16.(10 + number) and one root volume.
pub(crate) fn instance(number: u32) -> Instance {
    let private_ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 31, 16, 10)) + number);
    let [a, b, c, d] = private_ip.octets();
    Instance {
        instance_id: id(model::Kind::Instance, number),
        generation: 1,
        request_id: None,
        power: Power::On,
        boot: 1,
        machine: Machine {
            instance_type: "t3.micro".into(),
            architecture: Architecture::X86_64,
            boot_mode: BootMode::LegacyBios,
            uefi_variables: vec![],
            tpm: false,
            disk_bus: DiskBus::Virtio,
            vcpus: 2,
            threads_per_core: 2,
            memory_mib: 1024,
            credits: None,
            interfaces_max: 2,
            instance_store: vec![],
        },
        interfaces: vec![Interface {
            network: datapath::Interface {
                mac: [0x02, 0x00, a, b, c, d],
                addresses: vec![Address { private_ip, public_ip: Some(Ipv4Addr::new(203, 0, 113, d)) }],
                groups: vec![security_group().network.group_id],
                bandwidth: Some(Bandwidth { baseline: 64_000_000, peak: 5_000_000_000 }),
                ..datapath::examples::interface(number.into())
            },
            device_index: 0,
            delete_on_termination: true,
            queues: None,
            detach: None,
        }],
        efa_only: Vec::new(),
        disks: vec![Disk {
            volume_id: volume(number).volume_id,
            device_name: "/dev/xvda".into(),
            root: true,
            limits: Some(disk_limits(3000)),
            detach: None,
        }],
        metadata: Metadata {
            account_id: "123456789012".into(),
            region: "us-east-1".into(),
            availability_zone: "us-east-1a".into(),
            availability_zone_id: "use1-az1".into(),
            ami_id: id(model::Kind::Image, 1),
            ami_launch_index: 0,
            reservation_id: id(model::Kind::Reservation, 1),
            launched_at: "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap(),
            local_hostname: format!("ip-{a}-{b}-{c}-{d}.ec2.internal"),
            public_hostname: Some(format!("ec2-203-0-113-{d}.compute-1.amazonaws.com")),
            resource_a_record: true,
            resource_aaaa_record: false,
            security_group_names: vec!["default".into()],
            public_key: Some(("my-key".into(), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample my-key".into())),
            user_data: Some(b"#!/bin/sh\necho hello\n".to_vec()),
            tags: BTreeMap::from([("Name".into(), "web".into())]),
            partition_number: None,
            placement_group: None,
            host_id: None,
        },
        metadata_options: MetadataOptions {
            enabled: true,
            tokens_required: false,
            hop_limit: 2,
            instance_tags: false,
            ipv6: false,
        },
    }
}
