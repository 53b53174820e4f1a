//! A cloud's network on a host of its own: namespaces stand for the host, for a machine outside and for guests, so
//! that real packets flow and the machine that runs the test is left alone.
//!
//! ```text
//!  outside ── wan ── host ══ LinuxNetwork ══ tap ── relay ── tap in the guest's namespace
//!  203.0.113.2    203.0.113.1
//!  2001:db8::2    2001:db8::1
//! ```

pub use datapath::examples::id;
use datapath::{Address, Interface, Peer, Plan, Protocol, Rule, SecurityGroup, Subnet, examples};
use host::net::{LinuxNetwork, Namespace, NetOptions, Network};
use ipnet::{Ipv4Net, Ipv6Net};
use model::{Id, Kind};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Long against a packet's way here, short against a test's patience.
pub const SILENCE: Duration = Duration::from_millis(400);
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The router on the link of every guest.
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xfc63, 0x6dff, 0xfe6c, 1);

pub struct Cloud {
    pub network: LinuxNetwork,
    pub plan: Plan,
    pub options: NetOptions,
    pub host: Machine,
    pub outside: Machine,
    _state: tempfile::TempDir,
}

/// Whether these tests can run here; says why where they can't.
pub fn possible() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "root"
    } else if Command::new("nft").arg("--version").output().is_err() {
        "nft (package nftables)"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "ip (package iproute2)"
    } else if !std::path::Path::new("/dev/net/tun").exists() {
        "/dev/net/tun"
    } else {
        return true;
    };
    eprintln!("skipped: a test with real packets needs {missing}");
    false
}

impl Cloud {
    pub async fn start() -> Cloud {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("t{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let state = tempfile::tempdir().unwrap();
        let host = Machine::new(&format!("{tag}-host")).await;
        let outside = Machine::new(&format!("{tag}-outside")).await;
        let peer = outside.name.clone();
        host.ip(&["link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", &peer]).await;
        for (machine, address, ipv6) in [(&host, HOST, HOST6), (&outside, OUTSIDE, OUTSIDE6)] {
            machine.ip(&["address", "add", &format!("{address}/24"), "dev", "wan"]).await;
            machine.ip(&["address", "add", &format!("{ipv6}/64"), "dev", "wan", "nodad"]).await;
            machine.ip(&["link", "set", "wan", "up"]).await;
        }
        let mut options = NetOptions::new(tag, "198.18.7.0/24".parse().unwrap(), state.path());
        options.host_namespace = Some(format!("/run/netns/{}", host.name).into());
        let network = LinuxNetwork::new(options.clone()).unwrap();
        Cloud { network, plan: Plan::default(), options, host, outside, _state: state }
    }

    /// One whose public addresses the outside has a route to: nobody lends guests his own.
    pub async fn start_known() -> Cloud {
        let mut cloud = Cloud::start().await;
        let pool = cloud.options.public_pool.to_string();
        cloud.outside.ip(&["route", "add", &pool, "via", &HOST.to_string()]).await;
        cloud.options.uplink = Some("none".into());
        cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
        cloud
    }

    /// A VPC with an internet gateway, one subnet that is all of it, and a group that allows what it sends.
    pub fn add_vpc(&mut self, number: u64, cidr: &str) -> Id {
        let vpc_id = id(Kind::Vpc, number);
        let cidr: Ipv4Net = cidr.parse().unwrap();
        self.plan.vpcs.push(datapath::Vpc {
            vpc_id: vpc_id.clone(),
            cidrs: vec![cidr],
            subnets: vec![Subnet { cidr: Some(cidr), ..examples::subnet(number, "0.0.0.0/0") }],
            ..examples::vpc(number)
        });
        vpc_id
    }

    /// Gives a VPC of one subnet a block of IPv6, and its subnet a part of that.
    pub fn add_ipv6(&mut self, vpc_id: &Id, cidr: &str) {
        let vpc = self.plan.vpcs.iter_mut().find(|vpc| vpc.vpc_id == *vpc_id).unwrap();
        let cidr: Ipv6Net = cidr.parse().unwrap();
        vpc.ipv6_cidrs.push(cidr);
        vpc.subnets[0].ipv6_cidr = Some(Ipv6Net::new(cidr.network(), 64).unwrap());
    }

    /// Gives an interface an address of IPv6.
    pub fn assign_ipv6(&mut self, interface_id: &Id, address: &str) -> Ipv6Addr {
        let address: Ipv6Addr = address.parse().unwrap();
        let interface = self.interface(interface_id);
        interface.ipv6_addresses.push(address);
        let (vpc_id, groups) = (interface.vpc_id.clone(), interface.groups.clone());
        for group in self.plan.groups.iter_mut().filter(|group| groups.contains(&group.group_id)) {
            group.members.entry(vpc_id.clone()).or_default().insert(IpAddr::from(address).into());
        }
        address
    }

    /// A group that lets everything out and, in, what the rules say.
    pub fn add_group(&mut self, number: u64, vpc_id: &Id, ingress: Vec<Rule>) -> Id {
        let group_id = id(Kind::SecurityGroup, number);
        self.plan.groups.push(SecurityGroup {
            group_id: group_id.clone(),
            vpc_id: vpc_id.clone(),
            ingress,
            egress: vec![any_from("0.0.0.0/0"), any_from("::/0")],
            members: BTreeMap::new(),
        });
        group_id
    }

    pub fn add_interface(&mut self, number: u64, vpc_id: &Id, address: &str, groups: &[&Id]) -> Id {
        let interface_id = id(Kind::NetworkInterface, number);
        let private_ip: Ipv4Addr = address.parse().unwrap();
        let vpc = self.plan.vpcs.iter().find(|vpc| vpc.vpc_id == *vpc_id).unwrap();
        let subnet = vpc
            .subnets
            .iter()
            .find(|subnet| subnet.cidr.is_some_and(|cidr| cidr.contains(&private_ip)))
            .unwrap();
        let mut mac = [0x02, 0, 0, 0, 0, 0];
        mac[4..].copy_from_slice(&(number as u16).to_be_bytes());
        self.plan.interfaces.push(Interface {
            interface_id: interface_id.clone(),
            vpc_id: vpc_id.clone(),
            subnet_id: subnet.subnet_id.clone(),
            mac,
            addresses: vec![Address { private_ip, public_ip: None }],
            groups: groups.iter().map(|id| (*id).clone()).collect(),
            ..examples::interface(number)
        });
        for group in self.plan.groups.iter_mut().filter(|group| groups.contains(&&group.group_id)) {
            group.members.entry(vpc_id.clone()).or_default().insert(IpAddr::from(private_ip).into());
        }
        interface_id
    }

    /// The first VPC with two interfaces, 10.0.0.5 and 10.0.0.6, of a group that lets all pass: VPC, group, both.
    pub fn add_two(&mut self) -> (Id, Id, [Id; 2]) {
        let vpc = self.add_vpc(1, "10.0.0.0/16");
        let open = self.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
        let two =
            [(1, "10.0.0.5"), (2, "10.0.0.6")].map(|(at, ip)| self.add_interface(at, &vpc, ip, &[&open]));
        (vpc, open, two)
    }

    /// Gives the interface's primary address a public one, or takes it.
    pub fn translate(&mut self, interface_id: &Id, public_ip: Option<Ipv4Addr>) {
        self.interface(interface_id).addresses[0].public_ip = public_ip;
    }

    pub fn interface(&mut self, interface_id: &Id) -> &mut Interface {
        self.plan.interfaces.iter_mut().find(|nic| nic.interface_id == *interface_id).unwrap()
    }

    pub fn group(&mut self, group_id: &Id) -> &mut SecurityGroup {
        self.plan.groups.iter_mut().find(|group| group.group_id == *group_id).unwrap()
    }

    pub async fn apply(&self) {
        self.network.apply(self.plan.clone()).await.unwrap();
    }

    /// Plugs a guest into an interface that is applied.
    pub async fn guest(&self, interface_id: &Id) -> Guest {
        let nic = self.plan.interfaces.iter().find(|nic| nic.interface_id == *interface_id).unwrap();
        let vpc = self.plan.vpcs.iter().find(|vpc| vpc.vpc_id == nic.vpc_id).unwrap();
        let tap = self.tap(interface_id).await;
        Guest::start(&format!("{}-{}", self.options.tag, &interface_id[18..]), tap, nic, vpc).await
    }

    /// The only queue of an interface's tap.
    pub async fn tap(&self, interface_id: &Id) -> OwnedFd {
        self.network.open_tap(interface_id, 1).await.unwrap().remove(0)
    }

    /// The links of a VPC's namespace, by index.
    pub async fn links(&self, vpc_id: &Id) -> String {
        let name = format!("cml-{}-{}", self.options.tag, &vpc_id[4..]);
        within(&name, &["ip", "-o", "link", "show"])
    }

    /// All that a driver may change of the host, and nothing that the kernel changes by itself in a new namespace
    /// (states of links, IPv6 routes).
    pub async fn host_state(&self) -> [String; 7] {
        let links = self.host.ip(&["-o", "link", "show"]).await;
        let names: Vec<&str> = links.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        [
            names.join(" "),
            self.host.ip(&["-4", "route", "show", "table", "all"]).await.replace(" linkdown", ""),
            self.host.ip(&["rule", "show"]).await,
            self.host.command("nft", &["list", "ruleset"]).await,
            self.host.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")).await.unwrap(),
            self.host
                .run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding"))
                .await
                .unwrap(),
            self.host.run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/wan/accept_ra")).await.unwrap(),
        ]
    }

    /// Namespaces that the driver has on this machine.
    pub fn namespaces(&self) -> Vec<String> {
        let ours = format!("cml-{}-", self.options.tag);
        let mut names = Namespace::names().unwrap();
        names.retain(|name| name.starts_with(&ours));
        names
    }
}

/// What a failed test leaves behind goes too.
impl Drop for Cloud {
    fn drop(&mut self) {
        for name in self.namespaces() {
            let _ = Namespace::remove(&name);
        }
    }
}

/// A namespace that stands for a machine.
pub struct Machine {
    pub name: String,
    pub namespace: Namespace,
}

impl Machine {
    pub async fn new(name: &str) -> Machine {
        let namespace = Namespace::create(name).await.unwrap();
        let machine = Machine { name: name.to_owned(), namespace };
        machine.ip(&["link", "set", "lo", "up"]).await;
        machine
    }

    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.namespace.run(work).await
    }

    pub async fn ip(&self, arguments: &[&str]) -> String {
        self.command("ip", arguments).await
    }

    pub async fn command(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.run(move || command.output()).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub async fn listen(&self, port: u16) -> TcpListener {
        self.run(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).await.unwrap()
    }

    pub async fn listen6(&self, port: u16) -> TcpListener {
        self.run(move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).await.unwrap()
    }

    pub async fn connect(&self, to: impl Into<IpAddr>, port: u16, wait: Duration) -> io::Result<TcpStream> {
        let to = SocketAddr::new(to.into(), port);
        self.run(move || TcpStream::connect_timeout(&to, wait)).await
    }

    pub async fn reaches(&self, to: impl Into<IpAddr>, port: u16) -> bool {
        self.connect(to, port, PATIENCE).await.is_ok()
    }

    /// Whether nothing at all comes back, as from EC2: a refusal would be an answer.
    pub async fn is_ignored(&self, to: impl Into<IpAddr>, port: u16) -> bool {
        matches!(self.connect(to, port, SILENCE).await, Err(error) if error.kind() == io::ErrorKind::TimedOut)
    }

    pub async fn udp(&self, port: u16) -> UdpSocket {
        let socket = self.run(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).await.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Sends one echo request; whether its reply came.
    pub async fn ping(&self, to: impl Into<IpAddr>, wait: Duration) -> bool {
        let to = to.into();
        self.run(move || {
            use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
            // Types of the question and of the answer, and what comes before that.
            let (family, protocol, question, answer, header) = match to {
                IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0, 20),
                IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129, 0),
            };
            let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol))?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(wait))?;
            // Type, code 0, checksum (over that of IPv6 the kernel writes), identifier and sequence number.
            let request = [question, 0, 0xe7, 0xfe, 0x10, 0x01, 0, 0];
            match rustix::net::sendto(&socket, &request, SendFlags::empty(), &SocketAddr::new(to, 0)) {
                Err(rustix::io::Errno::HOSTUNREACH) => return Ok(false),
                sent => sent?,
            };
            let mut packet = [0u8; 1500];
            loop {
                match rustix::net::recv(&socket, &mut packet, RecvFlags::empty()) {
                    Ok((length, _)) => {
                        let reply = &packet[header..length];
                        if reply[0] == answer && reply[4..6] == [0x10, 0x01] {
                            return Ok(true);
                        }
                    }
                    Err(rustix::io::Errno::AGAIN) => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
            }
        })
        .await
        .unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Namespace::remove(&self.name);
    }
}

/// A machine whose only card is on the other side of a tap of the cloud, as a virtual machine's is.
pub struct Guest {
    pub machine: Machine,
    pub address: Ipv4Addr,
    /// Ends the relay when dropped.
    _plug: OwnedFd,
}

impl std::ops::Deref for Guest {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Guest {
    pub async fn start(name: &str, tap: OwnedFd, nic: &Interface, vpc: &datapath::Vpc) -> Guest {
        let machine = Machine::new(name).await;
        let card = machine.run(open_card).await.unwrap();
        let subnet = vpc.subnets.iter().find(|subnet| subnet.subnet_id == nic.subnet_id).unwrap();
        let mac = nic.mac.map(|octet| format!("{octet:02x}")).join(":");
        machine.ip(&["link", "set", "eth0", "address", &mac, "mtu", "9001", "up"]).await;
        let private_ip = nic.primary().map(|own| own.private_ip);
        if let (Some(own), Some(cidr)) = (private_ip, subnet.cidr) {
            let address = format!("{own}/{}", cidr.prefix_len());
            machine.ip(&["address", "add", &address, "dev", "eth0"]).await;
            machine.ip(&["route", "add", "default", "via", &subnet.router().unwrap().to_string()]).await;
        }
        for address in &nic.ipv6_addresses {
            machine.ip(&["address", "add", &format!("{address}/128"), "dev", "eth0", "nodad"]).await;
        }
        if !nic.ipv6_addresses.is_empty() {
            machine.ip(&["-6", "route", "add", "default", "via", &ROUTER6.to_string(), "dev", "eth0"]).await;
        }
        let (plug, socket) = rustix::pipe::pipe().unwrap();
        std::thread::spawn(move || relay(tap, card, plug));
        Guest { machine, address: private_ip.unwrap_or(Ipv4Addr::UNSPECIFIED), _plug: socket }
    }
}

/// The guest's side: a tap with the same header as the cloud's, so that what the one puts out the other takes in.
fn open_card() -> io::Result<OwnedFd> {
    open_tap("eth0")
}

pub fn open_tap(name: &str) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    match unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&file), libc::TUNSETIFF, &request) } {
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
        if poll(&mut ready, None).is_err() || !ready[0].revents().is_empty() {
            return;
        }
        let ends = [ready[1].revents(), ready[2].revents()];
        if ends.iter().any(|events| events.intersects(PollFlags::ERR | PollFlags::HUP)) {
            return;
        }
        // A full queue drops frames, as a card's does.
        while let Ok(length) = tap.read(&mut frame) {
            let _ = card.write(&frame[..length]);
        }
        while let Ok(length) = card.read(&mut frame) {
            let _ = tap.write(&frame[..length]);
        }
    }
}

/// A connection: its end that began it, and the other.
pub type Flow = (TcpStream, TcpStream);

/// Holds that words come over both ways by the connections that shall live, and by no others.
#[track_caller]
pub fn assert_live<const N: usize>(flows: [&Flow; N], expected: [bool; N]) {
    let mut found = expected;
    for ((begun, taken), lives) in flows.into_iter().zip(&mut found) {
        let wait = if *lives { PATIENCE } else { SILENCE };
        *lives = carries(begun, taken, wait) && carries(taken, begun, wait);
    }
    assert_eq!(found, expected);
}

/// Whether a word comes over, if not at once then by then.
pub fn carries(mut from: &TcpStream, mut to: &TcpStream, wait: Duration) -> bool {
    let mut word = [0; 4];
    to.set_read_timeout(Some(wait)).unwrap();
    from.write_all(b"word").unwrap();
    to.read_exact(&mut word).is_ok()
}

pub fn any_from(cidr: &str) -> Rule {
    Rule { protocol: Protocol::All, peer: Peer::Cidr(cidr.parse().unwrap()) }
}

pub fn tcp_from(cidr: &str, port: u16) -> Rule {
    let protocol = Protocol::Tcp { from: port, to: port };
    Rule { protocol, peer: Peer::Cidr(cidr.parse().unwrap()) }
}

pub fn udp_from(cidr: &str, port: u16) -> Rule {
    let protocol = Protocol::Udp { from: port, to: port };
    Rule { protocol, peer: Peer::Cidr(cidr.parse().unwrap()) }
}

pub fn ping_from(cidr: &str) -> Rule {
    let protocol = Protocol::Icmp { kind: Some(8), code: None };
    Rule { protocol, peer: Peer::Cidr(cidr.parse().unwrap()) }
}

/// What a command prints in a named namespace. Not by `ip -n` or `ip netns exec`: they do more than they need, which
/// a chroot forbids.
pub fn within(namespace: &str, command: &[&str]) -> String {
    let output =
        Command::new("nsenter").arg(format!("--net=/run/netns/{namespace}")).args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Seconds until the kernel forgets a flow of the protocol that stays idle. It lists flows while others come and go, and
/// may leave some out: then it is asked again.
pub fn forgotten_in(router: &str, protocol: &str, ends: &str) -> Option<u32> {
    (0..10).find_map(|_| {
        let tracked = within(router, &["cat", "/proc/net/nf_conntrack"]);
        let flow = tracked.lines().find(|line| line.contains(protocol) && line.contains(ends))?;
        flow.split_whitespace().nth(4)?.parse().ok()
    })
}
