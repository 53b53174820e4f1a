//! What the kernel does with packets at a link itself: how they queue and what programs see them, asked for by netlink
//! (`tc`).

use aya::Ebpf;
use aya::programs::{ProgramFd, SchedClassifier};
use futures::StreamExt;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::kernel::{Kernel, io_error};

/// Attributes of the filter `bpf` (`linux/pkt_cls.h`), and that its program says itself what becomes of a packet.
const CLASS: u16 = 3;
const PROGRAM: u16 = 6;
const NAME: u16 = 7;
const FLAGS: u16 = 8;
const PROGRAM_DECIDES: u32 = 1;

/// Before all that others may put beside it.
const PRIORITY: u32 = 1;
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };

/// The handle of the queue that has none, but programs.
const PROGRAMS: u16 = 0xffff;

/// Where a program meets packets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Arrival,
    Departure,
}

impl Side {
    fn place(self) -> TcHandle {
        let minor = match self {
            Side::Arrival => TcHandle::MIN_INGRESS,
            Side::Departure => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: PROGRAMS, minor }
    }
}

/// Loads a program of an object file for links to run.
pub(super) fn program(object: &mut Ebpf, name: &str) -> io::Result<ProgramFd> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no {name} in the program"));
    let program: &mut SchedClassifier =
        object.program_mut(name).ok_or_else(missing)?.try_into().map_err(io::Error::other)?;
    program.load().map_err(io::Error::other)?;
    program.fd().map_err(io::Error::other)?.try_clone()
}

impl Kernel {
    /// Lets what leaves by a link go at once. The kernel would make a queue for each that a tap might have, which takes
    /// megabytes, once the link is up.
    pub(super) async fn queue_nothing(&self, link: u32) -> io::Result<()> {
        self.control(qdisc(link, TcHandle::ROOT, TcHandle::UNSPEC, "noqueue"), NLM_F_CREATE | NLM_F_REPLACE)
            .await
    }

    /// Makes room for programs at a link.
    pub(super) async fn admit_programs(&self, link: u32) -> io::Result<()> {
        let clsact = qdisc(link, TcHandle::CLSACT, TcHandle { major: PROGRAMS, minor: 0 }, "clsact");
        match self.control(clsact, NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Shows a link's packets to a program, in place of the one before it. The program reads the class.
    pub(super) async fn run_program(
        &self,
        link: u32,
        side: Side,
        program: impl AsFd,
        name: &CStr,
        class: u16,
    ) -> io::Result<()> {
        let mut filter = filter(link, side);
        filter.header.handle = HANDLE;
        filter.header.info |= u32::from((libc::ETH_P_ALL as u16).to_be());
        let number =
            |kind, number: u32| TcOption::Other(DefaultNla::new(kind, number.to_ne_bytes().to_vec()));
        filter.attributes = vec![
            TcAttribute::Kind("bpf".to_owned()),
            TcAttribute::Options(vec![
                number(CLASS, class.into()),
                number(PROGRAM, program.as_fd().as_raw_fd().cast_unsigned()),
                TcOption::Other(DefaultNla::new(NAME, name.to_bytes_with_nul().to_vec())),
                number(FLAGS, PROGRAM_DECIDES),
            ]),
        ];
        self.control(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Shows them no program any more.
    pub(super) async fn stop_program(&self, link: u32, side: Side) -> io::Result<()> {
        match self.control(RouteNetlinkMessage::DelTrafficFilter(filter(link, side)), 0).await {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    async fn control(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.clone().request(request).map_err(io_error)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    }
}

fn qdisc(link: u32, parent: TcHandle, handle: TcHandle, kind: &str) -> RouteNetlinkMessage {
    let mut qdisc = TcMessage::with_index(link.cast_signed());
    (qdisc.header.parent, qdisc.header.handle) = (parent, handle);
    qdisc.attributes.push(TcAttribute::Kind(kind.to_owned()));
    RouteNetlinkMessage::NewQueueDiscipline(qdisc)
}

fn filter(link: u32, side: Side) -> TcMessage {
    let mut filter = TcMessage::with_index(link.cast_signed());
    filter.header.parent = side.place();
    filter.header.info = PRIORITY << 16;
    filter
}
