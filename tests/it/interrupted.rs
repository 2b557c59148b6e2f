//! Client commands that wait: they say so when the broker is away, and they end with a word when a signal comes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};

use crate::DEADLINE;
use crate::broker::{Broker, Place, wait_until};

/// A command that runs beside the test, and what it says on standard error; it is killed when dropped.
struct Waiting {
    child: Child,
    said: Receiver<String>,
}

impl Waiting {
    fn start(place: &Place, broker: &Broker<'_>, args: &[&str]) -> Self {
        let address = broker.quic.to_string();
        let mut command = place.command(args);
        let mut child = command.args(["--broker", &address]).stdin(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        Self { child, said }
    }

    fn write(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    #[track_caller]
    fn says(&self, text: &str) {
        loop {
            let line = self.said.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("{error} before {text:?}"));
            if line.contains(text) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    fn ends_with(&mut self, code: i32) {
        let mut ended = None;
        wait_until(|| {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(code));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_signal_lets_produce_wait_for_what_was_sent_and_says_how_much_that_was() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "chat"], b"");
    let mut produce = Waiting::start(&place, &broker, &["produce", "chat"]);
    produce.write("one\n");
    wait_until(|| broker.good(&["topic", "describe", "chat", "--json"], b"").contains("\"durable_end\": 1"));
    produce.signal(Signal::TERM);
    produce.says("1 record stored");
    produce.says("SIGTERM ended it");
    produce.ends_with(130);
}

#[test]
fn who_waits_for_a_broker_that_is_gone_says_so() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "chat"], b"");
    broker.good(&["produce", "chat"], b"zero\n");
    let mut produce = Waiting::start(&place, &broker, &["produce", "chat"]);
    let mut consume = Waiting::start(&place, &broker, &["consume", "chat"]);
    let mut printed = BufReader::new(consume.child.stdout.take().unwrap()).lines();
    assert_eq!(printed.next().unwrap().unwrap(), "zero");
    produce.write("one\n");
    assert_eq!(printed.next().unwrap().unwrap(), "one");
    broker.kill();
    // Nothing follows it: what became of it is told all the same.
    produce.write("two\n");
    produce.says("still waits for the broker");
    consume.says("the broker has been away");
    consume.signal(Signal::INT);
    consume.says("SIGINT ended it");
    consume.ends_with(130);
    // The first lets it wait for what it sent, the second does not.
    produce.signal(Signal::INT);
    produce.signal(Signal::TERM);
    produce.ends_with(130);
}
