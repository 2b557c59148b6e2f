//! Frames in a few words, for the trace.

use std::fmt::Write as _;

use corelane_record::BatchHead;
use corelane_storage::FileName;
use corelane_wire as wire;
use corelane_wire::{Frame, FrameKind};

/// What of a frame helps whoever reads a trace; the checksum stands for the rest.
pub(crate) fn describe(frame: &Frame) -> String {
    let digest = digest([&frame.body[..], &frame.attachment[..]]);
    let mut text = format!("{:?} {} {digest:08x}", frame.head.kind, frame.head.correlation);
    // Writing into a string cannot fail, and what cannot be decoded stays with its checksum.
    let _ = match frame.head.kind {
        FrameKind::Produce => produce(&mut text, frame),
        FrameKind::ProduceMany => bundle(&mut text, frame),
        FrameKind::ProduceAnswers => answers(&mut text, frame),
        FrameKind::DurableEnds => ends(&mut text, frame),
        FrameKind::Push => push(&mut text, frame),
        FrameKind::PushMany => push_bundle(&mut text, frame),
        FrameKind::Refusal => refusal(&mut text, frame),
        FrameKind::JoinGroup => member(&mut text, frame, |body: wire::JoinGroup| body.member),
        FrameKind::GroupHeartbeat => member(&mut text, frame, |body: wire::GroupHeartbeat| body.member),
        FrameKind::LeaveGroup => member(&mut text, frame, |body: wire::LeaveGroup| body.member),
        FrameKind::MemberFenced => member(&mut text, frame, |body: wire::MemberFenced| body.member),
        FrameKind::GroupAssignment => assignment(&mut text, frame),
        FrameKind::GiveUp => given_up(&mut text, frame),
        FrameKind::CommitOffsets => commit(&mut text, frame),
        FrameKind::StageOffsets => staged(&mut text, frame),
        _ => Ok(()),
    };
    text
}

/// A digest for the trace. Not CRC-32C: what ends with its own CRC-32C has the same one whatever it is.
pub(crate) fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut mixed = 0x9e37_79b9_7f4a_7c15_u64;
    for piece in pieces {
        for chunk in piece.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mixed = (mixed ^ u64::from_le_bytes(word)).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
        }
        mixed ^= piece.len() as u64;
    }
    let [a, b, c, d, ..] = (mixed ^ (mixed >> 32)).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A file as its path would be.
pub(crate) fn file_name(file: FileName) -> String {
    match file {
        FileName::Journal { slot, .. } => format!("journal/{slot}"),
        FileName::Segment { partition, base, rewrite: 0 } => format!("{partition}/{base}.segment"),
        FileName::Segment { partition, base, rewrite } => format!("{partition}/{base}-{rewrite}.segment"),
    }
}

fn produce(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::Produce>(frame) else { return Ok(()) };
    batch(text, body.topic, body.partition, &frame.attachment)
}

fn bundle(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::ProduceMany>(frame) else { return Ok(()) };
    let mut rest = &frame.attachment[..];
    for ((topic, partition), length) in body.topics.iter().zip(&body.partitions).zip(&body.lengths) {
        let Some((bytes, after)) = rest.split_at_checked(*length as usize) else { return Ok(()) };
        batch(text, *topic, *partition, bytes)?;
        rest = after;
    }
    Ok(())
}

fn batch(text: &mut String, topic: u64, partition: u32, bytes: &[u8]) -> std::fmt::Result {
    let Ok(head) = BatchHead::parse(bytes) else { return Ok(()) };
    let (producer, epoch, sequence) = (head.producer_id, head.producer_epoch, head.base_sequence);
    write!(text, " {topic}/{partition} producer {producer}.{epoch} from {sequence}, {} records", head.record_count)
}

fn answers(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::ProduceAnswers>(frame) else { return Ok(()) };
    for answer in &body.answers {
        let code = if answer.code == 0 { "at" } else { "refused" };
        let number = if answer.code == 0 { answer.base_offset } else { u64::from(answer.code) };
        write!(text, " [{} {code} {number}]", answer.correlation)?;
    }
    body.texts.iter().try_for_each(|(_, why)| write!(text, " ({why})"))
}

fn ends(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::DurableEnds>(frame) else { return Ok(()) };
    body.ends.iter().try_for_each(|end| write!(text, " {}/{} to {}", end.topic, end.partition, end.end))
}

fn push(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::Push>(frame) else { return Ok(()) };
    let Ok(head) = BatchHead::parse(&frame.attachment) else { return Ok(()) };
    write!(text, " subscription {} from {}, {} bytes", body.subscription, head.base_offset, frame.attachment.len())
}

fn push_bundle(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::PushMany>(frame) else { return Ok(()) };
    let parts = body.subscriptions.iter().zip(&body.lengths);
    parts
        .into_iter()
        .try_for_each(|(subscription, length)| write!(text, " subscription {subscription}, {length} bytes"))
}

fn refusal(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::Refusal>(frame) else { return Ok(()) };
    write!(text, " {}: {}", body.code, body.text)
}

fn member<B: wire::Body>(text: &mut String, frame: &Frame, of: impl Fn(B) -> (u64, u64)) -> std::fmt::Result {
    let Ok(body) = wire::decode::<B>(frame) else { return Ok(()) };
    write!(text, " member {:016x}", of(body).0)
}

fn assignment(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::GroupAssignment>(frame) else { return Ok(()) };
    write!(text, " member {:016x} generation {}", body.member.0, body.generation)?;
    for of in &body.owned {
        write!(text, ", {}/{} since {} from {:?}", of.topic, of.partition, of.since, of.committed)?;
    }
    body.revoking.iter().try_for_each(|of| write!(text, ", gives up {}/{}", of.topic, of.partition))
}

fn given_up(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::GiveUp>(frame) else { return Ok(()) };
    write!(text, " member {:016x} generation {} {}/{}", body.member.0, body.seen, body.topic, body.partition)
}

fn commit(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::CommitOffsets>(frame) else { return Ok(()) };
    offsets(text, body.member, body.generation, &body.offsets)
}

fn staged(text: &mut String, frame: &Frame) -> std::fmt::Result {
    let Ok(body) = wire::decode::<wire::StageOffsets>(frame) else { return Ok(()) };
    offsets(text, body.member, body.generation, &body.offsets)
}

fn offsets(
    text: &mut String,
    (member, _): (u64, u64),
    generation: u64,
    offsets: &[wire::OffsetCommit],
) -> std::fmt::Result {
    write!(text, " member {member:016x} generation {generation}")?;
    offsets.iter().try_for_each(|of| write!(text, ", {}/{} to {}", of.topic, of.partition, of.offset))
}
