//! Reads what QEMU exports by NBD over a unix socket (NetworkBlockDevice, `doc/proto.md`), one request at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub struct Export(UnixStream);

impl Export {
    pub fn open(socket: &Path, name: &str) -> io::Result<Export> {
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
        stream.read_exact(&mut [0; 10])?;
        Ok(Export(stream))
    }

    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend([0; 12]);
        request.extend(offset.to_be_bytes());
        request.extend((into.len() as u32).to_be_bytes());
        self.0.write_all(&request)?;
        let mut answer = [0; 16];
        self.0.read_exact(&mut answer)?;
        assert_eq!(answer[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], "it can't be read");
        self.0.read_exact(into)
    }
}
