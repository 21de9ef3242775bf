//! Damage to dumps that nobody would write.

/// Takes the last `n` bytes away.
pub fn cut_last(bytes: &mut Vec<u8>, n: usize) {
    bytes.truncate(bytes.len().saturating_sub(n));
}

/// Writes over what is there.
pub fn patch(bytes: &mut [u8], offset: usize, with: &[u8]) {
    bytes[offset..offset + with.len()].copy_from_slice(with);
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// Offset and size of a stream.
pub fn stream_location(bytes: &[u8], stream_type: u32) -> Option<(usize, usize)> {
    let (count, directory) = (word(bytes, 8)?, word(bytes, 12)?);
    let entry = |idx: usize| directory + idx * 12;
    let idx = (0..count).find(|&it| word(bytes, entry(it)) == Some(stream_type as usize))?;
    Some((word(bytes, entry(idx) + 8)?, word(bytes, entry(idx) + 4)?))
}

/// A damaged copy, the same for the same seed: bits flipped, numbers replaced by ones that hurt,
/// pieces moved, the end cut off.
pub fn mutate(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below.max(1)
    };
    let mut bytes = bytes.to_vec();
    // Most of a dump is memory; what steers a reader stands in front of it.
    let front = stream_location(&bytes, 9).map_or(bytes.len(), |(offset, size)| offset + size);
    let front = front.clamp(1, bytes.len());
    for _ in 0..1 + next(8) {
        let within = if next(4) == 0 { bytes.len() } else { front.min(bytes.len()) };
        let at = next(within.saturating_sub(8));
        match next(6) {
            0 => bytes[at] ^= 1 << next(8),
            1 => {
                let evil = [0, 1, 0x7fff_ffff, 0xffff_ffff, 0x8000_0000, 0xffff_fff0];
                let evil: u32 = evil[next(evil.len())];
                patch(&mut bytes, at & !3, &evil.to_le_bytes());
            }
            2 => patch(&mut bytes, at & !7, &u64::MAX.to_le_bytes()),
            3 => {
                let from = next(within.saturating_sub(16));
                let piece = bytes[from..from + 8].to_vec();
                patch(&mut bytes, at, &piece);
            }
            4 => {
                // A pointer to itself: lists that never end.
                patch(&mut bytes, at & !3, &(at as u32 & !3).to_le_bytes());
            }
            _ => {
                if next(6) == 0 {
                    let keep = next(bytes.len()).max(40);
                    bytes.truncate(keep);
                }
            }
        }
        if bytes.len() < 64 {
            break;
        }
    }
    bytes
}
