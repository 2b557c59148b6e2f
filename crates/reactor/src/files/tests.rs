//! The file executor against a real file system, below the target directory: /tmp may be in memory, where direct I/O is
//! not real.

use std::future::Future;

use corelane_model::{Offset, PartitionId, PartitionIndex, ShardId, TopicId};
use corelane_storage::IoId;
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};

use super::*;

/// The longest that a test waits for all of its completions.
const DEADLINE: Duration = Duration::from_secs(120);
const JOURNAL: FileName = FileName::Journal { shard: ShardId(0), slot: 3 };

fn segment(topic: u64, base: u64) -> FileName {
    FileName::Segment { partition: PartitionId::new(TopicId(topic), PartitionIndex(0)), base: Offset(base), rewrite: 0 }
}

fn on_executor<F: Future<Output = ()>>(test: impl FnOnce(Files, PathBuf) -> F + Send + 'static) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/reactor-tests");
    std::fs::create_dir_all(&target).unwrap();
    let directory = tempfile::tempdir_in(target).unwrap();
    let root = directory.path().to_owned();
    let thread = LocalExecutorBuilder::new(Placement::Unbound).spawn(move || async move {
        let queue = glommio::executor().create_task_queue(Shares::Static(100), Latency::NotImportant, "background");
        let files = Files::open(&root, ShardId(0), queue, Rc::new(LocalBell::default())).await.unwrap();
        let test = async {
            test(files, root).await;
            Ok::<(), GlommioError<()>>(())
        };
        glommio::timer::timeout(DEADLINE, test).await.expect("all that was started completes within the deadline");
    });
    thread.unwrap().join().unwrap();
}

async fn run(files: &Files, file: FileName, op: FileOp, urgency: Urgency) -> Result<FileOutcome, FileError> {
    files.start(FileEffect { id: IoId(7), file, op, urgency }, false);
    loop {
        if let Some(done) = files.take_done() {
            assert_eq!(done.id, IoId(7));
            return done.result;
        }
        glommio::timer::sleep(Duration::from_micros(100)).await;
    }
}

/// As the loop of a shard does it, which may look without parking.
async fn looking(files: &Files, file: FileName, op: FileOp) -> Result<FileOutcome, FileError> {
    files.start(FileEffect { id: IoId(8), file, op, urgency: Urgency::Now }, true);
    next_done(files).await.result
}

async fn next_done(files: &Files) -> FileDone {
    loop {
        if let Some(done) = files.take_done() {
            return done;
        }
        glommio::timer::sleep(Duration::from_micros(50)).await;
    }
}

async fn now(files: &Files, file: FileName, op: FileOp) -> Result<FileOutcome, FileError> {
    run(files, file, op, Urgency::Now).await
}

fn block(fill: u8) -> Bytes {
    Bytes::from(vec![fill; 4096])
}

#[test]
fn a_zeroed_file_takes_pieces_where_they_belong() {
    on_executor(|files, root| async move {
        assert_eq!(now(&files, JOURNAL, FileOp::CreateZeroed { length: 3 << 20 }).await, Ok(FileOutcome::Done));
        assert_eq!(std::fs::metadata(root.join("journal/0/3")).unwrap().len(), 3 << 20);
        let pieces = vec![Bytes::from(vec![1; 5000]), Bytes::new(), Bytes::from(vec![2; 3192])];
        let write = FileOp::Write { position: 8192, pieces };
        assert_eq!(now(&files, JOURNAL, write).await, Ok(FileOutcome::Written(8192)));
        assert_eq!(now(&files, JOURNAL, FileOp::Sync).await, Ok(FileOutcome::Done));
        let Ok(FileOutcome::Read(bytes)) = now(&files, JOURNAL, FileOp::Read { position: 4096, length: 16384 }).await
        else {
            panic!("nothing read")
        };
        let expected = [vec![0; 4096], vec![1; 5000], vec![2; 3192], vec![0; 4096]].concat();
        assert_eq!(bytes, expected);
    });
}

#[test]
fn a_file_made_anew_is_all_zeros_and_as_long_as_asked() {
    on_executor(|files, root| async move {
        now(&files, JOURNAL, FileOp::CreateZeroed { length: 2 << 20 }).await.unwrap();
        now(&files, JOURNAL, FileOp::Write { position: 0, pieces: vec![block(9)] }).await.unwrap();
        let anew = FileOp::CreateZeroed { length: 1 << 20 };
        assert_eq!(run(&files, JOURNAL, anew, Urgency::Background).await, Ok(FileOutcome::Done));
        assert_eq!(std::fs::read(root.join("journal/0/3")).unwrap(), vec![0; 1 << 20]);
    });
}

#[test]
fn reads_end_where_the_file_ends() {
    on_executor(|files, _| async move {
        now(&files, segment(1, 0), FileOp::CreateEmpty).await.unwrap();
        now(&files, segment(1, 0), FileOp::Write { position: 0, pieces: vec![block(3)] }).await.unwrap();
        for (position, expected) in [(0, 4096), (4096, 0), (8192, 0)] {
            let read = FileOp::Read { position, length: 65536 };
            let Ok(FileOutcome::Read(bytes)) = now(&files, segment(1, 0), read).await else { panic!("nothing read") };
            assert_eq!(bytes.len(), expected);
        }
        assert_eq!(now(&files, segment(1, 0), FileOp::Length).await, Ok(FileOutcome::Length(Some(4096))));
    });
}

#[test]
fn what_is_not_there_is_said_so_and_may_be_deleted() {
    on_executor(|files, root| async move {
        let read = FileOp::Read { position: 0, length: 4096 };
        assert_eq!(now(&files, segment(1, 0), read).await, Err(FileError::NotFound));
        assert_eq!(now(&files, segment(1, 0), FileOp::Sync).await, Err(FileError::NotFound));
        assert_eq!(now(&files, segment(1, 0), FileOp::Length).await, Ok(FileOutcome::Length(None)));
        assert_eq!(now(&files, segment(1, 0), FileOp::Delete).await, Ok(FileOutcome::Done));
        now(&files, segment(1, 0), FileOp::CreateEmpty).await.unwrap();
        now(&files, segment(1, 50), FileOp::CreateEmpty).await.unwrap();
        now(&files, segment(1, 0), FileOp::Delete).await.unwrap();
        assert!(root.join("topics/1/0/50.segment").exists());
        run(&files, segment(1, 50), FileOp::Delete, Urgency::Background).await.unwrap();
        assert!(!root.join("topics/1").exists(), "empty directories go with their last file");
        now(&files, segment(1, 90), FileOp::CreateEmpty).await.unwrap();
        assert!(root.join("topics/1/0/90.segment").exists());
    });
}

#[test]
fn many_effects_at_once_all_complete_and_handles_stay_bounded() {
    on_executor(|files, _| async move {
        let count = 1300;
        for base in 0..count {
            let urgency = if base % 2 == 0 { Urgency::Background } else { Urgency::Now };
            let effect = FileEffect { id: IoId(base), file: segment(2, base), op: FileOp::CreateEmpty, urgency };
            files.start(effect, false);
        }
        let mut done = 0;
        while done < count {
            while let Some(one) = files.take_done() {
                assert_eq!(one.result, Ok(FileOutcome::Done));
                done += 1;
            }
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(files.under_way(), 0);
        assert!(files.open_files() <= 1024 + 128, "{} files are open", files.open_files());
    });
}

#[test]
fn the_sync_behind_a_small_journal_write_is_under_way_already() {
    on_executor(|files, root| async move {
        now(&files, JOURNAL, FileOp::CreateZeroed { length: 1 << 20 }).await.unwrap();
        for index in 0..50 {
            let position = index * 4096;
            let pieces = vec![Bytes::from(vec![7; 4000]), Bytes::from(vec![8; 96])];
            let written = looking(&files, JOURNAL, FileOp::Write { position, pieces }).await;
            assert_eq!(written, Ok(FileOutcome::Written(4096)));
            assert_eq!(looking(&files, JOURNAL, FileOp::Sync).await, Ok(FileOutcome::Done));
            assert_eq!(files.under_way(), 0);
            assert!(!files.is_pair_under_way());
        }
        let (adopted, wasted) = files.pairs();
        assert!(0 < adopted && wasted == 0, "{adopted} syncs went with their write, {wasted} for nothing");
        let bytes = std::fs::read(root.join("journal/0/3")).unwrap();
        assert_eq!(bytes[49 * 4096..50 * 4096], [vec![7; 4000], vec![8; 96]].concat());
        assert!(bytes[50 * 4096..].iter().all(|&byte| byte == 0));
    });
}

#[test]
fn a_sync_that_began_before_another_write_was_complete_is_not_taken_for_one_of_both() {
    on_executor(|files, _| async move {
        now(&files, JOURNAL, FileOp::CreateZeroed { length: 1 << 20 }).await.unwrap();
        for index in 0..20 {
            for (id, position) in [(1, index * 8192), (2, index * 8192 + 4096)] {
                let op = FileOp::Write { position, pieces: vec![block(5)] };
                files.start(FileEffect { id: IoId(id), file: JOURNAL, op, urgency: Urgency::Now }, true);
            }
            let both = [next_done(&files).await, next_done(&files).await];
            assert!(both.iter().all(|done| done.result == Ok(FileOutcome::Written(4096))), "{both:?}");
            let adopted = files.pairs().0;
            assert_eq!(looking(&files, JOURNAL, FileOp::Sync).await, Ok(FileOutcome::Done));
            assert_eq!(files.pairs().0, adopted, "the sync behind the first write was taken for one behind both");
        }
        assert_eq!(files.under_way(), 0);
    });
}

#[test]
fn after_a_sync_that_failed_every_later_one_of_the_file_fails() {
    on_executor(|files, _| async move {
        now(&files, JOURNAL, FileOp::CreateZeroed { length: 1 << 20 }).await.unwrap();
        let error = FileError::Os { errno: libc::EIO };
        files.inner.pairs.borrow_mut().as_mut().unwrap().set_failed(JOURNAL, error.clone());
        for _ in 0..3 {
            let write = FileOp::Write { position: 0, pieces: vec![block(1)] };
            assert_eq!(looking(&files, JOURNAL, write).await, Ok(FileOutcome::Written(4096)));
            assert_eq!(looking(&files, JOURNAL, FileOp::Sync).await, Err(error.clone()));
        }
    });
}

#[test]
fn a_pair_that_nobody_waits_for_ends_before_its_memory_does() {
    on_executor(|files, root| async move {
        now(&files, JOURNAL, FileOp::CreateZeroed { length: 1 << 20 }).await.unwrap();
        let op = FileOp::Write { position: 4096, pieces: vec![block(6)] };
        files.start(FileEffect { id: IoId(1), file: JOURNAL, op, urgency: Urgency::Now }, true);
        files.inner.pairs.borrow_mut().take();
        assert_eq!(std::fs::read(root.join("journal/0/3")).unwrap()[4096..8192], vec![6; 4096]);
    });
}

#[test]
fn a_full_disk_is_named() {
    assert_eq!(os_error(&io::Error::from_raw_os_error(libc::ENOSPC)), FileError::NoSpace);
    assert_eq!(os_error(&io::Error::from_raw_os_error(libc::EDQUOT)), FileError::NoSpace);
    assert_eq!(os_error(&io::Error::from_raw_os_error(libc::EROFS)), FileError::Os { errno: libc::EROFS });
}

#[test]
fn whoever_wants_a_file_that_is_being_deleted_hears_that_it_is_gone() {
    on_executor(|files, _| async move {
        for base in 0..200 {
            let file = segment(9, base);
            assert_eq!(now(&files, file, FileOp::CreateEmpty).await, Ok(FileOutcome::Done));
            files.start(FileEffect { id: IoId(1), file, op: FileOp::Delete, urgency: Urgency::Background }, false);
            for id in 2..5 {
                // Each begins at another moment of the deletion.
                files.start(FileEffect { id: IoId(id), file, op: FileOp::Sync, urgency: Urgency::Now }, false);
                glommio::executor().yield_task_queue_now().await;
            }
            for _ in 1..5 {
                let done = next_done(&files).await;
                let is_fine = matches!(done.result, Ok(FileOutcome::Done) | Err(FileError::NotFound));
                assert!(is_fine, "{done:?}");
            }
        }
    });
}

/// The journal's file in other hands, and files that want it.
fn with_a_journal_of_another<F: Future<Output = ()>>(
    test: impl FnOnce(std::fs::File, PathBuf, TaskQueueHandle) -> F + Send + 'static,
) {
    on_executor(|files, root| async move {
        now(&files, JOURNAL, FileOp::CreateZeroed { length: 1 << 20 }).await.unwrap();
        files.close().await;
        let other = std::fs::File::open(root.join("journal/0/3")).unwrap();
        other.try_lock().expect("files that were closed are nobody's");
        test(other, root, files.inner.background).await;
    });
}

#[test]
fn a_journal_that_a_process_before_still_writes_is_waited_for() {
    with_a_journal_of_another(|other, root, queue| async move {
        let open = Files::open(&root, ShardId(0), queue, Rc::new(LocalBell::default()));
        let mut open = std::pin::pin!(open);
        let looked =
            glommio::timer::timeout(Duration::from_millis(100), async { Ok::<_, GlommioError<()>>((&mut open).await) });
        assert!(looked.await.is_err(), "the journal was opened while another process has it");
        drop(other);
        let files = open.await.unwrap();
        assert_eq!(files.open_files(), 1, "it is held before anybody reads it");
        let another = std::fs::File::open(root.join("journal/0/3")).unwrap();
        assert!(matches!(another.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
    });
}

#[test]
fn a_journal_that_stays_in_other_hands_is_an_error_that_says_what_to_do() {
    with_a_journal_of_another(|other, root, queue| async move {
        let files = Files::open(&root, ShardId(1), queue, Rc::new(LocalBell::default())).await.unwrap();
        let wait = Duration::from_millis(20);
        let error = files.inner.hold_journal(ShardId(0), wait).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(os_error(&error), FileError::Os { errno: libc::EWOULDBLOCK });
        assert!(text.contains("journal/0/3 is still being written") && text.contains("fuser -v"), "{text}");
        drop(other);
    });
}

#[test]
fn a_segment_that_a_process_before_still_writes_is_waited_for() {
    on_executor(|files, root| async move {
        now(&files, segment(1, 0), FileOp::CreateEmpty).await.unwrap();
        files.close().await;
        let other = std::fs::File::open(root.join("topics/1/0/0.segment")).unwrap();
        other.try_lock().unwrap();
        let op = FileOp::Write { position: 0, pieces: vec![block(1)] };
        files.start(FileEffect { id: IoId(1), file: segment(1, 0), op, urgency: Urgency::Now }, false);
        glommio::timer::sleep(Duration::from_millis(50)).await;
        assert!(files.take_done().is_none() && other.metadata().unwrap().len() == 0, "it was written all the same");
        drop(other);
        assert_eq!(next_done(&files).await.result, Ok(FileOutcome::Written(4096)));
    });
}
