//! What a guest meets: an agent on the real network, with namespaces for machines. Each guest gets its address from
//! a real DHCP client over its tap, and asks for its metadata and for names as any Linux would.

use agent::{Agent, AgentOptions, DiskError, DiskFile, Disks, Freeze};
use agent_api::*;
use async_trait::async_trait;
use datapath::{Address, examples};
use host::machine::{
    DiskFormat, DiskLayer, DiskLimits, DiskSpec, Ended, Found, Hypervisor, LayerSource, MachineError,
    MachineSpec, NicSpec, Status, Tap,
};
use host::net::{LinuxNetwork, Namespace, NetOptions, Network};
use model::{Environment, Id, Kind, UefiVariable};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// Whether this can run here; says why where it can't.
fn is_possible() -> bool {
    let works = |program: &str, argument: &str| Command::new(program).arg(argument).output().is_ok();
    let missing = if !rustix::process::geteuid().is_root() {
        "root"
    } else if !works("nft", "--version") || !works("ip", "-V") {
        "nft and ip (packages nftables, iproute2)"
    } else if !works("busybox", "--help") || !works("curl", "--version") {
        "busybox and curl"
    } else if !std::path::Path::new("/dev/net/tun").exists() {
        "/dev/net/tun"
    } else {
        return true;
    };
    eprintln!("skipped: a test with real packets needs {missing}");
    false
}

/// Runs an instance as a namespace whose only card is on the other side of the instance's tap.
struct Namespaces {
    prefix: String,
    machines: Mutex<HashMap<Id, (Namespace, OwnedFd)>>,
}

impl Namespaces {
    fn name(&self, instance_id: &Id) -> String {
        format!("{}-{}", self.prefix, &instance_id[16..])
    }

    /// Runs a command in the guest.
    async fn run(&self, instance_id: &Id, program: &str, arguments: &[&str]) -> Output {
        let namespace = Namespace::open(&self.name(instance_id)).unwrap().unwrap();
        let mut command = Command::new(program);
        command.args(arguments);
        namespace.run(move || command.output()).await.unwrap()
    }

    /// What curl printed, after the status.
    async fn curl(&self, instance_id: &Id, arguments: &[&str], path: &str) -> String {
        let url = format!("http://169.254.169.254{path}");
        let fixed = ["-s", "--max-time", "20", "-w", "\n%{http_code}", &url];
        let output = self.run(instance_id, "curl", &[arguments, &fixed].concat()).await;
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for instance_id in self.machines.lock().unwrap().keys() {
            let _ = Namespace::remove(&self.name(instance_id));
        }
    }
}

#[async_trait]
impl Hypervisor for Namespaces {
    async fn start(&self, spec: MachineSpec, mut taps: Vec<Tap>) -> Result<(), MachineError> {
        let namespace = Namespace::create(&self.name(&spec.instance_id)).await.unwrap();
        let card = namespace.run(open_card).await.unwrap();
        let mac = spec.nics[0].mac.map(|octet| format!("{octet:02x}")).join(":");
        let (plug, socket) = rustix::pipe::pipe().unwrap();
        let tap = taps.remove(0).remove(0);
        std::thread::spawn(move || relay(tap, card, plug));
        self.machines.lock().unwrap().insert(spec.instance_id.clone(), (namespace, socket));
        let up = ["link", "set", "eth0", "address", &mac, "up"];
        assert!(self.run(&spec.instance_id, "ip", &up).await.status.success());
        Ok(())
    }

    fn shared_layer(&self, volume_id: &Id) -> DiskLayer {
        DiskLayer { path: volume_id.as_str().into(), format: DiskFormat::Shared }
    }

    fn serve_layers(&self, _source: Arc<dyn LayerSource>) {}

    async fn adopt(&self) -> Result<Vec<Found>, MachineError> {
        Ok(Vec::new())
    }

    async fn press_power_button(&self, _instance_id: &Id) -> Result<(), MachineError> {
        Ok(())
    }

    async fn end(&self, instance_id: &Id) -> Result<(), MachineError> {
        if self.machines.lock().unwrap().remove(instance_id).is_some() {
            Namespace::remove(&self.name(instance_id)).unwrap();
        }
        Ok(())
    }

    async fn limit_disk(
        &self,
        _instance_id: &Id,
        _volume_id: &Id,
        _limits: Option<DiskLimits>,
    ) -> Result<(), MachineError> {
        Ok(())
    }

    async fn attached(&self, _instance_id: &Id) -> Result<BTreeSet<Id>, MachineError> {
        Ok(BTreeSet::new())
    }

    async fn attach_disk(&self, _instance_id: &Id, _disk: DiskSpec) -> Result<(), MachineError> {
        Ok(())
    }

    async fn detach_disk(
        &self,
        _instance_id: &Id,
        _disk: DiskSpec,
        _force: bool,
    ) -> Result<bool, MachineError> {
        Ok(true)
    }

    async fn attach_nic(&self, _instance_id: &Id, _nic: NicSpec, _tap: Tap) -> Result<(), MachineError> {
        Ok(())
    }

    async fn detach_nic(
        &self,
        _instance_id: &Id,
        _interface_id: &Id,
        _force: bool,
    ) -> Result<bool, MachineError> {
        Ok(true)
    }

    async fn freeze_disks(&self, _instance_id: &Id, _disks: Vec<DiskSpec>) -> Result<(), MachineError> {
        Ok(())
    }

    async fn pause(&self, _instance_id: &Id) -> Result<(), MachineError> {
        Ok(())
    }

    async fn resume(&self, _instance_id: &Id) -> Result<(), MachineError> {
        Ok(())
    }

    async fn rebase_disk(
        &self,
        _instance_id: &Id,
        _disk: DiskSpec,
        _before: Vec<DiskLayer>,
    ) -> Result<(), MachineError> {
        Ok(())
    }

    async fn resize_disk(&self, _instance_id: &Id, _volume_id: &Id, _bytes: u64) -> Result<(), MachineError> {
        Ok(())
    }

    async fn status(&self, _instance_id: &Id) -> Result<Status, MachineError> {
        Ok(Status::Runs)
    }

    fn cpu_time(&self, _instance_id: &Id) -> Option<Duration> {
        None
    }

    async fn limit_cpu(
        &self,
        _instance_id: &Id,
        _processors_milli: Option<u32>,
    ) -> Result<bool, MachineError> {
        Ok(false)
    }

    async fn forget(&self, _instance_id: &Id) -> Result<(), MachineError> {
        Ok(())
    }

    fn ends(&self) -> UnboundedReceiver<Ended> {
        tokio::sync::mpsc::unbounded_channel().1
    }

    async fn console_output(&self, instance_id: &Id, _limit: usize) -> Result<Vec<u8>, MachineError> {
        Err(MachineError::NotFound(instance_id.clone()))
    }

    async fn console_screenshot(&self, instance_id: &Id) -> Result<Vec<u8>, MachineError> {
        Err(MachineError::NotFound(instance_id.clone()))
    }

    async fn uefi_variables(&self, instance_id: &Id) -> Result<Option<Vec<UefiVariable>>, MachineError> {
        Err(MachineError::NotFound(instance_id.clone()))
    }
}

/// A tap with the same header as the host's, so that what the one puts out the other takes in.
fn open_card() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request is an ifreq that lives through the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Carries frames both ways until the plug is pulled.
fn relay(tap: OwnedFd, card: OwnedFd, plug: OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    let (mut tap, mut card) = (std::fs::File::from(tap), std::fs::File::from(card));
    let mut frame = vec![0u8; 65_600];
    loop {
        let mut ready = [
            PollFd::from_borrowed_fd(plug.as_fd(), PollFlags::empty()),
            PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(card.as_fd(), PollFlags::IN),
        ];
        let failed = poll(&mut ready, None).is_err();
        let ended = |index: usize| ready[index].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        if failed || (0..3).any(ended) {
            return;
        }
        while let Ok(length) = tap.read(&mut frame) {
            let _ = card.write(&frame[..length]);
        }
        while let Ok(length) = card.read(&mut frame) {
            let _ = tap.write(&frame[..length]);
        }
    }
}

struct NoDisks;

#[async_trait]
impl Disks for NoDisks {
    async fn list(&self) -> Result<Vec<Id>, DiskError> {
        Ok(Vec::new())
    }

    async fn ensure(&self, _volume: &Volume) -> Result<(), DiskError> {
        Ok(())
    }

    async fn open(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        self.layers(volume_id).await
    }

    async fn layers(&self, _volume_id: &Id) -> Result<DiskFile, DiskError> {
        Ok(DiskFile { layers: Vec::new(), key: None })
    }

    async fn begin_freeze(
        &self,
        _snapshots: &[NewSnapshot],
        _instance_id: Option<&Id>,
    ) -> Result<Option<Freeze>, DiskError> {
        Ok(None)
    }

    async fn freezes(&self) -> Result<Vec<Freeze>, DiskError> {
        Ok(Vec::new())
    }

    async fn finish_freeze(&self, _key: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn fold(&self, _volume_id: &Id) -> Result<Option<Vec<DiskLayer>>, DiskError> {
        Ok(None)
    }

    async fn undo_freeze(&self, _key: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn delete(&self, _volume_id: &Id) -> Result<(), DiskError> {
        Ok(())
    }
}

fn id(kind: Kind, number: u32) -> Id {
    Id::parse(kind, &format!("{}-0{number:016x}", kind.prefix())).unwrap()
}

fn vpc() -> Vpc {
    Vpc {
        generation: 1,
        network: datapath::Vpc {
            vpc_id: id(Kind::Vpc, std::process::id()),
            cidrs: vec!["172.31.0.0/16".parse().unwrap()],
            subnets: vec![examples::subnet(1, "172.31.16.0/20")],
            internet_gateway: false,
            ..examples::vpc(1)
        },
        dns_domain: "ec2.internal".into(),
        dns_support: true,
        dns_hostnames: true,
        dns64_subnets: Default::default(),
        dhcp_options: DhcpOptions { domain_name: Some("ec2.internal".into()), ..DhcpOptions::default() },
    }
}

fn instance(number: u8) -> Instance {
    Instance {
        instance_id: id(Kind::Instance, number.into()),
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
            vcpus: 1,
            threads_per_core: 1,
            memory_mib: 64,
            credits: None,
            interfaces_max: 1,
            instance_store: vec![],
        },
        interfaces: vec![Interface {
            network: datapath::Interface {
                interface_id: id(Kind::NetworkInterface, std::process::id() << 8 | u32::from(number)),
                vpc_id: vpc().network.vpc_id,
                addresses: vec![Address {
                    private_ip: Ipv4Addr::new(172, 31, 16, 10 + number),
                    public_ip: None,
                }],
                ..examples::interface(number.into())
            },
            device_index: 0,
            delete_on_termination: true,
            queues: None,
            detach: None,
        }],
        efa_only: Vec::new(),
        disks: Vec::new(),
        metadata: Metadata {
            account_id: "123456789012".into(),
            region: "us-east-1".into(),
            availability_zone: "us-east-1a".into(),
            availability_zone_id: "use1-az1".into(),
            ami_id: id(Kind::Image, 1),
            ami_launch_index: 0,
            reservation_id: id(Kind::Reservation, 1),
            launched_at: "2026-03-01T12:00:00Z".parse().unwrap(),
            local_hostname: format!("ip-172-31-16-{}.ec2.internal", 10 + number),
            public_hostname: None,
            resource_a_record: true,
            resource_aaaa_record: false,
            security_group_names: vec!["default".into()],
            public_key: None,
            user_data: Some(format!("I am {number}").into_bytes()),
            tags: BTreeMap::new(),
            partition_number: None,
            placement_group: None,
            host_id: None,
        },
        metadata_options: MetadataOptions {
            enabled: true,
            tokens_required: true,
            hop_limit: 1,
            instance_tags: false,
            ipv6: false,
        },
    }
}

/// What a client of SNTP is answered, and the seconds since 1970 by its own clock.
fn ask_the_time() -> io::Result<(Vec<u8>, u64)> {
    let client = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    client.connect((Ipv4Addr::new(169, 254, 169, 123), 123))?;
    let mut request = [0; 48];
    request[0] = 4 << 3 | 3;
    client.send(&request)?;
    let mut answer = vec![0; 100];
    let length = client.recv(&mut answer)?;
    answer.truncate(length);
    let now = Environment::system().clock.now().as_second();
    Ok((answer, now.unsigned_abs()))
}

/// What udhcpc calls with each change: takes the address, and writes down what it was given.
const DHCP_SCRIPT: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
echo "$ip/$mask $router $dns $domain $hostname $mtu $lease $serverid" > "$(dirname "$0")/$interface-$ip"
ip link set "$interface" mtu "$mtu"
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_its_address_its_metadata_and_names_and_no_other_guests() {
    if !is_possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tag = format!("a{}", std::process::id());
    let host_name = format!("{tag}-host");
    let _host = Namespace::create(&host_name).await.unwrap();
    let mut options = NetOptions::new(&tag, "198.18.9.0/24".parse().unwrap(), dir.path().join("net"));
    options.host_namespace = Some(format!("/run/netns/{host_name}").into());
    let network = Arc::new(LinuxNetwork::new(options).unwrap());
    let machines = Arc::new(Namespaces { prefix: format!("{tag}-guest"), machines: Mutex::default() });
    let agent = Agent::start(
        AgentOptions::new(dir.path().join("agent")),
        machines.clone(),
        network.clone(),
        Arc::new(NoDisks),
        Environment::system(),
        HostDescription {
            host_id: "h-1".into(),
            protocol_version: PROTOCOL_VERSION,
            architecture: Architecture::X86_64,
            cores: 1,
            memory_mib: 1024,
            disk_gib: 1,
            zone: 0,
            rack: "r1".into(),
            acceleration: "none".into(),
            links: Vec::new(),
        },
    )
    .await
    .unwrap();
    let result = tokio::spawn(story(agent.clone(), machines.clone(), dir.path().to_owned())).await;
    drop(agent);
    network.remove_all().await.unwrap();
    Namespace::remove(&host_name).unwrap();
    result.unwrap();
}

async fn story(agent: Arc<Agent>, machines: Arc<Namespaces>, dir: PathBuf) {
    let mut desired = Desired::default();
    desired.vpcs.insert(vpc().network.vpc_id, vpc());
    for number in 1..=2 {
        desired.instances.insert(instance(number).instance_id, instance(number));
    }
    let mut observations = agent.observe();
    agent.replace(desired).await;
    let mut running = 0;
    while running < 2 {
        let observed = tokio::time::timeout(Duration::from_secs(30), observations.recv()).await.unwrap();
        let Some(Observation::Instance(observed)) = observed else { panic!("{observed:?}") };
        assert!(!matches!(observed.state, InstanceObservation::Failed { .. }), "{observed:?}");
        running += usize::from(observed.state == InstanceObservation::Running);
    }
    let (one, two) = (instance(1).instance_id, instance(2).instance_id);

    let script = dir.join("dhcp");
    std::fs::write(&script, DHCP_SCRIPT).unwrap();
    rustix::fs::chmod(&script, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    let ask = ["udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1", "-O", "mtu", "-s"];
    let ask = [&ask[..], &[script.to_str().unwrap()]].concat();
    for (guest, last, given) in [(&one, 11, "ip-172-31-16-11"), (&two, 12, "ip-172-31-16-12")] {
        let output = machines.run(guest, "busybox", &ask).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lease = std::fs::read_to_string(dir.join(format!("eth0-172.31.16.{last}"))).unwrap();
        let expected = "/20 172.31.16.1 172.31.0.2 ec2.internal";
        assert_eq!(lease, format!("172.31.16.{last}{expected} {given} 9001 3600 172.31.16.1\n"));
    }

    assert!(machines.curl(&one, &[], "/latest/user-data").await.ends_with("401"), "no token");
    let ttl = ["-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60"];
    let mut tokens = Vec::new();
    for guest in [&one, &two] {
        let answer = machines.curl(guest, &ttl, "/latest/api/token").await;
        let (token, status) = answer.rsplit_once('\n').unwrap();
        assert_eq!(status, "200", "{answer}");
        tokens.push(format!("X-aws-ec2-metadata-token: {token}"));
    }
    let forwarded = [&ttl[..], &["-H", "X-Forwarded-For: 1.2.3.4"]].concat();
    assert!(machines.curl(&one, &forwarded, "/latest/api/token").await.ends_with("403"));
    for (guest, token, expected) in [(&one, &tokens[0], "I am 1\n200"), (&two, &tokens[1], "I am 2\n200")] {
        assert_eq!(machines.curl(guest, &["-H", token], "/latest/user-data").await, expected);
    }
    let stolen = machines.curl(&two, &["-H", &tokens[0]], "/latest/user-data").await;
    assert!(stolen.ends_with("401"), "{stolen}");
    let document =
        machines.curl(&one, &["-H", &tokens[0]], "/latest/dynamic/instance-identity/document").await;
    assert!(document.contains("\"privateIp\" : \"172.31.16.11\"") && document.ends_with("200"), "{document}");

    for (name, expected) in
        [("ip-172-31-16-12.ec2.internal", "172.31.16.12"), ("instance-data.ec2.internal", "169.254.169.254")]
    {
        for server in ["172.31.0.2", "169.254.169.253"] {
            let output = machines.run(&one, "busybox", &["nslookup", name, server]).await;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains(&format!("Address: {expected}\n")), "{name} at {server}: {said}");
        }
    }

    let namespace = Namespace::open(&machines.name(&one)).unwrap().unwrap();
    let (answer, now) = namespace.run(ask_the_time).await.unwrap();
    assert_eq!((answer.len(), answer[0] & 7), (48, 4), "{answer:?}");
    // Seconds since 1900.
    let told = u32::from_be_bytes(answer[40..44].try_into().unwrap());
    let told = u64::from(told) - 2_208_988_800;
    assert!(now.abs_diff(told) < 5, "{told}, and it is {now}");

    agent.apply(vec![Change::RemoveInstance(one.clone()), Change::RemoveInstance(two)]).await;
    let mut removed = 0;
    while removed < 2 {
        let observed = tokio::time::timeout(Duration::from_secs(30), observations.recv()).await.unwrap();
        let Some(Observation::Instance(observed)) = observed else { panic!("{observed:?}") };
        removed += usize::from(observed.state == InstanceObservation::Removed);
    }
}
