//! Frames out of the chunks of one stream.

use bytes::{Buf, Bytes, BytesMut};

use crate::{FRAME_HEAD_BYTES, Frame, FrameError, FrameHead};

/// Cuts the ordered bytes of one stream into frames.
///
/// A frame that lies whole within one chunk shares its memory with it; only a frame across chunks is copied, once. Holds
/// at most one frame's bytes beyond the chunk that was handed in. After an error it yields nothing more.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    chunk: Bytes,
    partial: BytesMut,
    head: Option<FrameHead>,
    is_broken: bool,
}

impl FrameDecoder {
    /// Takes the next chunk of the stream. Call [`Self::poll_frame`] until it yields nothing before the next push.
    pub fn push(&mut self, chunk: Bytes) {
        if self.is_broken {
            return;
        }
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let rest = std::mem::take(&mut self.chunk);
            self.partial.extend_from_slice(&rest);
            self.chunk = chunk;
        }
    }

    /// The next whole frame, if its bytes are there.
    ///
    /// # Errors
    /// The stream is no sequence of frames; the decoder is of no more use.
    pub fn poll_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.is_broken {
            return Ok(None);
        }
        let head = match self.head {
            Some(head) => head,
            None => match self.poll_head()? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let length = head.length as usize;
        let Some(mut body) = self.take(length) else { return Ok(None) };
        self.head = None;
        let attachment = body.split_off(head.body_length as usize);
        Ok(Some(Frame { head, body, attachment }))
    }

    /// Whether the stream stopped inside a frame.
    #[must_use]
    pub fn is_inside_frame(&self) -> bool {
        self.head.is_some() || !self.partial.is_empty() || !self.chunk.is_empty()
    }

    /// Bytes of a frame that is not whole yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial.len() + self.chunk.len()
    }

    fn poll_head(&mut self) -> Result<Option<FrameHead>, FrameError> {
        let Some(bytes) = self.take(FRAME_HEAD_BYTES) else { return Ok(None) };
        let mut fixed = [0; FRAME_HEAD_BYTES];
        fixed.copy_from_slice(&bytes);
        match FrameHead::parse(&fixed) {
            Ok(head) => {
                self.head = Some(head);
                Ok(Some(head))
            }
            Err(error) => {
                self.is_broken = true;
                self.chunk = Bytes::new();
                self.partial = BytesMut::new();
                Err(error)
            }
        }
    }

    /// The next `count` bytes of the stream, or nothing until they are there.
    fn take(&mut self, count: usize) -> Option<Bytes> {
        if self.partial.is_empty() {
            if count <= self.chunk.len() {
                return Some(self.chunk.split_to(count));
            }
            self.partial.reserve(count.max(self.chunk.len()));
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return None;
        }
        let missing = count.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk[..missing]);
        self.chunk.advance(missing);
        if self.partial.len() < count {
            self.partial.reserve(count - self.partial.len());
            return None;
        }
        let taken = self.partial.split_to(count).freeze();
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::CorrelationId;

    use super::*;
    use crate::{FrameKind, Ping, encode, encode_with};

    fn stream() -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        for i in 0..5_u64 {
            let attachment = Bytes::from(vec![u8::try_from(i).unwrap(); 37 * usize::try_from(i).unwrap()]);
            let frame = encode_with(CorrelationId(i), &Ping { payload: i }, vec![attachment]);
            frame.into_pieces().for_each(|piece| bytes.extend_from_slice(&piece));
        }
        (bytes, 5)
    }

    #[test]
    fn frames_survive_every_chunking() {
        let (bytes, count) = stream();
        for chunk in 1..bytes.len() {
            let mut decoder = FrameDecoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(chunk) {
                decoder.push(Bytes::copy_from_slice(piece));
                while let Some(frame) = decoder.poll_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen.len(), count, "chunks of {chunk}");
            assert!(!decoder.is_inside_frame());
            for (i, frame) in seen.iter().enumerate() {
                assert_eq!(frame.head.correlation.0, i as u64);
                assert_eq!(frame.attachment.len(), 37 * i);
                assert_eq!(crate::decode::<Ping>(frame).unwrap().payload, i as u64);
            }
        }
    }

    #[test]
    fn a_large_length_is_refused_before_anything_is_reserved() {
        let mut bytes = encode(CorrelationId(1), &Ping { payload: 1 }).front.to_vec();
        bytes[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut decoder = FrameDecoder::default();
        decoder.push(Bytes::from(bytes));
        assert!(matches!(decoder.poll_frame(), Err(FrameError::TooLarge { .. })));
        assert_eq!(decoder.poll_frame(), Ok(None));
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let mut bytes = encode(CorrelationId(1), &Ping { payload: 1 }).front.to_vec();
        bytes[8..10].copy_from_slice(&999_u16.to_le_bytes());
        let mut decoder = FrameDecoder::default();
        decoder.push(Bytes::from(bytes));
        assert_eq!(decoder.poll_frame(), Err(FrameError::UnknownKind { kind: 999 }));
        assert_eq!(FrameKind::from_wire(999), None);
    }
}
