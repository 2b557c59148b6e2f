//! How queues are shown, to people and to programs.

use std::io::Write;

use corelane::{Backoff, QueueDescription, QueueList, QueueMember, QueuePartition, QueueSummary, QueueWish};
use corelane_broker::quantity::Span;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::table;

fn member_id((high, low): (u64, u64)) -> String {
    format!("{high:016x}{low:016x}")
}

fn topic(queue: &QueueSummary) -> String {
    if queue.topic.is_empty() { format!("(deleted {})", queue.topic_id) } else { queue.topic.clone() }
}

fn summary_json(queue: &QueueSummary) -> Value {
    json!({
        "group": queue.group,
        "topic": topic(queue),
        "members": queue.members,
        "ready": queue.ready,
        "leased": queue.leased,
        "delayed": queue.delayed,
        "dead": queue.dead,
        "broken": (!queue.broken.is_empty()).then_some(&queue.broken),
    })
}

/// `corelane queue list`.
pub(super) fn list(list: &QueueList, is_json: bool) -> Outcome {
    let mut out = std::io::stdout().lock();
    if is_json {
        let queues: Value = list.queues.iter().map(summary_json).collect();
        writeln!(out, "{:#}", json!({ "queues": queues, "missing_shards": list.missing_shards }))?;
        return Ok(());
    }
    print_list(&mut out, list)?;
    if !list.missing_shards.is_empty() {
        let missing = &list.missing_shards;
        writeln!(std::io::stderr(), "warning: queues of shards {missing:?} are missing: no answer in time")?;
    }
    Ok(())
}

fn print_list(out: &mut impl Write, list: &QueueList) -> std::io::Result<()> {
    let row = |queue: &QueueSummary| {
        let numbers = [u64::from(queue.members), queue.ready, queue.leased, queue.delayed, queue.dead];
        let is_broken = !queue.broken.is_empty();
        let numbers = numbers.map(|number| if is_broken { "-".to_owned() } else { number.to_string() });
        [queue.group.clone(), topic(queue)].into_iter().chain(numbers).collect()
    };
    let rows: Vec<Vec<String>> = list.queues.iter().map(row).collect();
    table::print(out, &["GROUP", "TOPIC", "MEMBERS", "READY", "LEASED", "DELAYED", "DEAD"], &rows)?;
    for queue in list.queues.iter().filter(|queue| !queue.broken.is_empty()) {
        let (group, topic, why) = (&queue.group, topic(queue), &queue.broken);
        writeln!(out, "{group} on {topic} is broken and can only be deleted: a record of it cannot be read: {why}")?;
    }
    Ok(())
}

fn backoff(backoff: &Backoff) -> String {
    match backoff {
        Backoff::Exponential { first, cap } => format!("{}..{}", Span(*first), Span(*cap)),
        Backoff::Steps(steps) => steps.iter().map(|&step| Span(step).to_string()).collect::<Vec<_>>().join(","),
    }
}

fn settings_json(settings: &QueueWish) -> Value {
    json!({
        "visibility_ms": settings.visibility.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        "dispatch": settings.dispatch.map(|dispatch| dispatch.name()),
        "order_per_key": settings.order_per_key,
        "delivery_limit": settings.delivery_limit,
        "backoff": settings.backoff.as_ref().map(backoff),
        "dead_letter": settings.dead_letter.as_ref().map(|name| name.as_str().to_owned()),
    })
}

fn partition_json(partition: &QueuePartition) -> Value {
    json!({
        "partition": partition.partition,
        "done_end": partition.done_end,
        "read_end": partition.read_end,
        "high_watermark": partition.high_watermark,
        "ready": partition.ready,
        "leased": partition.leased,
        "delayed": partition.delayed,
        "held": partition.held,
        "dying": partition.dying,
        "done": partition.done,
        "dead": partition.dead,
        "lag": partition.lag(),
        "lag_ms": partition.lag_ms(),
        "waits_for": partition.waits_for(),
    })
}

fn member_json(member: &QueueMember) -> Value {
    json!({
        "member": member_id(member.member),
        "client": member.client,
        "weight": member.weight,
        "leased": member.leased,
        "credit_records": member.credit_records,
        "credit_bytes": member.credit_bytes,
        "processing_us": member.processing_micros,
        "delivered": member.delivered,
        "acknowledged": member.acknowledged,
        "failed": member.failed,
        "silent_ms": member.silent_ms,
    })
}

fn print_settings(out: &mut impl Write, settings: &QueueWish) -> std::io::Result<()> {
    let limit = match settings.delivery_limit {
        None | Some(0) => "no delivery limit".to_owned(),
        Some(limit) => format!("{limit} deliveries at most"),
    };
    writeln!(
        out,
        "visibility {}, dispatch {}, {}, {limit}, back-off {}, dead letters to {}",
        settings.visibility.map_or_else(|| "-".to_owned(), |span| Span(span).to_string()),
        settings.dispatch.map_or("-", |dispatch| dispatch.name()),
        if settings.order_per_key == Some(true) { "ordered per key" } else { "in no order per key" },
        settings.backoff.as_ref().map_or_else(|| "-".to_owned(), backoff),
        settings.dead_letter.as_ref().map_or("no topic", |name| name.as_str()),
    )
}

/// `corelane queue describe`.
pub(super) fn description(queue: &QueueDescription, is_json: bool) -> Outcome {
    let mut out = std::io::stdout().lock();
    let (summary, settings) = (&queue.summary, &queue.settings);
    if is_json {
        let mut whole = summary_json(summary);
        whole["lag"] = queue.lag().into();
        whole["lag_ms"] = queue.lag_ms().into();
        whole["settings"] = settings_json(settings);
        whole["partitions"] = queue.partitions.iter().map(partition_json).collect();
        whole["member_list"] = queue.members.iter().map(member_json).collect();
        writeln!(out, "{whole:#}")?;
        return Ok(());
    }
    writeln!(
        out,
        "queue {} of topic {}: lag {}{}, {} ready, {} leased, {} delayed, {} dead letters",
        summary.group,
        topic(summary),
        queue.lag(),
        queue.lag_ms().map(|ms| format!(" and {ms} ms")).unwrap_or_default(),
        summary.ready,
        summary.leased,
        summary.delayed,
        summary.dead
    )?;
    print_settings(&mut out, settings)?;
    writeln!(out)?;
    let row = |partition: &QueuePartition| {
        let numbers = [
            u64::from(partition.partition),
            partition.done_end,
            partition.high_watermark,
            partition.lag(),
            partition.ready,
            partition.leased,
            partition.delayed,
            partition.held,
            partition.dead,
        ];
        let behind = partition.lag_ms().map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let waits = partition.waits_for().unwrap_or("-").to_owned();
        numbers.map(|number| number.to_string()).into_iter().chain([behind, waits]).collect()
    };
    let rows: Vec<Vec<String>> = queue.partitions.iter().map(row).collect();
    let head =
        ["PARTITION", "DONE TO", "END", "LAG", "READY", "LEASED", "DELAYED", "HELD", "DEAD", "BEHIND", "WAITS FOR"];
    table::print(&mut out, &head, &rows)?;
    for partition in &queue.partitions {
        if let Some(what) = partition.waits_for() {
            let index = partition.partition;
            writeln!(out, "partition {index} hands out nothing: its window is full, most of it is {what}")?;
        }
    }
    if queue.members.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let row = |member: &QueueMember| {
        let numbers = [member.leased, u64::from(member.credit_records), member.acknowledged, member.failed];
        let processing = member.processing_micros.map_or_else(|| "-".to_owned(), |micros| format!("{micros} µs"));
        let silent = format!("{} ms", member.silent_ms);
        [member_id(member.member), member.client.clone()]
            .into_iter()
            .chain(numbers.map(|number| number.to_string()))
            .chain([processing, silent])
            .collect()
    };
    let rows: Vec<Vec<String>> = queue.members.iter().map(row).collect();
    table::print(&mut out, &["MEMBER", "CLIENT", "LEASED", "CREDIT", "DONE", "FAILED", "A RECORD", "SILENT"], &rows)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(group: &str, broken: &str) -> QueueSummary {
        QueueSummary {
            group: group.to_owned(),
            topic: "mail".to_owned(),
            topic_id: 7,
            members: 2,
            ready: 3,
            leased: 4,
            delayed: 5,
            dead: 6,
            broken: broken.to_owned(),
        }
    }

    #[test]
    fn a_queue_that_cannot_be_read_is_shown_as_broken() {
        let queues = vec![queue("sound", ""), queue("bad", "queue format 77 is not known")];
        assert_eq!(summary_json(&queues[0])["broken"], Value::Null);
        assert_eq!(summary_json(&queues[1])["broken"], "queue format 77 is not known");
        let mut out = Vec::new();
        print_list(&mut out, &QueueList { queues, missing_shards: Vec::new() }).expect("memory takes every write");
        let text = String::from_utf8(out).expect("it is text");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["sound", "mail", "2", "3", "4", "5", "6"]);
        assert_eq!(lines[2], ["bad", "mail", "-", "-", "-", "-", "-"]);
        let told = "bad on mail is broken and can only be deleted: a record of it cannot be read: queue format 77 is not known";
        assert_eq!(lines[3].join(" "), told);
    }
}
