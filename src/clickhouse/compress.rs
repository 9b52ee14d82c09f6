//! ClickHouse's compressed frames, as an HTTP body with `decompress=1`.
//!
//! A frame is a CityHash128 (version 1.0.2) over the rest, one byte `0x82` for LZ4, the frame's length without the hash
//! and its length when unpacked, both little-endian `u32`, and an LZ4 block.

use cityhash_rs::cityhash_102_128;

/// Bytes in a frame before compression: large enough to find repetitions, small enough to stay in a core's cache.
const FRAME: usize = 256 * 1024;
const HASH: usize = 16;
const HEADER: usize = 9;
const LZ4: u8 = 0x82;

/// Packs `bytes` into frames of 256 KiB.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut packer = Packer::default();
    bytes.chunks(FRAME).for_each(|chunk| packer.frame(chunk));
    packer.out
}

/// Packs what is encoded piece by piece, so that the whole is never there unpacked.
#[derive(Debug, Default)]
pub struct Packer {
    out: Vec<u8>,
    /// Room for a packed frame.
    room: Vec<u8>,
}

impl Packer {
    /// Packs the whole frames at the beginning of `bytes` and takes them away.
    pub fn take(&mut self, bytes: &mut Vec<u8>) {
        let whole = bytes.len() / FRAME * FRAME;
        bytes[..whole].chunks_exact(FRAME).for_each(|chunk| self.frame(chunk));
        bytes.drain(..whole);
    }

    /// Packs the rest and answers all frames.
    pub fn finish(mut self, rest: &[u8]) -> Vec<u8> {
        rest.chunks(FRAME).for_each(|chunk| self.frame(chunk));
        self.out
    }

    fn frame(&mut self, chunk: &[u8]) {
        self.room.resize(lz4_flex::block::get_maximum_output_size(chunk.len()).max(self.room.len()), 0);
        // The room is the greatest that LZ4 can need, so this does not fail; if it did, the checksum would show it.
        let packed = lz4_flex::block::compress_into(chunk, &mut self.room).unwrap_or(0);
        let begin = self.out.len();
        self.out.extend_from_slice(&[0; HASH]);
        self.out.push(LZ4);
        self.out.extend_from_slice(&((HEADER + packed) as u32).to_le_bytes());
        self.out.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&self.room[..packed]);
        let hash = cityhash_102_128(&self.out[begin + HASH..]);
        // The first 64 bits of the hash are the upper half of this crate's number.
        self.out[begin..begin + 8].copy_from_slice(&((hash >> 64) as u64).to_le_bytes());
        self.out[begin + 8..begin + HASH].copy_from_slice(&(hash as u64).to_le_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

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
            assert!(decompress(&compress(&text)) == text, "text of {length}");
            assert!(decompress(&compress(&noise)) == noise, "noise of {length}");
            // Piece by piece it is the same.
            let (mut packer, mut left) = (Packer::default(), Vec::new());
            for piece in text.chunks(100_000) {
                left.extend_from_slice(piece);
                packer.take(&mut left);
                assert!(left.len() < FRAME);
            }
            assert!(packer.finish(&left) == compress(&text), "pieces of {length}");
            // The text repeats itself every 1,757 bytes.
            assert!(length < 20_000 || compress(&text).len() < length / 4);
        }
    }
}
