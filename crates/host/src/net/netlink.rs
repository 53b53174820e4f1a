//! What the kernel tells of changes in one namespace, without being asked: who hears of what somebody took away can
//! put it back at once.
//!
//! Only a few bytes are looked at (`linux/netlink.h`, `linux/rtnetlink.h`); what the kernel sends is trusted to be well
//! formed, yet never indexed without a look.

use rtnetlink::sys::{Socket, SocketAddr};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::namespace::Namespace;

/// Bytes of a message's header.
pub(super) const HEADER: usize = 16;

/// Hears what is multicast to some groups of netlink in a namespace.
pub(super) struct Listener {
    socket: AsyncFd<Socket>,
    /// Whether a message, by its type and what follows its header, may mean that something of ours is gone.
    concerns: fn(u16, &[u8]) -> bool,
    reminder: Notify,
}

impl Listener {
    /// `groups` are bits: the first group is the lowest.
    pub(super) async fn open(
        namespace: &Namespace,
        protocol: isize,
        groups: u32,
        concerns: fn(u16, &[u8]) -> bool,
    ) -> io::Result<Listener> {
        let open = move || {
            let mut socket = Socket::new(protocol)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, groups))?;
            Ok(socket)
        };
        let socket = namespace.run(open).await?;
        // SAFETY: an owned descriptor is the same until it is dropped, and nobody else closes it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        Ok(Listener { socket, concerns, reminder: Notify::new() })
    }

    /// Forgets what was told until now; whether any of it concerns us.
    pub(super) fn forget(&self) -> bool {
        let mut concerns = false;
        loop {
            match self.next() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return concerns,
                told => concerns |= told.unwrap_or(true),
            }
        }
    }

    /// Has something heard that was forgotten.
    pub(super) fn remind(&self) {
        self.reminder.notify_one();
    }

    /// Waits until something is told that concerns us.
    pub(super) async fn heard(&self) -> io::Result<()> {
        loop {
            let mut ready = tokio::select! {
                ready = self.socket.readable() => ready?,
                () = self.reminder.notified() => return Ok(()),
            };
            match ready.try_io(|_| self.next()) {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    /// Whether what was told next concerns us.
    fn next(&self) -> io::Result<bool> {
        match self.socket.get_ref().recv_from_full() {
            Ok((datagram, _)) => Ok(messages(&datagram).any(|(kind, body)| (self.concerns)(kind, body))),
            // More was told than there is room for: it may have been anything.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Types of the messages of a datagram, and what follows their headers.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = datagram.get(..length)?;
        let body = message.get(HEADER..)?;
        datagram = datagram.get(aligned(length)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([message[4], message[5]]), body))
    })
}

pub(super) fn u32_at(bytes: &[u8], start: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(start..start + 4)?.try_into().ok()?))
}

/// Messages and attributes begin at multiples of four.
pub(super) fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend(body);
        message.resize(aligned(message.len()), 0);
        message
    }

    #[test]
    fn a_datagram_is_its_messages() {
        let datagram = [message(24, b"abc"), message(25, b""), message(3, b"defg")].concat();
        let read: Vec<_> = messages(&datagram).collect();
        assert_eq!(read, [(24, &b"abc"[..]), (25, b""), (3, b"defg")]);
        assert_eq!(messages(&datagram[..datagram.len() - 1]).count(), 2);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_reader_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            assert!(messages(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}
