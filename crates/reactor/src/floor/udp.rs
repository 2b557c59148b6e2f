//! The floor under QUIC: one datagram there and back between two threads, by plain blocking sockets.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// Bytes of the datagram.
const DATAGRAM_BYTES: usize = 64;
/// A datagram that is not answered within this time was lost, which loopback does not do.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Round trips in nanoseconds, one at a time; the answering thread runs on `server_cpu`, where one is named, and the caller
/// where it is.
///
/// # Errors
/// The operating system's.
pub fn measure_udp(round_trips: usize, server_cpu: Option<usize>) -> io::Result<Vec<u64>> {
    let server = UdpSocket::bind("127.0.0.1:0")?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    server.set_read_timeout(Some(TIMEOUT))?;
    client.set_read_timeout(Some(TIMEOUT))?;
    client.connect(server.local_addr()?)?;
    let echo = std::thread::spawn(move || {
        if let Some(cpu) = server_cpu {
            let mut set = CpuSet::new();
            set.set(cpu);
            sched_setaffinity(None, &set)?;
        }
        let mut buffer = [0; DATAGRAM_BYTES];
        for _ in 0..round_trips {
            let (length, from) = server.recv_from(&mut buffer)?;
            server.send_to(&buffer[..length], from)?;
        }
        io::Result::Ok(())
    });
    let mut samples = Vec::with_capacity(round_trips);
    let mut buffer = [0; DATAGRAM_BYTES];
    for _ in 0..round_trips {
        let start = Instant::now();
        client.send(&buffer)?;
        client.recv(&mut buffer)?;
        samples.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    echo.join().map_err(|_| io::Error::other("the answering thread panicked"))??;
    Ok(samples)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_round_trip_is_measured() {
        let samples = super::measure_udp(50, None).unwrap();
        assert_eq!(samples.len(), 50);
        assert!(samples.iter().all(|nanos| 0 < *nanos));
    }
}
