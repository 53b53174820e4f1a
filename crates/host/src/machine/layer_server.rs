//! Layers whose files are not whole yet: their machine reads them from us, by NBD over a unix socket
//! (NetworkBlockDevice, `doc/proto.md`: fixed newstyle, simple replies).
//!
//! ```text
//!   QEMU ─▶ i-…/layers/socket ─▶ which machine ─▶ has it such a layer? ─▶ its content, here in memory or fetched
//! ```
//!
//! Each machine has a socket of its own, in a directory that it was handed and that no other can enter. While we are
//! away it waits, and connects again when we are back: its guest sees a disk that is slow, no error. So does one that
//! reads what can't be fetched just now.

use super::process::user_of;
use super::record::MachineDirectory;
use async_trait::async_trait;
use model::Id;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

/// What a layer holds.
pub trait LayerContent: Send + Sync {
    /// In bytes.
    fn size(&self) -> u64;

    /// Within the size. Blocks. `WouldBlock` says that it may be had later.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Who has the layers that machines read from us.
#[async_trait]
pub trait LayerSource: Send + Sync {
    /// A layer by its name; None where the machine's disks have none such.
    async fn open(&self, instance_id: &Id, layer: &str) -> Option<Arc<dyn LayerContent>>;
}

/// Set once, before machines are started or adopted.
pub(super) type Source = Arc<OnceLock<Arc<dyn LayerSource>>>;

/// A machine has one connection for each such layer of each disk.
const CONNECTIONS_MAX: usize = 64;
/// Of one machine at the same time: each takes memory and a thread.
const REQUESTS_MAX: usize = 16;
/// QEMU is told so, and asks for no more at once.
const READ_BYTES_MAX: u32 = 2 * 1024 * 1024;
const READ_BYTES_PREFERRED: u32 = 4096;
/// Of a name that a layer may have, and what comes with it.
const OPTION_BYTES_MAX: u32 = 1024;
const ASK_AGAIN: Duration = Duration::from_secs(1);

const OPTION: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

mod option {
    pub(super) const EXPORT_NAME: u32 = 1;
    pub(super) const ABORT: u32 = 2;
    pub(super) const INFO: u32 = 6;
    pub(super) const GO: u32 = 7;
}

mod answer {
    pub(super) const ACKNOWLEDGED: u32 = 1;
    pub(super) const INFO: u32 = 3;
    pub(super) const UNSUPPORTED: u32 = 0x8000_0001;
    pub(super) const INVALID: u32 = 0x8000_0003;
    pub(super) const UNKNOWN: u32 = 0x8000_0006;
}

mod command {
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const DISCONNECT: u16 = 2;
}

/// Has flags, read-only, more than one connection may read it.
const EXPORT_FLAGS: u16 = 1 | 1 << 1 | 1 << 8;

/// The socket of a machine.
pub(super) fn listen(instance_id: &Id, directory: &MachineDirectory) -> io::Result<StdListener> {
    let listener = directory.listen_for_layers(user_of(instance_id))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers a machine until it is dropped.
pub(super) async fn serve(instance_id: Id, listener: StdListener, source: Source) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%instance_id, error = &error as &dyn std::error::Error, "layers not served");
            return;
        }
    };
    let (mut connections, room) = (JoinSet::new(), Arc::new(Semaphore::new(REQUESTS_MAX)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                let (instance_id, source, room) = (instance_id.clone(), source.clone(), room.clone());
                connections.spawn(async move {
                    if let Err(error) = answer(&instance_id, stream, &source, room).await
                        && error.kind() != ErrorKind::UnexpectedEof
                    {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(%instance_id, error, "a machine's connection for layers ended");
                    }
                });
            }
            // It asks again.
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%instance_id, error = &error as &dyn std::error::Error, "layers not served");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

async fn answer(
    instance_id: &Id,
    mut stream: UnixStream,
    source: &Source,
    room: Arc<Semaphore>,
) -> io::Result<()> {
    let Some(content) = negotiate(instance_id, &mut stream, source).await? else { return Ok(()) };
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(Mutex::new(writer));
    let mut reads = JoinSet::new();
    loop {
        while reads.try_join_next().is_some() {}
        let request = Request::read(&mut reader).await?;
        match request.command {
            command::DISCONNECT => return Ok(()),
            // What it would write comes behind: there is no going on.
            command::WRITE => return Err(io::Error::other("a layer that is read from us was written to")),
            command::READ if request.is_within(content.size()) => {
                let Ok(permit) = room.clone().acquire_owned().await else { return Ok(()) };
                let (content, writer) = (content.clone(), writer.clone());
                reads.spawn(async move {
                    let _permit = permit;
                    // One that fails shows at the next request.
                    let _ = request.reply(&writer, read(content, &request).await).await;
                });
            }
            _ => request.reply(&writer, Err(ErrorKind::InvalidInput.into())).await?,
        }
    }
}

async fn read(content: Arc<dyn LayerContent>, request: &Request) -> io::Result<Vec<u8>> {
    let (offset, length) = (request.offset, request.length as usize);
    loop {
        let content = content.clone();
        let read = move || {
            let mut data = vec![0; length];
            content.read(offset, &mut data).map(|()| data)
        };
        match tokio::task::spawn_blocking(read).await.map_err(io::Error::other)? {
            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(ASK_AGAIN).await,
            read => return read,
        }
    }
}

/// None where the machine ends it.
async fn negotiate(
    instance_id: &Id,
    stream: &mut UnixStream,
    source: &Source,
) -> io::Result<Option<Arc<dyn LayerContent>>> {
    let mut greeting = b"NBDMAGIC".to_vec();
    greeting.extend(OPTION);
    // Fixed newstyle, and no zeros behind the answer to a name.
    greeting.extend(3u16.to_be_bytes());
    stream.write_all(&greeting).await?;
    let _flags = stream.read_u32().await?;
    loop {
        let mut magic = [0; 8];
        stream.read_exact(&mut magic).await?;
        let (option, length) = (stream.read_u32().await?, stream.read_u32().await?);
        if magic != *OPTION || length > OPTION_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data).await?;
        let mut say = async |answer: u32, data: &[u8]| {
            let mut reply = OPTION_REPLY.to_be_bytes().to_vec();
            for number in [option, answer, data.len() as u32] {
                reply.extend(number.to_be_bytes());
            }
            reply.extend(data);
            stream.write_all(&reply).await
        };
        match option {
            option::INFO | option::GO => {
                let Some(layer) = name_in(&data) else {
                    say(answer::INVALID, &[]).await?;
                    continue;
                };
                let opened = match source.get() {
                    Some(source) => source.open(instance_id, layer).await,
                    None => None,
                };
                let Some(content) = opened else {
                    say(answer::UNKNOWN, &[]).await?;
                    continue;
                };
                say(answer::INFO, &about(content.size())).await?;
                say(answer::INFO, &about_sizes()).await?;
                say(answer::ACKNOWLEDGED, &[]).await?;
                if option == option::GO {
                    return Ok(Some(content));
                }
            }
            option::ABORT => {
                say(answer::ACKNOWLEDGED, &[]).await?;
                return Ok(None);
            }
            // The only one that can't be refused otherwise.
            option::EXPORT_NAME => return Ok(None),
            _ => say(answer::UNSUPPORTED, &[]).await?,
        }
    }
}

/// Length, name, and what is asked about it, which is answered in any case.
fn name_in(data: &[u8]) -> Option<&str> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    std::str::from_utf8(rest.get(..u32::from_be_bytes(*length) as usize)?).ok()
}

fn about(size: u64) -> Vec<u8> {
    let mut data = 0u16.to_be_bytes().to_vec();
    data.extend(size.to_be_bytes());
    data.extend(EXPORT_FLAGS.to_be_bytes());
    data
}

fn about_sizes() -> Vec<u8> {
    let mut data = 3u16.to_be_bytes().to_vec();
    for bytes in [1, READ_BYTES_PREFERRED, READ_BYTES_MAX] {
        data.extend(bytes.to_be_bytes());
    }
    data
}

struct Request {
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

impl Request {
    async fn read(reader: &mut OwnedReadHalf) -> io::Result<Request> {
        if reader.read_u32().await? != REQUEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let _flags = reader.read_u16().await?;
        Ok(Request {
            command: reader.read_u16().await?,
            cookie: reader.read_u64().await?,
            offset: reader.read_u64().await?,
            length: reader.read_u32().await?,
        })
    }

    fn is_within(&self, size: u64) -> bool {
        let end = self.offset.checked_add(u64::from(self.length));
        self.length <= READ_BYTES_MAX && end.is_some_and(|end| end <= size)
    }

    async fn reply(&self, writer: &Mutex<OwnedWriteHalf>, result: io::Result<Vec<u8>>) -> io::Result<()> {
        let (errno, data) = match result {
            Ok(data) => (0, data),
            Err(error) if error.kind() == ErrorKind::InvalidInput => (libc::EINVAL, Vec::new()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(offset = self.offset, error, "a layer could not be read");
                (libc::EIO, Vec::new())
            }
        };
        let mut reply = Vec::with_capacity(16);
        reply.extend(REPLY.to_be_bytes());
        reply.extend(errno.to_be_bytes());
        reply.extend(self.cookie.to_be_bytes());
        let mut writer = writer.lock().await;
        writer.write_all(&reply).await?;
        writer.write_all(&data).await
    }
}
