//! ClickHouse's compressed frames, as an HTTP body with `decompress=1`.
//!
//! A frame is a CityHash128 (version 1.0.2) over the rest, one byte `0x82` for LZ4, the frame's length without the hash
//! and its length when unpacked, both little-endian `u32`, and an LZ4 block.

use cityhash_rs::cityhash_102_128;

use super::body::Pieces;
use crate::columns::native::PIECE;

/// Bytes in a frame before compression: large enough to find repetitions, small enough to stay in a core's cache.
const FRAME: usize = PIECE;
const HASH: usize = 16;
const HEADER: usize = 9;
const LZ4: u8 = 0x82;

/// Packs `bytes` into frames of 256 KiB.
pub fn compress(bytes: &[u8]) -> Pieces {
    Packer::new(true).finish(bytes)
}

/// Packs what is encoded piece by piece, so that the whole is never there unpacked.
#[derive(Debug)]
pub struct Packer {
    compressed: bool,
    out: Pieces,
    /// Room for a packed frame.
    room: Vec<u8>,
}

impl Packer {
    /// Makes frames, or takes everything as it is.
    pub fn new(compressed: bool) -> Packer {
        Packer { compressed, out: Pieces::default(), room: Vec::new() }
    }

    /// Takes the whole frames at the beginning of `bytes` away.
    pub fn take(&mut self, bytes: &mut Vec<u8>) {
        let whole = bytes.len() / FRAME * FRAME;
        bytes[..whole].chunks_exact(FRAME).for_each(|chunk| self.frame(chunk));
        bytes.drain(..whole);
    }

    /// Takes the rest too and answers everything.
    pub fn finish(mut self, rest: &[u8]) -> Pieces {
        rest.chunks(FRAME).for_each(|chunk| self.frame(chunk));
        self.out
    }

    fn frame(&mut self, chunk: &[u8]) {
        if !self.compressed {
            return self.out.push(chunk.to_vec());
        }
        self.room.resize(lz4_flex::block::get_maximum_output_size(chunk.len()).max(self.room.len()), 0);
        #[allow(clippy::expect_used, reason = "a frame that said it was packed and is not would be taken")]
        let packed =
            lz4_flex::block::compress_into(chunk, &mut self.room).expect("the room is the greatest that LZ4 can need");
        let mut frame = Vec::with_capacity(HASH + HEADER + packed);
        frame.extend_from_slice(&[0; HASH]);
        frame.push(LZ4);
        frame.extend_from_slice(&((HEADER + packed) as u32).to_le_bytes());
        frame.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        frame.extend_from_slice(&self.room[..packed]);
        let hash = cityhash_102_128(&frame[HASH..]);
        // The first 64 bits of the hash are the upper half of this crate's number.
        frame[..8].copy_from_slice(&((hash >> 64) as u64).to_le_bytes());
        frame[8..HASH].copy_from_slice(&(hash as u64).to_le_bytes());
        self.out.push(frame);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// All pieces together.
    fn whole(mut pieces: Pieces) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(piece) = pieces.pop() {
            out.extend_from_slice(&piece);
        }
        out
    }

    fn decompress(mut frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !frames.is_empty() {
            let number = |at: usize| u32::from_le_bytes(frames[at..at + 4].try_into().unwrap()) as usize;
            let (packed, unpacked) = (number(17), number(21));
            out.extend(lz4_flex::block::decompress(&frames[25..16 + packed], unpacked).unwrap());
            frames = &frames[16 + packed..];
        }
        out
    }

    #[test]
    fn unpacks_to_what_was_packed() {
        let mut rng = fastrand::Rng::with_seed(3);
        for length in [0, 1, 12, 13, 1_000, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME + 7] {
            let text: Vec<u8> = (0..length).map(|index| (index / 7 % 251) as u8).collect();
            let noise: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
            let packed = whole(compress(&text));
            assert!(decompress(&packed) == text, "text of {length}");
            assert!(decompress(&whole(compress(&noise))) == noise, "noise of {length}");
            // Piece by piece it is the same, packed or not.
            for (compressed, expected) in [(true, &packed), (false, &text)] {
                let (mut packer, mut left) = (Packer::new(compressed), Vec::new());
                for piece in text.chunks(100_000) {
                    left.extend_from_slice(piece);
                    packer.take(&mut left);
                    assert!(left.len() < FRAME);
                }
                assert!(whole(packer.finish(&left)) == *expected, "pieces of {length}");
            }
            // The text repeats itself every 1,757 bytes.
            assert!(length < 20_000 || packed.len() < length / 4);
        }
    }
}
