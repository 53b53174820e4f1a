//! What is said to a QEMU that exports disks by NBD over a unix socket (NetworkBlockDevice, `doc/proto.md`): the oldest of
//! its handshakes, requests, simple replies. The storage benchmark speaks so too.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub const READ: u16 = 0;

/// A connection to the export of this name, and the size of its disk.
pub fn connect(socket: &Path, name: &str) -> io::Result<(UnixStream, u64)> {
    let mut stream = UnixStream::connect(socket)?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
    // Of both sides: fixed newstyle, and no zeros behind the answer. The option: a name.
    let mut hello = 3u32.to_be_bytes().to_vec();
    hello.extend(b"IHAVEOPT");
    hello.extend(1u32.to_be_bytes());
    hello.extend((name.len() as u32).to_be_bytes());
    hello.extend(name.as_bytes());
    stream.write_all(&hello)?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    let [size @ .., _, _] = answer;
    Ok((stream, u64::from_be_bytes(size)))
}

/// Of so many bytes, with what is to be written.
pub fn request(kind: u16, offset: u64, bytes: usize, data: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(28 + data.len());
    request.extend(0x2560_9513u32.to_be_bytes());
    request.extend(0u16.to_be_bytes());
    request.extend(kind.to_be_bytes());
    request.extend(0u64.to_be_bytes());
    request.extend(offset.to_be_bytes());
    request.extend((bytes as u32).to_be_bytes());
    request.extend(data);
    request
}

/// The reply, which what was read follows.
pub fn take_reply(reader: &mut impl Read) -> io::Result<()> {
    let mut reply = [0; 16];
    reader.read_exact(&mut reply)?;
    assert_eq!(reply[..4], 0x6744_6698u32.to_be_bytes());
    assert_eq!(reply[4..8], [0; 4], "the disk failed");
    Ok(())
}
