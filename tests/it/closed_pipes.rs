//! A reader of our output that has seen enough (`| head`) is no failure.

use std::io::Read;
use std::process::Stdio;

use crate::broker::{Broker, Place};

/// Exit code and standard error of a command whose standard output nobody reads.
fn unread(place: &Place, args: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = place.command(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    (child.wait().unwrap().code(), error)
}

#[test]
fn commands_end_in_silence_when_nobody_reads_them() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "chat", "-p", "3"], b"");
    broker.good(&["produce", "chat", "-K", "\\t"], b"a\tone\nb\ttwo\n");
    let (quic, admin) = (broker.quic.to_string(), broker.admin.to_string());
    for args in [
        &["completions", "bash"][..],
        &["topic", "list", "--broker", &quic],
        &["topic", "list", "--json", "--broker", &quic],
        &["topic", "describe", "chat", "--broker", &quic],
        &["status", "--broker", &quic, "--admin", &admin],
        &["consume", "chat", "--until", "end", "--broker", &quic],
        &["topic", "truncate", "chat", "--before", "end", "--broker", &quic],
    ] {
        assert_eq!(unread(&place, args), (Some(0), String::new()), "{args:?}");
    }
    // What was asked for was done all the same.
    assert_eq!(broker.good(&["consume", "chat", "--until", "end"], b""), "");
}
