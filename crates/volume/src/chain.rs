//! What a disk holds that is spread over layers: the uppermost that says something of a place is right.

use crate::encryption::{Cipher, DataKey};
use crate::qcow2::{Overlay, Part, layer_key};
use crate::{BLOCK_BYTES, Filling, Format, Layer, Result, failed};
use rustix::fs::{Advice, SeekFrom};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Layers that are open for reading, the uppermost first. Nobody writes them meanwhile.
pub(crate) struct Chain {
    /// Named in errors.
    path: PathBuf,
    layers: Vec<Open>,
    /// Bytes of the disk; the file may not have grown to it yet.
    size: u64,
}

enum Open {
    Raw {
        file: File,
        size: u64,
        /// Of an upload that is encrypted.
        cipher: Option<Cipher>,
    },
    Overlay(Overlay),
    Filling(Arc<Filling>),
}

impl Chain {
    pub(crate) fn open(size: u64, layers: &[Layer], key: Option<&DataKey>) -> Result<Chain> {
        let open = layers.iter().map(|layer| {
            let open = match (layer.format, &layer.filling) {
                (_, Some(filling)) => Ok(Open::Filling(filling.clone())),
                (Format::Raw, None) => File::open(&layer.path)
                    .and_then(|file| Ok(Open::Raw { size: file.metadata()?.len(), file, cipher: None })),
                (Format::Qcow2, None) => Overlay::open(&layer.path, key).map(Open::Overlay),
            };
            open.map_err(failed("can't open", &layer.path))
        });
        let path = layers.first().map(|layer| layer.path.clone()).unwrap_or_default();
        Ok(Chain { path, layers: open.collect::<Result<_>>()?, size })
    }

    /// Of one layer alone, as large as it was made.
    pub(crate) fn of_one(layer: &Layer, key: Option<&DataKey>) -> Result<Chain> {
        let mut chain = Chain::open(0, std::slice::from_ref(layer), key)?;
        chain.size = chain.layers.iter().map(Open::size).sum();
        Ok(chain)
    }

    /// Of one raw file, as long as the disk.
    pub(crate) fn of(file: File, path: &Path, key: Option<&DataKey>) -> Result<Chain> {
        let size = file.metadata().map_err(failed("can't see", path))?.len();
        let cipher = layer_key(path, key).map(|key| key.cipher());
        Ok(Chain { path: path.to_owned(), layers: vec![Open::Raw { file, size, cipher }], size })
    }

    /// Bytes of the disk.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        read(&mut self.layers, offset, into).map_err(failed("can't read", &self.path))
    }

    /// Has the kernel read a block ahead.
    pub(crate) fn expect(&mut self, block: u64) {
        let length = BLOCK.min(self.size.saturating_sub(block * BLOCK));
        // Nothing but time is lost where it can't.
        let _ = expect(&mut self.layers, block * BLOCK, length);
    }

    /// The first block at `from` or after it that holds data.
    pub(crate) fn next_block(&mut self, from: u64) -> Result<Option<u64>> {
        self.find_block(from).map_err(failed("can't list the blocks of", &self.path))
    }

    fn find_block(&mut self, from: u64) -> io::Result<Option<u64>> {
        let size = self.size();
        let mut block = from;
        while block.saturating_mul(BLOCK) < size {
            let mut next = None;
            for layer in &mut self.layers {
                next = layer.next(block * BLOCK)?.into_iter().chain(next).min();
            }
            // What a lower layer holds behind the end of the disk is not the disk's.
            let Some(next) = next.filter(|next| *next < size) else { return Ok(None) };
            block = next / BLOCK;
            if has_data(&mut self.layers, block * BLOCK, BLOCK.min(size - block * BLOCK))? {
                return Ok(Some(block));
            }
            block += 1;
        }
        Ok(None)
    }

    /// All blocks that hold data.
    pub(crate) fn blocks(&mut self) -> impl Iterator<Item = Result<(u32, Vec<u8>)>> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let block = self.next_block(from).transpose()?;
            Some(block.and_then(|block| {
                from = block + 1;
                // A disk of the largest size has 2^27.
                Ok((u32::try_from(block).unwrap_or(u32::MAX), self.read_block(block)?))
            }))
        })
    }

    /// What the block at this index holds; None where it holds nothing.
    pub(crate) fn block(&mut self, block: u64) -> Result<Option<Vec<u8>>> {
        if self.has_block(block)? { self.read_block(block).map(Some) } else { Ok(None) }
    }

    fn read_block(&mut self, block: u64) -> Result<Vec<u8>> {
        let mut data = vec![0; BLOCK_BYTES];
        self.read(block * BLOCK, &mut data)?;
        Ok(data)
    }

    /// The first block at `from` or after it that any layer says something of, if only that it holds nothing.
    pub(crate) fn next_told(&mut self, from: u64) -> Result<Option<u64>> {
        let mut next = None;
        for layer in &mut self.layers {
            let told = layer.next(from * BLOCK).map_err(failed("can't list the blocks of", &self.path))?;
            next = told.into_iter().chain(next).min();
        }
        Ok(next.filter(|next| *next < self.size).map(|next| next / BLOCK))
    }

    /// Whether the block at this index holds data.
    fn has_block(&mut self, block: u64) -> Result<bool> {
        let length = BLOCK.min(self.size().saturating_sub(block * BLOCK));
        let has = has_data(&mut self.layers, block * BLOCK, length);
        has.map_err(failed("can't read", &self.path))
    }
}

impl Open {
    /// Bytes of the disk that it was made for.
    fn size(&self) -> u64 {
        match self {
            Open::Raw { size, .. } => *size,
            Open::Overlay(overlay) => overlay.size,
            Open::Filling(filling) => filling.size(),
        }
    }

    fn part(&mut self, offset: u64) -> io::Result<(Part, u64)> {
        match self {
            Open::Overlay(overlay) => overlay.part(offset),
            Open::Filling(filling) => Ok(filling.part(offset)),
            Open::Raw { size, .. } if offset >= *size => Ok((Part::Below, u64::MAX - offset)),
            Open::Raw { file, size, .. } => match next_data(file, offset)? {
                Some(data) if data == offset => {
                    Ok((Part::Data(offset), rustix::fs::seek(&*file, SeekFrom::Hole(offset))? - offset))
                }
                data => Ok((Part::Zeros, data.unwrap_or(*size) - offset)),
            },
        }
    }

    fn next(&mut self, offset: u64) -> io::Result<Option<u64>> {
        match self {
            Open::Overlay(overlay) => overlay.next(offset),
            Open::Filling(filling) => Ok(filling.next(offset)),
            Open::Raw { file, .. } => next_data(file, offset),
        }
    }

    /// Has the kernel read ahead, where the data is in a file.
    fn expect(&self, place: u64, length: u64) -> io::Result<()> {
        let file = match self {
            Open::Overlay(overlay) => &overlay.file,
            Open::Raw { file, .. } => file,
            Open::Filling(_) => return Ok(()),
        };
        Ok(rustix::fs::fadvise(file, place, NonZeroU64::new(length), Advice::WillNeed)?)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Open::Overlay(overlay) => overlay.read(offset, into),
            Open::Raw { file, cipher, .. } => {
                file.read_exact_at(into, offset)?;
                if let Some(cipher) = cipher {
                    cipher.decrypt_with_holes(offset, into);
                }
                Ok(())
            }
            Open::Filling(filling) => filling.read(offset, into).map_err(io::Error::other),
        }
    }
}

/// Where a raw file holds data next, at `offset` or after it.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(layers: &mut [Open], offset: u64, mut into: &mut [u8]) -> io::Result<()> {
    let Some((upper, below)) = layers.split_first_mut() else {
        into.fill(0);
        return Ok(());
    };
    let mut at = offset;
    while !into.is_empty() {
        let (part, length) = upper.part(at)?;
        let count = length.min(into.len() as u64) as usize;
        let (now, rest) = into.split_at_mut(count);
        match part {
            Part::Data(place) => upper.read(place, now)?,
            Part::Zeros => now.fill(0),
            Part::Below => read(below, at, now)?,
        }
        at += count as u64;
        into = rest;
    }
    Ok(())
}

fn expect(layers: &mut [Open], offset: u64, length: u64) -> io::Result<()> {
    let Some((upper, below)) = layers.split_first_mut() else { return Ok(()) };
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let (part, length) = upper.part(at)?;
        let count = length.min(end - at);
        match part {
            Part::Data(place) => upper.expect(place, count)?,
            Part::Zeros => {}
            Part::Below => expect(below, at, count)?,
        }
        at += count;
    }
    Ok(())
}

fn has_data(layers: &mut [Open], offset: u64, length: u64) -> io::Result<bool> {
    let Some((upper, below)) = layers.split_first_mut() else { return Ok(false) };
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let (part, length) = upper.part(at)?;
        let count = length.min(end - at);
        let has = match part {
            Part::Data(_) => true,
            Part::Zeros => false,
            Part::Below => has_data(below, at, count)?,
        };
        if has {
            return Ok(true);
        }
        at += count;
    }
    Ok(false)
}
