//! Taps: the kernel's end of a guest's network card.
//!
//! A tap is persistent: it stays when whoever opened it ends, so that neither a killed daemon nor a stopped machine
//! takes its routes along. One process at a time has its queues, of which it may open several: the kernel keeps the
//! packets of a flow on one. All that is asked of a tap holds for all its queues.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

const DEVICE: &str = "/dev/net/tun";

/// Ethernet frames, no extra header but virtio's, which carries the offloads that the guest and the kernel agree on.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;

/// Whether a link has somebody at its other end (`linux/ethtool.h`).
const ETHTOOL_GET_LINK: u32 = 10;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Makes a persistent tap with this name and index in the calling thread's namespace.
pub(super) fn create(name: &str, index: u32) -> io::Result<()> {
    let file = open_device()?;
    let wanted = libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the request takes a pointer to an int, which lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFINDEX, &wanted) })?;
    attach(&file, name)?;
    // SAFETY: the request takes its argument by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1) })
}

/// Opens queues of a tap that is there; `ResourceBusy` where somebody has some.
pub(super) fn open(name: &str, queues: usize) -> io::Result<Vec<OwnedFd>> {
    // Without this look the kernel would make a new, unprotected tap of that name.
    if !std::path::Path::new("/proc/sys/net/ipv4/conf").join(name).exists() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if is_taken(name)? {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let queue = |_| {
        let file = open_device()?;
        attach(&file, name)?;
        Ok(file)
    };
    (0..queues.max(1)).map(queue).collect()
}

/// A tap has a link while anybody has a queue of it.
fn is_taken(name: &str) -> io::Result<bool> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut question = [ETHTOOL_GET_LINK, 0];
    let mut request = request_of(name)?;
    request.ifr_ifru.ifru_data = question.as_mut_ptr().cast();
    // SAFETY: the request takes a pointer to an ifreq, and that one to two numbers; all live through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &mut request) })?;
    Ok(question[1] != 0)
}

fn open_device() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?)
}

fn attach(file: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request_of(name)?;
    request.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
    // SAFETY: the request takes a pointer to an ifreq, which lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) })
}

/// A request about the link of this name.
fn request_of(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeros is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
