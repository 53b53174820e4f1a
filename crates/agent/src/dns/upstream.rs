//! Queries handed on to the host's own resolvers.
//!
//! A query goes out as it came but for its id, which is drawn anew, from a port of its own; an answer counts only
//! if it comes from who was asked, with that id and the same question.

use model::Random;
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

/// As many as libc's own resolver takes.
const RESOLVERS_MAX: usize = 3;
/// For each resolver: clients ask again after five seconds, and two of these are less.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long resolv.conf is believed before it is read again.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// A resolv.conf longer than this is not one.
const FILE_BYTES_MAX: usize = 64 * 1024;
const DATAGRAM_BYTES_MAX: usize = 4096;
const HEADER_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

pub(super) struct Upstream {
    resolv_conf: PathBuf,
    port: u16,
    random: Arc<dyn Random>,
    known: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

impl Upstream {
    pub(super) fn new(resolv_conf: PathBuf, random: Arc<dyn Random>) -> Self {
        Upstream { resolv_conf, port: 53, random, known: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn on_port(self, port: u16) -> Self {
        Upstream { port, ..self }
    }

    /// The answer of the first resolver that gives one; None where none does. Resolvers that are guests of ours
    /// are left out: they may be asking us.
    pub(super) async fn forward(
        &self,
        query: &[u8],
        transport: Transport,
        is_guest: impl Fn(IpAddr) -> bool,
    ) -> Option<Vec<u8>> {
        let question = question(query)?;
        let resolvers = self.resolvers().await;
        let mut last = None;
        for resolver in resolvers.into_iter().filter(|resolver| !is_guest(*resolver)) {
            let mut asked = query.to_vec();
            let id = (self.random.u64() as u16).to_be_bytes();
            asked[..2].copy_from_slice(&id);
            let to = SocketAddr::new(resolver, self.port);
            let answer = match transport {
                Transport::Udp => tokio::time::timeout(ANSWER_WITHIN, ask_udp(to, &asked, question)).await,
                Transport::Tcp => tokio::time::timeout(ANSWER_WITHIN, ask_tcp(to, &asked, question)).await,
            };
            let mut answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    tracing::debug!(%resolver, error = %error, "resolver not asked");
                    continue;
                }
                Err(_) => continue,
            };
            answer[..2].copy_from_slice(&query[..2]);
            if !is_server_failure(&answer) {
                return Some(answer);
            }
            // Another may know better.
            last = Some(answer);
        }
        last
    }

    async fn resolvers(&self) -> Vec<IpAddr> {
        if let Some((at, resolvers)) = &*self.known.lock()
            && at.elapsed() < READ_AGAIN
        {
            return resolvers.clone();
        }
        let resolvers = match tokio::fs::read(&self.resolv_conf).await {
            Ok(bytes) if bytes.len() <= FILE_BYTES_MAX => resolvers(&String::from_utf8_lossy(&bytes)),
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::debug!(error = %error, "the host has no resolvers");
                Vec::new()
            }
        };
        *self.known.lock() = Some((Instant::now(), resolvers.clone()));
        resolvers
    }
}

/// The `nameserver` lines of a resolv.conf(5).
fn resolvers(text: &str) -> Vec<IpAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    addresses.filter(|address| !address.is_unspecified()).take(RESOLVERS_MAX).collect()
}

async fn ask_udp(to: SocketAddr, query: &[u8], question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, so that the kernel drops what others send.
    socket.connect(to).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_answer(&buffer[..length], query, question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(to: SocketAddr, query: &[u8], question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    if is_answer(&answer, query, question) { Ok(answer) } else { Err(io::Error::other("not an answer")) }
}

/// The bytes of a message's one question: a name without pointers, type and class.
fn question(message: &[u8]) -> Option<&[u8]> {
    let body = message.get(HEADER_BYTES..)?;
    let mut at = 0;
    loop {
        match usize::from(*body.get(at)?) {
            0 => break,
            label if label < 64 => at += 1 + label,
            _ => return None,
        }
    }
    body.get(..at + 1 + 4)
}

fn is_answer(answer: &[u8], query: &[u8], asked: &[u8]) -> bool {
    answer.len() >= HEADER_BYTES
        && answer[..2] == query[..2]
        && answer[2] & 0x80 != 0
        && question(answer).is_some_and(|question| question.eq_ignore_ascii_case(asked))
}

/// SERVFAIL or REFUSED.
fn is_server_failure(answer: &[u8]) -> bool {
    matches!(answer[3] & 0x0f, 2 | 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_libc_does() {
        let text = "# comment\nsearch example.com\nnameserver 10.0.0.2\nnameserver fd00::1\n nameserver\t10.0.0.3 # x\n\
                    nameserver nonsense\nnameserver 0.0.0.0\nnameserver 10.0.0.4\n";
        let expected: Vec<IpAddr> = ["10.0.0.2", "fd00::1", "10.0.0.3"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(resolvers(text), expected);
    }

    #[test]
    fn a_question_ends_where_its_class_does() {
        let mut message = vec![0; HEADER_BYTES];
        message.extend(b"\x03www\x07example\x00\x00\x01\x00\x01and more");
        assert_eq!(question(&message), Some(&b"\x03www\x07example\x00\x00\x01\x00\x01"[..]));
        message.truncate(HEADER_BYTES + 10);
        assert_eq!(question(&message), None);
        let pointing = [&[0; HEADER_BYTES][..], b"\xc0\x0c\x00\x01\x00\x01"].concat();
        assert_eq!(question(&pointing), None);
    }
}
