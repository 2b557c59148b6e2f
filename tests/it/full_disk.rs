//! Disks that run full and get room again, or cannot be written.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::DEADLINE;
use crate::admin::get;
use crate::broker::{Broker, Place};
use crate::round_trip::{numbers, values};

/// When it is set, a file system that cannot be mounted fails its test. `.ci/run` sets it where mounting works.
const MOUNTS_VARIABLE: &str = "CORELANE_TEST_MOUNTS";

/// A small file system in a file; taken off when dropped.
struct Small {
    mount: PathBuf,
}

impl Small {
    /// `None` where this user may not mount: the test is skipped then, and says so.
    fn new(place: &Place, mebibytes: u64) -> Option<Self> {
        let (image, mount) = (place.path().join("image"), place.path().join("small"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let is_made = done(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && done(Command::new("mount").args(["-o", "loop"]).args([&image, &mount]));
        if !is_made {
            assert!(std::env::var_os(MOUNTS_VARIABLE).is_none(), "a file system cannot be mounted, but has to be");
            // Past the capture of the test's output: whoever reads the run sees that less was tested.
            let word = "skipped: this user may not make and mount an ext4 file system, or there is no mkfs.ext4\n";
            std::io::stderr().write_all(word.as_bytes()).unwrap();
        }
        is_made.then_some(Self { mount })
    }

    /// Mounts it anew, with `ro` or `rw`.
    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.mount).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _still_there = Command::new("umount").arg("--lazy").arg(&self.mount).status();
    }
}

fn fill(path: &Path, mebibytes: usize) {
    std::fs::write(path, vec![1_u8; mebibytes << 20]).unwrap();
    std::fs::File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn writes_wait_while_the_disk_is_full_and_go_on_when_there_is_room() {
    let place = Place::new();
    let Some(small) = Small::new(&place, 220) else { return };
    let data = small.mount.join("data");
    let args = ["--data", data.to_str().unwrap(), "--shards", "1", "--journal-files", "4"];
    let broker = Broker::start(&place, &args);
    broker.good(&["topic", "create", "big", "-p", "1"], b"");
    let filler = small.mount.join("filler");
    fill(&filler, 110);

    let line = |number: u32| format!("{number:0>999}\n");
    let input: String = (0..90_000).map(line).collect();
    let address = broker.quic.to_string();
    let (sender, produced) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(place.run(&["produce", "big", "--broker", &address], input.as_bytes())));
        let begin = Instant::now();
        while !get(broker.admin, "/healthz").1.contains("disk is full") {
            assert!(begin.elapsed() < DEADLINE, "the disk does not get full; log: {}", broker.log());
            let early = produced.recv_timeout(Duration::from_millis(20));
            assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "all was stored on a full disk");
        }
        // What is stored can be read meanwhile.
        assert!(broker.good(&["consume", "big", "-n", "1", "-f", "%o"], b"").starts_with('0'));
        std::fs::remove_file(&filler).unwrap();
        produced.recv_timeout(DEADLINE).unwrap().good();
    });
    assert_eq!(get(broker.admin, "/healthz").0, 200);
    assert!(broker.good(&["consume", "big", "--until", "end"], b"") == input, "what is read is not what was written");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_disk_that_cannot_be_written_is_refused_at_the_start_and_left_alone() {
    let place = Place::new();
    let Some(small) = Small::new(&place, 220) else { return };
    let data = small.mount.join("data");
    let args = ["--data", data.to_str().unwrap(), "--shards", "1", "--journal-files", "4"];
    let broker = Broker::start(&place, &args);
    broker.good(&["topic", "create", "kept", "-p", "1"], b"");
    broker.good(&["produce", "kept"], numbers(0..100).as_bytes());
    broker.kill();
    small.remount("ro");
    let text = place.refused(&args).bad(1);
    assert!(text.contains("Read-only file system") && text.contains("--data"), "{text}");
    small.remount("rw");
    let broker = Broker::start(&place, &args);
    assert_eq!(values(&broker, "kept").len(), 100);
    assert_eq!(broker.stop(), Some(0));
}
