//! The supervisor's side, with machines that misbehave on purpose.

use std::path::Path;

use corelane_model::{MonotonicNanos, Now};
use corelane_shard::{Effect, Event};

use super::*;
use crate::Sockets;

/// What a machine does when it is told to drain.
#[derive(Clone, Copy)]
enum Manner {
    Obeys,
    Ignores,
    Panics,
}

struct Stub {
    manner: Manner,
    effects: Vec<Effect>,
}

impl Machine for Stub {
    fn handle(&mut self, _now: Now, event: Event) {
        if let Event::Drain = event {
            match self.manner {
                Manner::Obeys => self.effects.push(Effect::Drained),
                Manner::Ignores => {}
                Manner::Panics => panic!("told to drain"),
            }
        }
    }

    fn finish_round(&mut self, _now: Now) {}

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop()
    }

    fn next_deadline(&self) -> Option<MonotonicNanos> {
        None
    }
}

fn tls() -> Arc<rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

fn start(manners: &[Manner]) -> (Handle, tempfile::TempDir) {
    let (handle, directory) = start_in_own(manners);
    (handle.unwrap(), directory)
}

fn start_in_own(manners: &[Manner]) -> (Result<Handle, StartError>, tempfile::TempDir) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/reactor-tests");
    std::fs::create_dir_all(&target).unwrap();
    let directory = tempfile::tempdir_in(target).unwrap();
    let world = World {
        data_dir: directory.path().to_owned(),
        cpus: Vec::new(),
        tls: tls(),
        spin: Spin::Off,
        reset_key: [1; 32],
        seed: [2; 32],
        connection_bytes: 64 << 20,
    };
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), manners.len()).unwrap();
    let makers =
        manners.iter().map(|&manner| move || Stub { manner, effects: vec![Effect::Ready] }).collect::<Vec<_>>();
    (start_machines(&world, sockets, makers), directory)
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn obedient_shards_become_ready_drain_and_end() {
    let (handle, _directory) = start(&[Manner::Obeys, Manner::Obeys]);
    assert_eq!(handle.wait_ready(SOON), Ok(true));
    assert_eq!(handle.stats().len(), 2);
    assert_eq!(handle.drain(SOON), Ok(true));
    assert_eq!(handle.join(), Ok(()));
}

#[test]
fn a_shard_that_does_not_drain_is_not_waited_for() {
    let (handle, _directory) = start(&[Manner::Obeys, Manner::Ignores]);
    assert_eq!(handle.wait_ready(SOON), Ok(true));
    assert_eq!(handle.drain(Duration::from_millis(50)), Ok(false));
    assert_eq!(handle.join(), Ok(()));
}

#[test]
fn a_panic_is_reported_with_its_text_and_its_shard() {
    let (handle, _directory) = start(&[Manner::Obeys, Manner::Panics]);
    assert_eq!(handle.wait_ready(SOON), Ok(true));
    let failure = ShardFailure { shard: ShardId(1), text: "told to drain".to_owned() };
    assert_eq!(handle.drain(SOON), Err(failure.clone()));
    assert_eq!(handle.failed(), Some(failure.clone()));
    assert_eq!(handle.wait_failure(SOON), Some(failure.clone()));
    assert_eq!(handle.join(), Err(failure));
}

#[test]
fn an_executor_that_cannot_be_made_in_its_thread_is_an_error_with_its_reason() {
    const LIMITED: &str = "CORELANE_TEST_LIMITED";
    const NAME: &str = "cluster::tests::an_executor_that_cannot_be_made_in_its_thread_is_an_error_with_its_reason";
    if std::env::var_os(LIMITED).is_some() {
        let (outcome, _directory) = start_in_own(&[Manner::Obeys, Manner::Obeys]);
        let Err(StartError::Executor { shard, text }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(shard, ShardId(0));
        assert!(text.to_lowercase().contains("memlock"), "{text}");
        return;
    }
    // The limit is a process's, and the other tests of this one need theirs.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -l 64 && exec \"$0\" --exact \"$1\""]);
    let output = command.arg(std::env::current_exe().unwrap()).arg(NAME).env(LIMITED, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
