//! The kernel and what it lets this process do.

use std::io::ErrorKind;

use rustix::process::{Resource, getrlimit};

use super::{Finding, Verdict, read_number};
use crate::quantity::ByteSize;

/// glommio needs IORING features of 5.8.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// Below this a ring cannot be set up. glommio refuses to make an executor then, whoever asks: root too.
const LOCKED_MEMORY_MIN: u64 = 512 << 10;
/// Below this buffers cannot be registered with the rings.
const LOCKED_MEMORY_GOOD: u64 = 10 << 20;
/// A file for each partition that is being settled or read, and sockets.
const OPEN_FILES_GOOD: u64 = 8192;
/// A packet train of 64 datagrams for each of some dozens of clients.
const SOCKET_BUFFER_GOOD: u64 = 4 << 20;

pub(super) fn version() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(found) if KERNEL_MIN <= found => Finding::good("kernel", release),
        Some(_) => Finding::bad("kernel", release, "Linux 5.8 or later is needed: update the kernel"),
        None => Finding::warning("kernel", release, "the version cannot be read; Linux 5.8 or later is needed"),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn io_uring() -> Finding {
    let policy = read_number("/proc/sys/kernel/io_uring_disabled");
    judge_io_uring(corelane_reactor::probe_io_uring().map_err(|error| error.kind()), policy)
}

/// Says what the kernel's answer means; the policy tells a forbidding kernel from a forbidding container.
fn judge_io_uring(answer: Result<(), ErrorKind>, policy: Option<u64>) -> Finding {
    let name = "io_uring";
    match (answer, policy) {
        (Ok(()), _) => Finding::good(name, "works"),
        (Err(ErrorKind::Unsupported), _) => Finding::bad(
            name,
            "this kernel is built without it",
            "use a kernel with CONFIG_IO_URING=y, as distributions have",
        ),
        (Err(ErrorKind::OutOfMemory), _) => {
            Finding::bad(name, "a ring finds no memory that may be locked", "raise it: ulimit -l unlimited")
        }
        (Err(_), Some(2)) => Finding::bad(
            name,
            "disabled by kernel.io_uring_disabled = 2",
            "sysctl -w kernel.io_uring_disabled=0, and the same line in /etc/sysctl.d/",
        ),
        (Err(_), Some(1)) => Finding::bad(
            name,
            "kernel.io_uring_disabled = 1 keeps it for privileged processes and one group",
            "sysctl -w kernel.io_uring_disabled=0, or add the broker's user to the group in kernel.io_uring_group",
        ),
        (Err(kind), _) => Finding::bad(
            name,
            format!("forbidden, most likely by a container's seccomp profile ({kind})"),
            "allow io_uring_setup, io_uring_enter and io_uring_register in the profile, for example with \
             docker run --security-opt seccomp=FILE",
        ),
    }
}

pub(super) fn locked_memory(shards: usize) -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    judge_locked_memory(limit, rustix::process::geteuid().is_root(), shards as u64)
}

fn judge_locked_memory(limit: Option<u64>, is_root: bool, shards: u64) -> Finding {
    let name = "locked memory";
    // What the kernel counts together for all rings of a user it does not count for root.
    let needed = if is_root { LOCKED_MEMORY_MIN } else { LOCKED_MEMORY_MIN * shards };
    let advice =
        "raise it: ulimit -l unlimited, LimitMEMLOCK=infinity in the systemd unit, or docker run --ulimit memlock=-1";
    match limit {
        None => Finding::good(name, "no limit"),
        Some(bytes) if bytes < needed => {
            Finding::bad(name, format!("limit of {}, {} are needed", ByteSize(bytes), ByteSize(needed)), advice)
        }
        Some(bytes) if is_root => {
            Finding::good(name, format!("limit of {}, which does not bind root further", ByteSize(bytes)))
        }
        Some(bytes) if bytes < LOCKED_MEMORY_GOOD * shards => Finding::warning(
            name,
            format!(
                "limit of {}, {} let every shard register its buffers",
                ByteSize(bytes),
                ByteSize(LOCKED_MEMORY_GOOD * shards)
            ),
            advice,
        ),
        Some(bytes) => Finding::good(name, format!("limit of {}", ByteSize(bytes))),
    }
}

pub(super) fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if most < OPEN_FILES_GOOD {
        Finding::warning(
            "open files",
            format!("hard limit of {most}"),
            format!("many partitions need more: ulimit -Hn {OPEN_FILES_GOOD}, or LimitNOFILE= in the systemd unit"),
        )
    } else {
        Finding::good(
            "open files",
            limit.maximum.map_or_else(|| "no limit".to_owned(), |most| format!("limit of {most}")),
        )
    }
}

pub(super) fn socket_buffers() -> Finding {
    let limit = |name: &str| read_number(format!("/proc/sys/net/core/{name}"));
    match (limit("rmem_max"), limit("wmem_max")) {
        (Some(receive), Some(send)) => judge_socket_buffers(receive, send),
        _ => Finding::good("socket buffers", "limits are not visible here"),
    }
}

fn judge_socket_buffers(receive: u64, send: u64) -> Finding {
    let found = format!("at most {} to receive, {} to send", ByteSize(receive), ByteSize(send));
    if receive.min(send) < SOCKET_BUFFER_GOOD {
        let advice = format!(
            "bursts may be dropped and sent again: sysctl -w net.core.rmem_max={SOCKET_BUFFER_GOOD} \
             net.core.wmem_max={SOCKET_BUFFER_GOOD}"
        );
        Finding { name: "socket buffers", verdict: Verdict::Warning, found, advice }
    } else {
        Finding::good("socket buffers", found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse_release("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(parse_release("6.1"), Some((6, 1)));
        assert_eq!(parse_release("unknown"), None);
        assert!(KERNEL_MIN < (5, 15) && (5, 4) < KERNEL_MIN);
    }

    #[test]
    fn forbidden_io_uring_is_named_with_the_cure() {
        assert_eq!(judge_io_uring(Ok(()), None).verdict, Verdict::Good);
        let denied = Err(ErrorKind::PermissionDenied);
        assert!(judge_io_uring(denied, Some(1)).advice.contains("io_uring_group"));
        assert!(judge_io_uring(denied, Some(2)).advice.contains("io_uring_disabled=0"));
        assert!(judge_io_uring(denied, Some(0)).advice.contains("seccomp"));
        assert!(judge_io_uring(denied, None).advice.contains("seccomp"));
        assert!(judge_io_uring(Err(ErrorKind::Unsupported), None).advice.contains("CONFIG_IO_URING"));
        assert!(judge_io_uring(Err(ErrorKind::OutOfMemory), None).advice.contains("ulimit"));
    }

    #[test]
    fn locked_memory_has_two_thresholds() {
        assert_eq!(judge_locked_memory(Some(64 << 10), false, 1).verdict, Verdict::Bad);
        assert_eq!(judge_locked_memory(Some(8 << 20), false, 2).verdict, Verdict::Warning);
        assert_eq!(judge_locked_memory(Some(64 << 20), false, 2).verdict, Verdict::Good);
        assert_eq!(judge_locked_memory(Some(64 << 10), true, 1).verdict, Verdict::Bad, "glommio asks root too");
        assert_eq!(judge_locked_memory(Some(LOCKED_MEMORY_MIN), true, 2).verdict, Verdict::Good);
        assert_eq!(judge_locked_memory(Some(LOCKED_MEMORY_MIN), false, 2).verdict, Verdict::Bad);
        assert_eq!(judge_locked_memory(None, false, 2).verdict, Verdict::Good);
    }

    #[test]
    fn small_socket_buffers_are_a_warning() {
        assert_eq!(judge_socket_buffers(212_992, 8 << 20).verdict, Verdict::Warning);
        assert_eq!(judge_socket_buffers(4 << 20, 8 << 20).verdict, Verdict::Good);
    }
}
