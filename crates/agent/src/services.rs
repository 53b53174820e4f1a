//! What guests are served inside their VPC: metadata, DHCP, DNS, the time, and word of their router. Opened with the VPC, closed before it goes.

use crate::link_socket::LinkSocket;
use crate::metadata::{Identity, MetadataService, TokenKey};
use crate::network::HostNetwork;
use crate::{dhcp, dhcp6, dns, metadata, router_advertisement, time};
use host::net::{Ipv6Sockets, ServiceSockets};
use model::{Environment, Id};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) struct Services {
    metadata: Arc<MetadataService>,
    dhcp: Arc<dhcp::DhcpService>,
    dhcp6: Arc<dhcp6::Dhcp6Service>,
    advertisement: Arc<router_advertisement::AdvertisementService>,
    dns: Arc<dns::DnsService>,
    time: Arc<time::TimeService>,
    /// By VPC. Their tasks, and with them the sockets, end when dropped.
    running: HashMap<Id, JoinSet<()>>,
}

impl Services {
    pub(crate) fn new(environment: Environment, token_key: TokenKey, identity: Arc<Identity>) -> Self {
        Services {
            dhcp: Arc::new(dhcp::DhcpService::new()),
            dhcp6: Arc::new(dhcp6::Dhcp6Service::new()),
            advertisement: Arc::new(router_advertisement::AdvertisementService::new()),
            time: Arc::new(time::TimeService::new(environment.clock.clone())),
            dns: Arc::new(dns::DnsService::new(environment.random.clone())),
            metadata: Arc::new(MetadataService::new(environment, token_key, identity)),
            running: HashMap::new(),
        }
    }

    /// Closes the services of all other VPCs: a namespace with an open socket would outlive its removal.
    pub(crate) async fn keep<'a>(&mut self, vpcs: impl Iterator<Item = &'a Id>) {
        let vpcs: Vec<&Id> = vpcs.collect();
        let gone: Vec<Id> = self.running.keys().filter(|id| !vpcs.contains(id)).cloned().collect();
        for vpc_id in gone {
            if let Some(mut tasks) = self.running.remove(&vpc_id) {
                tasks.shutdown().await;
            }
        }
    }

    /// Opens the services of those VPCs that have none. False where some could not be opened.
    pub(crate) async fn open<'a>(
        &mut self,
        vpcs: impl Iterator<Item = &'a Id>,
        network: &Arc<HostNetwork>,
    ) -> bool {
        let mut is_whole = true;
        for vpc_id in vpcs {
            if self.running.contains_key(vpc_id) {
                continue;
            }
            let opened = match network.driver().open_services(vpc_id).await {
                Ok(sockets) => self.serve(vpc_id, sockets, network).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match opened {
                Ok(tasks) => drop(self.running.insert(vpc_id.clone(), tasks)),
                Err(error) => {
                    tracing::error!(%vpc_id, error, "services not opened");
                    is_whole = false;
                }
            }
        }
        is_whole
    }

    fn serve(
        &self,
        vpc_id: &Id,
        sockets: ServiceSockets,
        network: &Arc<HostNetwork>,
    ) -> std::io::Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        let service = || (vpc_id.clone(), network.clone());
        for listener in sockets.metadata {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (vpc_id, network) = service();
            tasks.spawn(metadata::serve(listener, vpc_id, network, self.metadata.clone()));
        }
        let (id, on) = service();
        tasks.spawn(dhcp::serve(LinkSocket::new(sockets.dhcp)?, id, on, self.dhcp.clone()));
        if let Some(Ipv6Sockets { dhcp, router }) = sockets.ipv6 {
            let (id, on) = service();
            tasks.spawn(dhcp6::serve(LinkSocket::new(dhcp)?, id, on, self.dhcp6.clone()));
            let (id, on) = service();
            let router = LinkSocket::new(router)?;
            tasks.spawn(router_advertisement::serve(router, id, on, self.advertisement.clone()));
        }
        for socket in sockets.time {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            let (vpc_id, network) = service();
            tasks.spawn(time::serve(socket, vpc_id, network, self.time.clone()));
        }
        for socket in sockets.dns_udp {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            tasks.spawn(dns::serve_udp(socket, vpc_id.clone(), network.clone(), self.dns.clone()));
        }
        for listener in sockets.dns_tcp {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(dns::serve_tcp(listener, vpc_id.clone(), network.clone(), self.dns.clone()));
        }
        Ok(tasks)
    }
}
