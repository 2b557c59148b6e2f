//! How groups are shown, to people and to programs.

use std::io::Write;

use corelane::{GroupDescription, GroupList, GroupMember, GroupPartition, GroupSummary};
use corelane_broker::quantity::Span;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::table;

fn group_state(state: u8) -> &'static str {
    ["empty", "stable", "reconciling", "draining", "drained", "deleted"].get(usize::from(state)).unwrap_or(&"unknown")
}

fn member_state(state: u8) -> &'static str {
    ["stable", "giving up", "awaiting", "away"].get(usize::from(state)).unwrap_or(&"unknown")
}

fn member_id((high, low): (u64, u64)) -> String {
    format!("{high:016x}{low:016x}")
}

fn summary_json(group: &GroupSummary) -> Value {
    json!({
        "name": group.name,
        "state": group_state(group.state),
        "strategy": group.strategy,
        "generation": group.generation,
        "members": group.members,
        "owned_partitions": group.owned,
    })
}

/// `corelane group list`.
pub(super) fn list(list: &GroupList, is_json: bool) -> Outcome {
    let mut out = std::io::stdout().lock();
    if is_json {
        let groups: Value = list.groups.iter().map(summary_json).collect();
        writeln!(out, "{:#}", json!({ "groups": groups, "missing_shards": list.missing_shards }))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = list
        .groups
        .iter()
        .map(|group| {
            vec![
                group.name.clone(),
                group_state(group.state).to_owned(),
                group.members.to_string(),
                group.owned.to_string(),
                group.generation.to_string(),
                group.strategy.clone(),
            ]
        })
        .collect();
    table::print(&mut out, &["GROUP", "STATE", "MEMBERS", "PARTITIONS", "GENERATION", "STRATEGY"], &rows)?;
    if !list.missing_shards.is_empty() {
        writeln!(
            std::io::stderr(),
            "warning: groups of shards {:?} are missing: no answer in time",
            list.missing_shards
        )?;
    }
    Ok(())
}

fn member_json(group: &GroupDescription, member: &GroupMember) -> Value {
    let (lag, lag_ms) = group.lag_of(member);
    json!({
        "member": member_id(member.member),
        "static_id": member.static_id,
        "client": member.client,
        "state": member_state(member.state),
        "subscription": member.subscription,
        "capacity": member.capacity,
        "processing_us": member.processing_micros,
        "silent_ms": member.silent_ms,
        "owned": member.owned,
        "revoking": member.revoking,
        "awaiting": member.awaiting,
        "standby": member.standby,
        "lag": lag,
        "lag_ms": lag_ms,
    })
}

fn partition_json(group: &GroupDescription, partition: &GroupPartition) -> Value {
    json!({
        "topic": group.topic(partition),
        "partition": partition.partition,
        "owner": partition.owner.map(member_id),
        "revoking": partition.is_revoking,
        "committed": partition.committed,
        "committed_ms": partition.committed.map(|_| partition.committed_ms),
        "metadata": partition.metadata,
        "log_start": partition.log_start,
        "high_watermark": partition.high_watermark,
        "lag": partition.lag,
        "lag_ms": partition.lag_ms,
    })
}

/// `corelane group describe`.
pub(super) fn description(group: &GroupDescription, is_json: bool) -> Outcome {
    let mut out = std::io::stdout().lock();
    let summary = &group.summary;
    let retention_ms = u64::try_from(group.retention.as_millis()).unwrap_or(u64::MAX);
    if is_json {
        let mut whole = summary_json(summary);
        whole["standbys"] = group.standbys.into();
        whole["retention_ms"] = retention_ms.into();
        whole["lag"] = group.lag().into();
        whole["lag_ms"] = group.lag_ms().into();
        whole["members"] = group.members.iter().map(|member| member_json(group, member)).collect();
        whole["partitions"] = group.partitions.iter().map(|partition| partition_json(group, partition)).collect();
        writeln!(out, "{whole:#}")?;
        return Ok(());
    }
    writeln!(
        out,
        "group {}: {}, {}, generation {}, {} standbys, offsets kept {} without members, lag {}{}",
        summary.name,
        group_state(summary.state),
        summary.strategy,
        summary.generation,
        group.standbys,
        Span(group.retention),
        number(group.lag()),
        group.lag_ms().map(|ms| format!(" and {ms} ms")).unwrap_or_default(),
    )?;
    if !group.members.is_empty() {
        writeln!(out)?;
        members(&mut out, group)?;
    }
    if !group.partitions.is_empty() {
        writeln!(out)?;
        partitions(&mut out, group)?;
    }
    Ok(())
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn members(out: &mut impl Write, group: &GroupDescription) -> Outcome {
    let rows: Vec<Vec<String>> = group
        .members
        .iter()
        .map(|member| {
            let (lag, lag_ms) = group.lag_of(member);
            vec![
                member_id(member.member),
                member.static_id.clone().unwrap_or_else(|| "-".to_owned()),
                member_state(member.state).to_owned(),
                member.owned.to_string(),
                number(lag),
                lag_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
                format!("{} ms", member.silent_ms),
                member.processing_micros.map_or_else(|| "-".to_owned(), |micros| format!("{micros} µs")),
                member.subscription.clone(),
            ]
        })
        .collect();
    let head = ["MEMBER", "STATIC ID", "STATE", "PARTITIONS", "LAG", "BEHIND", "SILENT", "A RECORD", "SUBSCRIPTION"];
    Ok(table::print(out, &head, &rows)?)
}

fn partitions(out: &mut impl Write, group: &GroupDescription) -> Outcome {
    let rows: Vec<Vec<String>> = group
        .partitions
        .iter()
        .map(|partition| {
            let mut owner = partition.owner.map_or_else(|| "-".to_owned(), member_id);
            if partition.is_revoking {
                owner.push_str(" (giving up)");
            }
            vec![
                group.topic(partition),
                partition.partition.to_string(),
                number(partition.committed),
                number(partition.high_watermark),
                number(partition.lag),
                partition.lag_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
                owner,
            ]
        })
        .collect();
    let head = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "BEHIND", "OWNER"];
    Ok(table::print(out, &head, &rows)?)
}
