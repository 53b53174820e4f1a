//! What the host lacks for guests to have a network, in words for its owner. Looks only.

use ipnet::Ipv4Net;
use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use super::NetOptions;
use super::namespace::Namespace;
use super::shortcut::Shortcut;
use super::translation::Translation;

/// One thing that guests' networking needs, and what to do where it is not so.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    pub what: String,
    pub remedy: Option<String>,
}

impl Diagnosis {
    pub fn is_well(&self) -> bool {
        self.remedy.is_none()
    }

    fn new(what: impl Into<String>, remedy: Option<String>) -> Self {
        Diagnosis { what: what.into(), remedy }
    }
}

pub(super) async fn diagnose(host: &Namespace, options: &NetOptions) -> io::Result<Vec<Diagnosis>> {
    let (pool, link_prefix, table) = (options.public_pool, options.link_prefix(), options.table());
    host.run(move || {
        let mut all = vec![tools(), tap_device()];
        all.push(forwarding(&list_chains(), &link_prefix, &table));
        all.push(bandwidth());
        all.push(shortcut());
        all.push(translation());
        all.push(pool_is_free(&std::fs::read_to_string("/proc/thread-self/net/route")?, pool, &link_prefix));
        Ok(all)
    })
    .await
}

fn tools() -> Diagnosis {
    let there = Command::new("nft").arg("--version").output().is_ok_and(|output| output.status.success());
    let remedy = (!there).then(|| "install it: apt-get install nftables".to_owned());
    Diagnosis::new("nft, which loads the packet filter", remedy)
}

fn tap_device() -> Diagnosis {
    let remedy = match std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some("run as root".to_owned()),
        Err(_) => Some("load the kernel's driver: modprobe tun".to_owned()),
    };
    Diagnosis::new("/dev/net/tun, where guests' network cards come from", remedy)
}

/// Whether interfaces can be held to their bandwidth: tried out in a network of its own, which goes with the thread.
fn bandwidth() -> Diagnosis {
    let what = "tc and the kernel's tbf, veth and ifb, which hold interfaces to their bandwidth";
    let tried = std::thread::spawn(|| {
        // SAFETY: only the file descriptor table must not be unshared behind the standard library's back.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)? };
        let steps: [(&str, &[&str]); 3] = [
            ("ip", &["link", "add", "try", "type", "ifb"]),
            ("ip", &["link", "add", "one", "type", "veth", "peer", "name", "other"]),
            (
                "tc",
                &[
                    "qdisc", "add", "dev", "try", "root", "tbf", "rate", "1mbit", "burst", "64k", "limit",
                    "64k",
                ],
            ),
        ];
        for (program, arguments) in steps {
            if !Command::new(program).args(arguments).output()?.status.success() {
                return Err(io::Error::other(program));
            }
        }
        Ok(())
    });
    let remedy = match tried.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some("run as root"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("install it: apt-get install iproute2"),
        Err(_) => Some(
            "load the kernel's parts, else guests take what they get: modprobe -a veth ifb sch_tbf cls_u32 act_mirred",
        ),
    };
    Diagnosis::new(what, remedy.map(str::to_owned))
}

fn shortcut() -> Diagnosis {
    let remedy = match Shortcut::load() {
        Ok(_) => None,
        Err(_) => Some(
            "use a kernel with BPF (CONFIG_NET_CLS_BPF), else packets cost more of the processor, and guests send what they like"
                .to_owned(),
        ),
    };
    Diagnosis::new("the kernel's BPF, by which packets of known flows take a shortcut", remedy)
}

fn translation() -> Diagnosis {
    let remedy = Translation::load().err().map(|_| {
        "use a kernel with BPF (CONFIG_NET_CLS_BPF), else what has IPv6 alone reaches no IPv4".to_owned()
    });
    Diagnosis::new("the kernel's BPF, by which NAT gateways translate IPv6 to IPv4", remedy)
}

/// The host's base chains as nft's JSON; nothing where it can't tell.
fn list_chains() -> Vec<u8> {
    Command::new("nft").args(["-j", "list", "chains"]).output().map_or(Vec::new(), |output| output.stdout)
}

/// Whether another's forward chain drops what it does not know: guests would be cut off, as every chain must accept.
fn forwarding(chains: &[u8], link_prefix: &str, our_table: &str) -> Diagnosis {
    let listing: serde_json::Value = serde_json::from_slice(chains).unwrap_or_default();
    let all = listing["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let strict = all.iter().filter_map(|item| item.get("chain")).find(|chain| {
        let table = format!("{} {}", text(&chain["family"]), text(&chain["table"]));
        chain["hook"] == "forward" && chain["policy"] == "drop" && table != our_table
    });
    let what = "forwarding through the host's own packet filter";
    let Some(chain) = strict else { return Diagnosis::new(what, None) };
    let (family, table, name) = (text(&chain["family"]), text(&chain["table"]), text(&chain["name"]));
    let rule = format!("nft insert rule {family} {table} {name}");
    let mut remedy = format!(
        "chain {name} of table {family} {table} drops by default; let guests through: {rule} iifname \"{link_prefix}*\" accept; {rule} oifname \"{link_prefix}*\" accept"
    );
    if all.iter().any(|item| item["chain"]["name"] == "DOCKER-USER") {
        remedy.push_str(&format!(
            "; with Docker, so that it stays: iptables -I DOCKER-USER -i {link_prefix}+ -j ACCEPT; iptables -I DOCKER-USER -o {link_prefix}+ -j ACCEPT"
        ));
    }
    Diagnosis::new(what, Some(remedy))
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether the host needs the pool's addresses for something else. `routes` is `/proc/net/route`: link, destination
/// and, in the eighth column, the mask, in the machine's byte order.
fn pool_is_free(routes: &str, pool: Ipv4Net, link_prefix: &str) -> Diagnosis {
    let taken = routes.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let address = |column: usize| {
            let number = u32::from_str_radix(columns.get(column)?, 16).ok()?;
            Some(Ipv4Addr::from(number.to_ne_bytes()))
        };
        let net = Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?;
        let link = *columns.first()?;
        let meets = net.contains(&pool.network()) || pool.contains(&net.network());
        // Our own unreachable route has no link: "*".
        (net.prefix_len() > 0 && meets && link != "*" && !link.starts_with(link_prefix))
            .then(|| format!("{net} on {link}"))
    });
    let remedy = taken.map(|taken| format!("the host has {taken}: choose another pool of public addresses"));
    Diagnosis::new(format!("the pool of public addresses, {pool}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        cg12ab345\t050012C6\t010012C6\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
        *\t000012C6\t00000000\t0200\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn a_pool_that_the_host_uses_is_named() {
        let check = |pool: &str| pool_is_free(ROUTES, pool.parse().unwrap(), "cg12ab");
        assert!(check("198.18.0.0/24").is_well());
        for pool in ["192.0.2.0/24", "192.0.2.128/25", "192.0.0.0/16"] {
            assert!(check(pool).remedy.unwrap().contains("192.0.2.0/24 on eth0"), "{pool}");
        }
    }

    #[test]
    fn a_firewall_that_drops_is_named_with_what_to_type() {
        let chain = |family: &str, table: &str, name: &str, policy: &str| {
            serde_json::json!({"chain": {
                "family": family, "table": table, "name": name, "hook": "forward", "policy": policy,
            }})
        };
        let check = |chains: Vec<serde_json::Value>| {
            let listing = serde_json::json!({ "nftables": chains }).to_string();
            forwarding(listing.as_bytes(), "cg12ab", "ip cumulet_a").remedy
        };
        assert_eq!(check(vec![]), None);
        assert_eq!(check(vec![chain("inet", "filter", "forward", "accept")]), None);
        let remedy = check(vec![chain("inet", "filter", "forward", "drop")]).unwrap();
        assert!(
            remedy.contains("nft insert rule inet filter forward iifname \"cg12ab*\" accept"),
            "{remedy}"
        );
        let docker = serde_json::json!({"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}});
        let remedy = check(vec![chain("ip", "filter", "FORWARD", "drop"), docker]).unwrap();
        assert!(remedy.contains("iptables -I DOCKER-USER -i cg12ab+ -j ACCEPT"), "{remedy}");
        assert!(forwarding(b"no JSON", "cg12ab", "ip cumulet_a").is_well());
    }
}
