//! A network that is only told, for tests of those who drive one: plans are kept, not carried out; services listen
//! on the loopback interface.

use async_trait::async_trait;
use datapath::{Interface, Plan};
use model::Id;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

use super::linux::JUMBO;
use super::{NetError, Network, ServiceSockets, io_failed, services, vpc};

/// Keeps what `LinuxNetwork` promises as far as it can be seen without packets: an impossible plan is refused, what
/// is not in the plan is not found.
///
/// Who calls a service is known by the address it calls from, once `claim` has said whose that is: give each guest
/// one of its own in 127.0.0.0/8. A link's index counts the interfaces of its VPC in the plan's order from 1, which
/// is also the loopback interface's index.
#[derive(Default)]
pub struct FakeNetwork {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    claims: HashMap<(Id, IpAddr), Id>,
    services: HashMap<Id, FakeServices>,
    silent: HashSet<Id>,
    failure: Option<String>,
}

/// Where the services of a VPC were opened.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeServices {
    pub metadata: SocketAddr,
    pub dhcp: SocketAddr,
    pub dns_udp: Vec<SocketAddr>,
    pub dns_tcp: Vec<SocketAddr>,
    pub time: SocketAddr,
}

impl FakeNetwork {
    pub fn new() -> Self {
        FakeNetwork::default()
    }

    /// The plan that was applied last.
    pub fn plan(&self) -> Plan {
        self.state.lock().plan.clone()
    }

    /// Where the services of the VPC listen, once opened.
    pub fn services(&self, vpc_id: &Id) -> Option<FakeServices> {
        self.state.lock().services.get(vpc_id).cloned()
    }

    /// Whoever calls the VPC's services from this address is this interface's guest.
    pub fn claim(&self, vpc_id: &Id, address: impl Into<IpAddr>, interface_id: &Id) {
        self.state.lock().claims.insert((vpc_id.clone(), address.into()), interface_id.clone());
    }

    /// Whether the guest behind the interface answers; it does until told otherwise.
    pub fn let_answer(&self, interface_id: &Id, answers: bool) {
        let mut state = self.state.lock();
        if answers {
            state.silent.remove(interface_id);
        } else {
            state.silent.insert(interface_id.clone());
        }
    }

    /// The next `apply` changes nothing and fails with this message.
    pub fn fail_next_apply(&self, message: impl Into<String>) {
        self.state.lock().failure = Some(message.into());
    }
}

impl State {
    fn interfaces(&self, vpc_id: &Id) -> impl Iterator<Item = &Interface> {
        self.plan.interfaces.iter().filter(move |nic| nic.vpc_id == *vpc_id)
    }
}

#[async_trait]
impl Network for FakeNetwork {
    async fn apply(&self, plan: Plan) -> Result<(), NetError> {
        vpc::check(&plan)?;
        let mut state = self.state.lock();
        if let Some(message) = state.failure.take() {
            return Err(NetError::Failed(message));
        }
        state.services.retain(|id, _| plan.vpcs.iter().any(|vpc| vpc.vpc_id == *id));
        state.plan = plan;
        Ok(())
    }

    /// Nobody disturbs it.
    async fn disturbed(&self) {
        std::future::pending().await
    }

    /// One queue at most: a file that takes everything and gives nothing.
    async fn open_tap(&self, interface_id: &Id, _queues: usize) -> Result<Vec<OwnedFd>, NetError> {
        if !self.state.lock().plan.interfaces.iter().any(|nic| nic.interface_id == *interface_id) {
            return Err(NetError::NotFound(interface_id.clone()));
        }
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        Ok(vec![file.map_err(io_failed("can't open /dev/null"))?.into()])
    }

    /// Any number of machines may have it open.
    async fn close_tap(&self, _interface_id: &Id) -> Result<(), NetError> {
        Ok(())
    }

    async fn guest_answers(&self, interface_id: &Id) -> Result<bool, NetError> {
        let state = self.state.lock();
        match state.plan.interfaces.iter().any(|nic| nic.interface_id == *interface_id) {
            true => Ok(!state.silent.contains(interface_id)),
            false => Err(NetError::NotFound(interface_id.clone())),
        }
    }

    async fn open_services(&self, vpc_id: &Id) -> Result<ServiceSockets, NetError> {
        let mut state = self.state.lock();
        let Some(vpc) = state.plan.vpcs.iter().find(|vpc| vpc.vpc_id == *vpc_id) else {
            return Err(NetError::NotFound(vpc_id.clone()));
        };
        let failed = io_failed("can't open service sockets on the loopback interface");
        let (sockets, services) = open(vpc::resolvers(vpc).len()).map_err(failed)?;
        state.services.insert(vpc_id.clone(), services);
        Ok(sockets)
    }

    fn interface_of_connection(&self, vpc_id: &Id, stream: &TcpStream) -> Option<Id> {
        self.interface_of_address(vpc_id, stream.peer_addr().ok()?.ip())
    }

    fn interface_of_index(&self, vpc_id: &Id, index: u32) -> Option<Id> {
        let state = self.state.lock();
        let position = usize::try_from(index).ok()?.checked_sub(1)?;
        state.interfaces(vpc_id).nth(position).map(|nic| nic.interface_id.clone())
    }

    fn index_of_interface(&self, interface_id: &Id) -> Option<u32> {
        let state = self.state.lock();
        let interface = state.plan.interfaces.iter().find(|nic| nic.interface_id == *interface_id)?;
        let position =
            state.interfaces(&interface.vpc_id).position(|nic| nic.interface_id == *interface_id)?;
        u32::try_from(position + 1).ok()
    }

    fn interface_of_address(&self, vpc_id: &Id, address: IpAddr) -> Option<Id> {
        let state = self.state.lock();
        let claimed = state.claims.get(&(vpc_id.clone(), address)).cloned();
        let interface_id = claimed.or_else(|| {
            state
                .interfaces(vpc_id)
                .find(|nic| nic.addresses.iter().any(|own| own.private_ip == address))
                .map(|nic| nic.interface_id.clone())
        })?;
        state.interfaces(vpc_id).any(|nic| nic.interface_id == interface_id).then_some(interface_id)
    }

    fn mtu(&self) -> u16 {
        JUMBO
    }

    async fn remove_all(&self) -> Result<(), NetError> {
        *self.state.lock() = State::default();
        Ok(())
    }
}

fn open(resolvers: usize) -> io::Result<(ServiceSockets, FakeServices)> {
    let anywhere = (Ipv4Addr::LOCALHOST, 0);
    let metadata = TcpListener::bind(anywhere)?;
    let dhcp = UdpSocket::bind(anywhere)?;
    let dns_udp = (0..resolvers).map(|_| UdpSocket::bind(anywhere)).collect::<io::Result<Vec<_>>>()?;
    let dns_tcp = (0..resolvers).map(|_| TcpListener::bind(anywhere)).collect::<io::Result<Vec<_>>>()?;
    let time = UdpSocket::bind(anywhere)?;
    let services = FakeServices {
        metadata: metadata.local_addr()?,
        dhcp: dhcp.local_addr()?,
        dns_udp: dns_udp.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?,
        time: time.local_addr()?,
        dns_tcp: dns_tcp.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?,
    };
    let (metadata, time) = (vec![metadata], vec![time]);
    let sockets = ServiceSockets { metadata, dhcp, dns_udp, dns_tcp, time, ipv6: None };
    services::prepare(&sockets)?;
    Ok((sockets, services))
}
