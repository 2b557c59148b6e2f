//! Answers that leave together, once a round.

use std::collections::VecDeque;

use corelane_model::{CorrelationId, ErrorCode, Offset, PartitionId, WallMillis};
use corelane_wire::{
    ArchivedDurableEnd, ArchivedProduceAnswer, DurableEnd, DurableEnds, OutFrame, ProduceAnswer, ProduceAnswers,
    encode, encode_long,
};

use crate::Refused;

/// Outcomes and ends of one frame at most; more of them take another frame.
const GATHER_MAX: usize = 4096;
/// Bytes of texts of one frame at most.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Bytes of one text; what is beyond is cut.
const TEXT_MAX: usize = 512;

const _: () = {
    assert!(GATHER_MAX * 32 + TEXT_BYTES_MAX * 2 <= corelane_model::limits::FRAME_BODY_BYTES_MAX as usize);
    assert!(GATHER_MAX * 8 + TEXT_MAX <= TEXT_BYTES_MAX);
};

/// Gathers the outcomes of produce frames and the durable ends of one connection.
///
/// Within a round outcomes leave before ends, so that a client knows a batch's offset when its end comes.
#[derive(Debug)]
pub(crate) struct Answers {
    outcomes: ProduceAnswers,
    text_bytes: usize,
    ends: DurableEnds,
    /// Outcomes gathered at the moment whose durable ends are to follow.
    early: usize,
    full: VecDeque<OutFrame>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            outcomes: ProduceAnswers { answers: Vec::new(), texts: Vec::new() },
            text_bytes: 0,
            ends: DurableEnds { ends: Vec::new() },
            early: 0,
            full: VecDeque::new(),
        }
    }
}

impl Answers {
    pub(crate) fn is_empty(&self) -> bool {
        self.outcomes.answers.is_empty() && self.ends.ends.is_empty() && self.full.is_empty()
    }

    /// Whether everything gathered may wait for the durable ends that are to follow.
    pub(crate) fn is_all_early(&self) -> bool {
        self.ends.ends.is_empty() && self.full.is_empty() && self.early == self.outcomes.answers.len()
    }

    /// As [`Self::accept`], of a batch whose durable end is to follow.
    pub(crate) fn accept_early(&mut self, correlation: CorrelationId, base_offset: Offset, timestamp: WallMillis) {
        self.early += 1;
        self.accept(correlation, base_offset, timestamp);
    }

    pub(crate) fn accept(&mut self, correlation: CorrelationId, base_offset: Offset, timestamp: WallMillis) {
        self.push(ProduceAnswer {
            correlation: correlation.0,
            base_offset: base_offset.0,
            timestamp_ms: timestamp.0,
            code: 0,
        });
    }

    pub(crate) fn refuse(&mut self, correlation: CorrelationId, refused: &Refused) {
        let text = cut(&refused.text, TEXT_MAX);
        if TEXT_BYTES_MAX < self.text_bytes + text.len() + 8 {
            self.close_outcomes();
        }
        let index = u32::try_from(self.outcomes.answers.len()).expect("at most 4,096 are gathered");
        self.text_bytes += text.len() + 8;
        self.outcomes.texts.push((index, text.to_owned()));
        let code = refused.code.to_wire();
        self.push(ProduceAnswer { correlation: correlation.0, base_offset: 0, timestamp_ms: 0, code });
    }

    pub(crate) fn end(&mut self, partition: PartitionId, end: Offset) {
        self.ends.ends.push(DurableEnd { topic: partition.topic.0, partition: partition.index.0, end: end.0 });
        if GATHER_MAX <= self.ends.ends.len() {
            // The outcomes gathered so far may belong to these ends, so they go first.
            self.close_outcomes();
            self.close_ends();
        }
    }

    pub(crate) fn poll_frame(&mut self) -> Option<OutFrame> {
        if self.full.is_empty() {
            self.close_outcomes();
            self.close_ends();
        }
        self.full.pop_front()
    }

    fn push(&mut self, answer: ProduceAnswer) {
        self.outcomes.answers.push(answer);
        if GATHER_MAX <= self.outcomes.answers.len() {
            self.close_outcomes();
        }
    }

    fn close_outcomes(&mut self) {
        if !self.outcomes.answers.is_empty() {
            let expected = self.outcomes.answers.len() * size_of::<ArchivedProduceAnswer>() + self.text_bytes * 2;
            self.full.push_back(encode_long(CorrelationId(0), &self.outcomes, expected));
            self.outcomes.answers.clear();
            self.outcomes.texts.clear();
            self.text_bytes = 0;
            self.early = 0;
        }
    }

    fn close_ends(&mut self) {
        if !self.ends.ends.is_empty() {
            let expected = self.ends.ends.len() * size_of::<ArchivedDurableEnd>();
            self.full.push_back(encode_long(CorrelationId(0), &self.ends, expected));
            self.ends.ends.clear();
        }
    }
}

/// A refusal as a text that fits into any frame.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max);
    &text[..end]
}

/// The frame that refuses one request.
pub(crate) fn refusal(correlation: CorrelationId, code: ErrorCode, text: &str) -> OutFrame {
    encode(correlation, &corelane_wire::Refusal { code: code.to_wire(), text: cut(text, TEXT_MAX * 4).to_owned() })
}
