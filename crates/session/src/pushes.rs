//! Batches for subscriptions that leave together, once a round.

use bytes::{Bytes, BytesMut};
use corelane_model::limits::{PUSH_BUNDLE_BYTES, PUSH_BUNDLE_SUBSCRIPTIONS};
use corelane_model::{CorrelationId, Offset, SubscriptionId};
use corelane_wire::{OutFrame, Push, PushMany, encode_with};

/// What one subscription is pushed.
#[derive(Debug)]
struct Waiting {
    /// How many came before it.
    place: usize,
    slot: u8,
    subscription: SubscriptionId,
    high_watermark: Offset,
    batches: Vec<Bytes>,
    bytes: usize,
}

/// Gathers the pushes of one connection.
///
/// Small ones that follow each other on a push stream leave as one bundle, copied into one run of bytes, in the place of the first
/// of them; one that would fill a quarter of a bundle leaves alone, uncopied. Otherwise they leave in the order in which they
/// came, and on each stream always.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    waiting: Vec<Waiting>,
}

impl Pushes {
    pub(crate) fn add(&mut self, slot: u8, subscription: SubscriptionId, high_watermark: Offset, batches: Vec<Bytes>) {
        let bytes = batches.iter().map(Bytes::len).sum();
        let place = self.waiting.len();
        self.waiting.push(Waiting { place, slot, subscription, high_watermark, batches, bytes });
    }

    /// Hands over everything, each frame with its push stream; nothing is gathered then.
    pub(crate) fn take_frames(&mut self, mut send: impl FnMut(u8, OutFrame)) {
        // It is stable, and costs little: subscriptions that share a stream mostly have their turns together.
        self.waiting.sort_by_key(|waiting| waiting.slot);
        let mut frames = Vec::new();
        let mut rest = &mut self.waiting[..];
        while let Some(&Waiting { place, slot, .. }) = rest.first() {
            let count = bundle_len(rest);
            let (bundle, behind) = rest.split_at_mut(count);
            frames.push((place, slot, encode_bundle(bundle)));
            rest = behind;
        }
        self.waiting.clear();
        frames.sort_unstable_by_key(|&(place, ..)| place);
        frames.into_iter().for_each(|(_, slot, frame)| send(slot, frame));
    }
}

/// How many of these leave in the next frame.
fn bundle_len(waiting: &[Waiting]) -> usize {
    let (slot, mut bytes) = (waiting[0].slot, 0);
    let is_in = |waiting: &&Waiting| {
        bytes += waiting.bytes;
        waiting.slot == slot && waiting.bytes < PUSH_BUNDLE_BYTES / 4 && bytes <= PUSH_BUNDLE_BYTES
    };
    waiting.iter().take(PUSH_BUNDLE_SUBSCRIPTIONS).take_while(is_in).count().max(1)
}

fn encode_bundle(bundle: &mut [Waiting]) -> OutFrame {
    if let [Waiting { subscription, high_watermark, batches, .. }] = bundle {
        let body = Push { subscription: subscription.0, high_watermark: high_watermark.0 };
        return encode_with(CorrelationId(0), &body, std::mem::take(batches));
    }
    let body = PushMany {
        subscriptions: bundle.iter().map(|waiting| waiting.subscription.0).collect(),
        high_watermarks: bundle.iter().map(|waiting| waiting.high_watermark.0).collect(),
        lengths: bundle.iter().map(|waiting| u32::try_from(waiting.bytes).expect("a bundle is small")).collect(),
    };
    let mut run = BytesMut::with_capacity(bundle.iter().map(|waiting| waiting.bytes).sum());
    bundle.iter().flat_map(|waiting| &waiting.batches).for_each(|batch| run.extend_from_slice(batch));
    encode_with(CorrelationId(0), &body, vec![run.freeze()])
}

#[cfg(test)]
mod tests {
    use corelane_wire::{Frame, FrameDecoder, FrameKind, decode};

    use super::*;

    fn frames(pushes: &mut Pushes) -> Vec<(u8, Frame)> {
        let mut frames = Vec::new();
        pushes.take_frames(|slot, frame| {
            let mut decoder = FrameDecoder::default();
            decoder.push(frame.into_pieces().flatten().collect());
            frames.push((slot, decoder.poll_frame().unwrap().unwrap()));
        });
        frames
    }

    /// What a reader of a frame takes for each subscription.
    fn parts(frame: &Frame) -> Vec<(u64, u64, Bytes)> {
        if frame.head.kind == FrameKind::Push {
            let push: Push = decode(frame).unwrap();
            return vec![(push.subscription, push.high_watermark, frame.attachment.clone())];
        }
        let push: PushMany = decode(frame).unwrap();
        let mut rest = frame.attachment.clone();
        let parts = push.subscriptions.iter().zip(&push.high_watermarks).zip(&push.lengths);
        let parts = parts.map(|((&subscription, &end), &bytes)| (subscription, end, rest.split_to(bytes as usize)));
        let parts = parts.collect();
        assert!(rest.is_empty());
        parts
    }

    fn add(pushes: &mut Pushes, slot: u8, subscription: u64, high_watermark: u64, batches: &[&'static [u8]]) {
        let batches = batches.iter().map(|&batch| Bytes::from_static(batch)).collect();
        pushes.add(slot, SubscriptionId(subscription), Offset(high_watermark), batches);
    }

    #[test]
    fn small_pushes_of_a_stream_leave_together_in_their_order() {
        let mut pushes = Pushes::default();
        add(&mut pushes, 3, 9, 20, &[b"ab", b"c"]);
        add(&mut pushes, 1, 5, 7, &[b"de"]);
        add(&mut pushes, 3, 8, 30, &[b"fgh"]);
        add(&mut pushes, 3, 9, 21, &[b"i"]);
        let frames = frames(&mut pushes);
        let kinds: Vec<_> = frames.iter().map(|(slot, frame)| (*slot, frame.head.kind)).collect();
        assert_eq!(kinds, [(3, FrameKind::PushMany), (1, FrameKind::Push)]);
        assert_eq!(parts(&frames[1].1), [(5, 7, Bytes::from_static(b"de"))]);
        let three = [(9, 20, &b"abc"[..]), (8, 30, b"fgh"), (9, 21, b"i")];
        assert_eq!(parts(&frames[0].1), three.map(|(id, end, bytes)| (id, end, Bytes::from_static(bytes))));
        pushes.take_frames(|_, frame| panic!("{frame:?} left twice"));
    }

    #[test]
    fn bundles_are_bounded_and_large_pushes_leave_alone() {
        static LARGE: [u8; PUSH_BUNDLE_BYTES / 4] = [7; PUSH_BUNDLE_BYTES / 4];
        let mut pushes = Pushes::default();
        add(&mut pushes, 0, 1, 1, &[b"a"]);
        add(&mut pushes, 0, 2, 1, &[&LARGE]);
        add(&mut pushes, 0, 3, 1, &[b"b"]);
        for subscription in 0..300 {
            add(&mut pushes, 0, 4 + subscription, 1, &[&LARGE[..PUSH_BUNDLE_BYTES / 100]]);
        }
        let frames = frames(&mut pushes);
        let sizes: Vec<_> = frames.iter().map(|(_, frame)| parts(frame).len()).collect();
        assert_eq!(sizes[..3], [1, 1, 101], "{sizes:?}");
        assert!(frames.iter().all(|(_, frame)| frame.attachment.len() <= PUSH_BUNDLE_BYTES));
        let seen: Vec<_> = frames.iter().flat_map(|(_, frame)| parts(frame)).map(|(id, ..)| id).collect();
        assert!(seen.iter().copied().eq(1..304));
        for subscription in 0..300 {
            add(&mut pushes, 0, subscription, 1, &[b"c"]);
        }
        let sizes: Vec<_> = self::frames(&mut pushes).iter().map(|(_, frame)| parts(frame).len()).collect();
        assert_eq!(sizes, [128, 128, 44]);
    }
}
