//! The time for the guests of a VPC, at 169.254.169.123 (EC2 User Guide, "Amazon Time Sync Service"): a server of NTP
//! for clients only (RFC 5905, section 14; RFC 4330).
//!
//! It says what the host's clock says, and how good that is from what the kernel knows of whoever keeps it: a host whose
//! clock nobody keeps is far from the truth, but at least its guests agree. No state is kept for a guest. Packets that
//! are malformed, no request, or too many are dropped: an answer is never longer than its request.

use crate::limits::Rate;
use crate::network::HostNetwork;
use model::{Clock, Id, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

const PACKET_BYTES: usize = 48;
/// With extensions, which are not answered. What is longer is not a request.
const REQUEST_BYTES_MAX: usize = 1024;
/// Clients ask once in a few seconds, some at once when they start.
const REQUESTS_PER_SECOND: u32 = 16;
const REQUESTS_BURST: u32 = 64;
/// After a socket error, which is the host's: for it to pass.
const RECEIVE_AGAIN: Duration = Duration::from_millis(100);

const MODE_CLIENT: u8 = 3;
const MODE_SERVER: u8 = 4;
/// As EC2's own.
const STRATUM_KEPT: u8 = 3;
/// Of a clock that nobody keeps, as usual for servers that are their own reference.
const STRATUM_FREE: u8 = 10;
/// "127.127.1.1", the host's own clock.
const REFERENCE_ID: [u8; 4] = [127, 127, 1, 1];
/// About a microsecond, as a power of two of a second.
const PRECISION: i8 = -20;
/// From the beginning of 1900, where NTP's seconds count from, to that of 1970.
const UNIX_EPOCH_SECONDS: i64 = 2_208_988_800;

pub(crate) struct TimeService {
    clock: Arc<dyn Clock>,
    requests: Rate,
}

/// How good the host's clock is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quality {
    /// Somebody keeps it to a better one.
    kept: bool,
    /// 1 where the day's last minute has 61 seconds, 2 where it has 59.
    leap: u8,
    /// How far it may be from the truth.
    error_max: Duration,
}

impl TimeService {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        TimeService { clock, requests: Rate::new(REQUESTS_PER_SECOND, REQUESTS_BURST) }
    }
}

/// Serves the VPC until aborted.
pub(crate) async fn serve(
    socket: UdpSocket,
    vpc_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<TimeService>,
) {
    // One more, by which too long a request is known.
    let mut buffer = [0; REQUEST_BYTES_MAX + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%vpc_id, error = %error, "no request received");
                tokio::time::sleep(RECEIVE_AGAIN).await;
                continue;
            }
        };
        let received = service.clock.now();
        let caller = network.driver().interface_of_address(&vpc_id, from.ip());
        if !caller.is_some_and(|interface_id| service.requests.allow(&interface_id)) {
            continue;
        }
        if let Some(answer) = answer(&buffer[..length], quality(), received, || service.clock.now()) {
            // Lost as any datagram may be.
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

fn answer(
    request: &[u8],
    quality: Quality,
    received: Timestamp,
    now: impl FnOnce() -> Timestamp,
) -> Option<[u8; PACKET_BYTES]> {
    let is_whole =
        (PACKET_BYTES..=REQUEST_BYTES_MAX).contains(&request.len()) && request.len().is_multiple_of(4);
    let first = *request.first()?;
    let (version, mode) = (first >> 3 & 7, first & 7);
    if !is_whole || mode != MODE_CLIENT || !(3..=4).contains(&version) {
        return None;
    }
    let mut answer = [0; PACKET_BYTES];
    answer[0] = quality.leap << 6 | version << 3 | MODE_SERVER;
    answer[1] = if quality.kept { STRATUM_KEPT } else { STRATUM_FREE };
    answer[2] = request[2];
    answer[3] = PRECISION.cast_unsigned();
    // The root delay is part of the kernel's largest error, which is told as the dispersion.
    answer[8..12].copy_from_slice(&short(quality.error_max));
    answer[12..16].copy_from_slice(&REFERENCE_ID);
    answer[16..24].copy_from_slice(&timestamp(received));
    answer[24..32].copy_from_slice(&request[40..48]);
    answer[32..40].copy_from_slice(&timestamp(received));
    answer[40..48].copy_from_slice(&timestamp(now()));
    Some(answer)
}

/// Seconds since 1900, in the era that they are in, and their fraction.
fn timestamp(at: Timestamp) -> [u8; 8] {
    let nanoseconds = at.as_nanosecond() + i128::from(UNIX_EPOCH_SECONDS) * 1_000_000_000;
    let fixed = (nanoseconds << 32).div_euclid(1_000_000_000);
    (fixed as u64).to_be_bytes()
}

/// Seconds in 16 bits and their fraction in as many.
fn short(duration: Duration) -> [u8; 4] {
    let fixed = (duration.as_nanos() << 16).div_ceil(1_000_000_000);
    u32::try_from(fixed).unwrap_or(u32::MAX).to_be_bytes()
}

/// What the kernel knows of its clock.
fn quality() -> Quality {
    // SAFETY: all zeros is a valid timex, which asks for nothing to be changed.
    let mut known: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills in the struct that it is given.
    let state = unsafe { libc::adjtimex(&raw mut known) };
    let kept = state >= 0 && known.status & libc::STA_UNSYNC == 0;
    let leap = match known.status {
        status if kept && status & libc::STA_INS != 0 => 1,
        status if kept && status & libc::STA_DEL != 0 => 2,
        _ => 0,
    };
    let error_max = if kept { u64::try_from(known.maxerror).unwrap_or(0) } else { 0 };
    Quality { kept, leap, error_max: Duration::from_micros(error_max) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEPT: Quality = Quality { kept: true, leap: 0, error_max: Duration::from_micros(1500) };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn request(version: u8, mode: u8) -> Vec<u8> {
        let mut request = vec![version << 3 | mode, 0, 6, 0];
        request.resize(40, 0);
        request.extend(b"sent now");
        request
    }

    fn answered(request: &[u8], quality: Quality) -> Option<[u8; PACKET_BYTES]> {
        answer(request, quality, at("2026-03-01T12:00:00.5Z"), || at("2026-03-01T12:00:00.75Z"))
    }

    #[test]
    fn a_client_is_told_the_time_and_how_good_it_is() {
        for version in [3, 4] {
            let answer = answered(&request(version, MODE_CLIENT), KEPT).unwrap();
            assert_eq!(answer[..4], [version << 3 | MODE_SERVER, 3, 6, 0xec]);
            assert_eq!(answer[8..12], [0, 0, 0, 99], "1.5 ms in 65536ths, rounded up");
            assert_eq!(&answer[24..32], b"sent now", "its own time of sending");
            let seconds = 3_981_355_200_u32.to_be_bytes();
            assert_eq!(answer[32..40], [&seconds[..], &[0x80, 0, 0, 0]].concat());
            assert_eq!(answer[40..48], [&seconds[..], &[0xc0, 0, 0, 0]].concat());
        }
    }

    #[test]
    fn a_clock_that_nobody_keeps_is_a_last_resort() {
        let free = Quality { kept: false, leap: 0, error_max: Duration::ZERO };
        assert_eq!(answered(&request(4, MODE_CLIENT), free).unwrap()[1], STRATUM_FREE);
        let leaping = Quality { leap: 1, ..KEPT };
        assert_eq!(answered(&request(4, MODE_CLIENT), leaping).unwrap()[0] >> 6, 1);
    }

    #[test]
    fn what_is_no_request_is_dropped() {
        for version in [0, 1, 2, 5, 7] {
            assert_eq!(answered(&request(version, MODE_CLIENT), KEPT), None);
        }
        // Two servers that take each other for clients would never be silent again.
        for mode in [0, 1, 2, 4, 5, 6, 7] {
            assert_eq!(answered(&request(4, mode), KEPT), None);
        }
        let whole = request(4, MODE_CLIENT);
        assert_eq!(answered(&whole[..PACKET_BYTES - 1], KEPT), None);
        assert_eq!(answered(&[&whole[..], &[0; 3]].concat(), KEPT), None);
        assert!(answered(&[&whole[..], &[0; 20]].concat(), KEPT).is_some());
        assert_eq!(answered(&[&whole[..], &[0; 1024]].concat(), KEPT), None);
    }

    #[test]
    fn time_goes_on_after_the_first_era() {
        assert_eq!(timestamp(at("2036-02-07T06:28:15Z"))[..4], [0xff; 4]);
        assert_eq!(timestamp(at("2036-02-07T06:28:16Z")), [0; 8]);
        assert_eq!(short(Duration::from_secs(1 << 20)), [0xff; 4]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_say_more_than_it_was_told(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..1100), first in any::<u8>(),
            seconds in -60_000_000_000i64..200_000_000_000,
        ) {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            let now = Timestamp::from_second(seconds).unwrap();
            if let Some(answer) = answer(&bytes, quality(), now, || now) {
                prop_assert!(answer.len() <= bytes.len());
                prop_assert_eq!(answer[0] & 7, MODE_SERVER);
            }
        }
    }
}
