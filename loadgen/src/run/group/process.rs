//! A member in a process of its own, so that it can be killed as processes are: without a word, and with what it had.
//!
//! The process tells its standard output what it sees, one JSON object a line, each before it commits what it tells of. It
//! ends when its standard input does.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use corelane::Event;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc::UnboundedReceiver;

use super::member::{Command, GroupMember, Join, MemberEnd};
use super::watch_partitions::Watch;
use super::{Counts, RunOptions};

/// What a member process saw.
#[derive(Debug, Serialize, Deserialize)]
enum Sighting {
    /// It is a member.
    Joined,
    /// It has these partitions from now on, beside those that it had.
    Assigned(Vec<u32>),
    /// Records of a partition, each with key and value.
    Batch { partition: u32, records: Vec<Message> },
    /// The group has no more for it.
    Failed(String),
}

/// One record.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// Joins and tells standard output what comes, until standard input ends; then leaves.
///
/// # Errors
/// The broker cannot be reached or refuses the member, or nobody reads standard output any more.
pub async fn run_member(join: Join, options: &RunOptions) -> anyhow::Result<()> {
    let (client, mut consumer) = join.join(options).await?;
    let mut out = tokio::io::stdout();
    tell(&mut out, &Sighting::Joined).await?;
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    loop {
        let event = tokio::select! {
            biased;
            read = stdin.read(&mut ignored) => match read? {
                0 => break,
                _ => continue,
            },
            event = consumer.next() => event,
        };
        match event {
            Some(Ok(Event::Batch(batch))) => {
                let records = batch
                    .iter()
                    .map(|record| Message {
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                    })
                    .collect();
                tell(&mut out, &Sighting::Batch { partition: batch.partition().0, records }).await?;
                consumer.commit_batch(&batch);
            }
            Some(Ok(Event::Assigned(assigned))) => {
                let partitions = assigned.iter().map(|one| one.partition.partition.0).collect();
                tell(&mut out, &Sighting::Assigned(partitions)).await?;
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => tell(&mut out, &Sighting::Failed(error.to_string())).await?,
            None => break,
        }
    }
    consumer.close().await?;
    client.close().await;
    Ok(())
}

async fn tell(out: &mut tokio::io::Stdout, sighting: &Sighting) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(sighting)?;
    line.push(b'\n');
    out.write_all(&line).await?;
    out.flush().await?;
    Ok(())
}

/// A member process, seen from the one that started it. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct MemberProcess {
    number: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl MemberProcess {
    /// Starts `program`'s hidden command `bench member` and waits until it is a member.
    pub(super) async fn start(program: &PathBuf, member: &GroupMember) -> anyhow::Result<Self> {
        let mut command = tokio::process::Command::new(program);
        command.args(["bench", "member", "--broker", &member.options.broker]);
        command.args(["--topic", &member.join.topic, "--group", &member.join.group]);
        command.args(["--session-timeout", &format!("{}ms", member.join.session_timeout.as_millis())]);
        if let Some(id) = &member.join.static_id {
            command.args(["--static-id", id]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the member's standard output is a pipe")?;
        let mut process = Self { number: member.number, child, stdin, lines: BufReader::new(stdout).lines() };
        match process.next().await? {
            Some(Sighting::Joined) => Ok(process),
            other => bail!("the member process did not join: {other:?}"),
        }
    }

    async fn next(&mut self) -> anyhow::Result<Option<Sighting>> {
        let Some(line) = self.lines.next_line().await? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&line).context("a member process told what nobody understands")?))
    }

    /// Takes in what it sees until it ended, killed or told to leave. What it told before it was killed counts.
    pub(super) async fn run(
        mut self,
        counts: Arc<Counts>,
        watch: Arc<Watch>,
        mut commands: UnboundedReceiver<Command>,
    ) -> MemberEnd {
        let mut end = MemberEnd::new(self.number);
        let mut is_told = false;
        loop {
            let sighting = tokio::select! {
                biased;
                command = commands.recv(), if !is_told => {
                    is_told = true;
                    if let Err(error) = self.obey(command) {
                        end.fail(&error);
                    }
                    continue;
                }
                sighting = self.next() => sighting,
            };
            match sighting {
                Ok(Some(Sighting::Joined)) => {}
                Ok(Some(Sighting::Assigned(partitions))) => {
                    for partition in partitions {
                        watch.on_assigned(self.number, partition);
                    }
                }
                Ok(Some(Sighting::Batch { partition, records })) => {
                    let records = records.iter().map(|one| (one.key.as_deref(), one.value.as_deref()));
                    let took = watch.on_records(partition, records);
                    end.consumed += took;
                    counts.consumed.fetch_add(took, Ordering::Relaxed);
                }
                Ok(Some(Sighting::Failed(error))) => end.fail(&error),
                Ok(None) => break,
                // A line that was being written when it was killed.
                Err(_) if is_told => break,
                Err(error) => {
                    end.fail(&format!("{error:#}"));
                    break;
                }
            }
        }
        if let Err(error) = self.child.wait().await {
            end.fail(&error);
        }
        end
    }

    /// Kills it, or lets it leave.
    fn obey(&mut self, command: Option<Command>) -> std::io::Result<()> {
        match command {
            Some(Command::Die) => self.child.start_kill(),
            Some(Command::Restart | Command::Leave) | None => {
                self.stdin = None;
                Ok(())
            }
        }
    }
}
