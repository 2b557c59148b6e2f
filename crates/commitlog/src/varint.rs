//! Numbers of few bytes: LEB128 without padding, and signed ones folded.

/// Bytes of the longest number: 64 bits in groups of seven.
const BYTES_MAX: usize = 10;

pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while 0x7f < number {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Folds the sign into bit 0, so that small numbers of either sign are short.
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Takes numbers off the front of untrusted bytes.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Numbers<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) const fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next bytes as numbers of their own; `None` when there are not so many.
    pub(crate) fn split(&mut self, len: u64) -> Option<Self> {
        let end = self.at.checked_add(usize::try_from(len).ok()?).filter(|&end| end <= self.bytes.len())?;
        let part = Self::new(&self.bytes[self.at..end]);
        self.at = end;
        Some(part)
    }

    /// `None` when the bytes end within it, or it is padded or longer than 64 bits. Nothing is taken then.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for (index, &byte) in self.bytes[self.at..].iter().take(BYTES_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let is_over = index == BYTES_MAX - 1 && 1 < bits;
            let is_padded = index != 0 && byte == 0;
            if is_over || is_padded {
                return None;
            }
            number |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.at += index + 1;
                return Some(number);
            }
        }
        None
    }

    pub(crate) fn take_signed(&mut self) -> Option<i64> {
        let folded = self.take()?;
        Some((folded >> 1).cast_signed() ^ -((folded & 1).cast_signed()))
    }

    pub(crate) fn take_u32(&mut self) -> Option<u32> {
        let before = self.at;
        let number = self.take().and_then(|number| u32::try_from(number).ok());
        if number.is_none() {
            self.at = before;
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_size_round_trip() {
        for shift in 0..64 {
            for number in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put(&mut out, number);
                assert_eq!(Numbers::new(&out).take(), Some(number));
                assert_eq!(Numbers::new(&out[..out.len() - 1]).take(), None);
            }
            for number in [i64::MIN >> shift, i64::MAX >> shift] {
                let mut out = Vec::new();
                put_signed(&mut out, number);
                assert_eq!(Numbers::new(&out).take_signed(), Some(number));
            }
        }
    }

    #[test]
    fn padded_and_oversized_numbers_are_refused() {
        assert_eq!(Numbers::new(&[0x80, 0]).take(), None);
        assert_eq!(Numbers::new(&[0xff; 11]).take(), None);
        assert_eq!(Numbers::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).take(), None);
        let mut numbers = Numbers::new(&[0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(numbers.take_u32(), None);
        assert_eq!(numbers.at, 0);
    }
}
