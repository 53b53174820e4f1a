//! How long security groups remember idle flows of an interface (EC2 User Guide, "Connection tracking timeouts").

use aws_api::ec2;
use datapath::Tracking;
use model::{Error, Result};
use std::ops::RangeInclusive;

/// Seconds each, as EC2 bounds them.
const TCP_ESTABLISHED: RangeInclusive<u32> = 60..=432_000;
const UDP_STREAM: RangeInclusive<u32> = 60..=180;
const UDP: RangeInclusive<u32> = 30..=60;

/// What there was, with what is asked for in its place.
pub fn asked(old: Tracking, asked: Option<&ec2::ConnectionTrackingSpecificationRequest>) -> Result<Tracking> {
    let Some(asked) = asked else { return Ok(old) };
    let time = |name, asked: Option<i32>, bounds: RangeInclusive<u32>, old: Option<u32>| match asked {
        Some(asked) => match u32::try_from(asked) {
            Ok(seconds) if bounds.contains(&seconds) => Ok(Some(seconds)),
            _ => Err(Error::invalid_parameter_value(format!(
                "Value ({asked}) for parameter {name} is invalid. It must be between {} and {} seconds.",
                bounds.start(),
                bounds.end()
            ))),
        },
        None => Ok(old),
    };
    Ok(Tracking {
        tcp_established: time(
            "TcpEstablishedTimeout",
            asked.tcp_established_timeout,
            TCP_ESTABLISHED,
            old.tcp_established,
        )?,
        udp: time("UdpTimeout", asked.udp_timeout, UDP, old.udp)?,
        udp_stream: time("UdpStreamTimeout", asked.udp_stream_timeout, UDP_STREAM, old.udp_stream)?,
    })
}

/// What was asked for, where anything was.
pub fn to_api(tracking: Tracking) -> Option<ec2::ConnectionTrackingConfiguration> {
    let seconds = |time: Option<u32>| time.and_then(|time| i32::try_from(time).ok());
    (tracking != Tracking::default()).then(|| ec2::ConnectionTrackingConfiguration {
        tcp_established_timeout: seconds(tracking.tcp_established),
        udp_stream_timeout: seconds(tracking.udp_stream),
        udp_timeout: seconds(tracking.udp),
    })
}
