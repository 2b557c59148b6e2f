//! As much HTTP as probes, Prometheus and `curl` need: one request a connection, GET and HEAD, bounded in everything.
//!
//! Whoever reaches the listener may be slow, silent or garbage. A connection costs a thread and a few KiB, there are at most
//! [`CONNECTIONS_MAX`] of them, and when one more comes the oldest goes: a crowd of silent clients does not lock a probe
//! out.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// A head must have come in within this time, and a reader must take something of its answer within it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, we listen to somebody who still talks after the answer: a connection that is closed
/// with bytes unread takes the answer with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;
/// How long nobody is accepted after the operating system refused to.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// `GET` and so on.
    pub(super) method: String,
    /// The path without its query.
    pub(super) path: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// A text for people.
    pub(super) fn text(code: u16, body: impl Into<String>) -> Self {
        Self { code, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// A running server; dropping it ends its threads.
pub(super) struct Server {
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
    open: Arc<Open>,
}

impl Server {
    /// Answers on this socket.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start<H: Fn(&Request) -> Answer + Send + Sync + 'static>(
        listener: TcpListener,
        handler: H,
    ) -> io::Result<Self> {
        let (listener, open, handler) = (Arc::new(listener), Arc::new(Open::default()), Arc::new(handler));
        let accept = {
            let (listener, open) = (Arc::clone(&listener), Arc::clone(&open));
            move || accept(&listener, &open, &handler)
        };
        let acceptor = std::thread::Builder::new().name("admin".to_owned()).spawn(accept)?;
        Ok(Self { listener, acceptor: Some(acceptor), open })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.open.stop();
        // Wakes a thread that waits for the next connection.
        let _closed = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _panicked = acceptor.join();
        }
        // One more may have been accepted meanwhile.
        self.open.stop();
        self.open.wait_below(1);
    }
}

fn accept<H: Fn(&Request) -> Answer + Send + Sync + 'static>(
    listener: &TcpListener,
    open: &Arc<Open>,
    handler: &Arc<H>,
) {
    loop {
        let stream = match listener.accept() {
            _ if open.is_stopping() => return,
            Ok((stream, _)) => stream,
            Err(_) => {
                std::thread::sleep(ACCEPT_RETRY);
                continue;
            }
        };
        let Ok(slot) = Open::enter(open, &stream) else { continue };
        let work = Work { handler: Arc::clone(handler), _slot: slot };
        // Without a thread the connection is closed, which says as much as can be said.
        let _no_thread = std::thread::Builder::new().name("admin-client".to_owned()).spawn(move || work.serve(stream));
    }
}

/// One connection's share; what is dropped first is declared first.
struct Work<H> {
    handler: Arc<H>,
    _slot: Slot,
}

impl<H: Fn(&Request) -> Answer> Work<H> {
    fn serve(self, mut stream: TcpStream) {
        // A client that went away is no concern of ours.
        let _gone = self.converse(&mut stream);
    }

    fn converse(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let (answer, is_head) = match read_request(stream)? {
            Ok(request) => ((self.handler)(&request), request.method == "HEAD"),
            Err(refusal) => (refusal, false),
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            answer.code,
            reason(answer.code),
            answer.content_type,
            answer.body.len()
        );
        stream.write_all(head.as_bytes())?;
        if !is_head {
            stream.write_all(answer.body.as_bytes())?;
        }
        stream.shutdown(Shutdown::Write)?;
        linger(stream)
    }
}

/// Reads until the empty line behind the head. The inner error is an answer.
fn read_request(stream: &mut TcpStream) -> io::Result<Result<Request, Answer>> {
    let end = Instant::now() + PATIENCE;
    let mut head = vec![0; HEAD_BYTES_MAX];
    let mut filled = 0;
    loop {
        let room = &mut head[filled..];
        if room.is_empty() {
            let text = format!("the head of a request has at most {HEAD_BYTES_MAX} bytes\n");
            return Ok(Err(Answer::text(431, text)));
        }
        let read = read_until(stream, room, end)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let text = &head[..filled];
        if text.windows(4).any(|four| four == b"\r\n\r\n") || text.windows(2).any(|two| two == b"\n\n") {
            return Ok(parse(text).ok_or_else(|| Answer::text(400, "this is no HTTP request\n")));
        }
    }
}

/// The request line; nothing else of a head matters here.
fn parse(head: &[u8]) -> Option<Request> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_http = version.starts_with("HTTP/1.") && words.next().is_none() && target.starts_with('/');
    let path = target.split('?').next()?;
    is_http.then(|| Request { method: method.to_owned(), path: path.to_owned() })
}

/// Reads what there is, waiting no longer than to the end.
fn read_until(stream: &mut TcpStream, room: &mut [u8], end: Instant) -> io::Result<usize> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    stream.read(room)
}

fn linger(stream: &mut TcpStream) -> io::Result<()> {
    let end = Instant::now() + LINGER;
    let mut waste = [0; 4096];
    let mut taken = 0;
    while taken < LINGER_BYTES_MAX {
        match read_until(stream, &mut waste, end)? {
            0 => break,
            read => taken += read,
        }
    }
    Ok(())
}

const fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// Connections that are open, by age.
#[derive(Default)]
struct Open {
    state: Mutex<State>,
    /// One went.
    went: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    is_stopping: bool,
    /// A handle to hang up with; none for those that were hung up on.
    connections: BTreeMap<u64, Option<TcpStream>>,
}

impl State {
    fn hang_up(&mut self, most: usize) {
        for stream in self.connections.values_mut().filter_map(Option::take).take(most) {
            // Its thread wakes from whatever it reads or writes.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Takes a connection in, hanging up on the oldest if there are too many.
    fn enter(open: &Arc<Self>, stream: &TcpStream) -> io::Result<Slot> {
        let handle = stream.try_clone()?;
        if CONNECTIONS_MAX <= open.lock().connections.len() {
            open.lock().hang_up(1);
        }
        open.wait_below(CONNECTIONS_MAX);
        let mut state = open.lock();
        let id = state.next;
        state.next += 1;
        state.connections.insert(id, Some(handle));
        Ok(Slot { id, open: Arc::clone(open) })
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        state.hang_up(usize::MAX);
    }

    fn wait_below(&self, count: usize) {
        let state = self.lock();
        let enough = |state: &mut State| count <= state.connections.len();
        drop(self.went.wait_while(state, enough).unwrap_or_else(PoisonError::into_inner));
    }
}

/// A place among the open connections, given back when dropped.
struct Slot {
    id: u64,
    open: Arc<Open>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.lock().connections.remove(&self.id);
        self.open.went.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        Server::start(socket, |request| Answer::text(200, format!("{} {}", request.method, request.path))).unwrap()
    }

    fn connect(server: &Server) -> TcpStream {
        let stream = TcpStream::connect(server.address().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn ask(server: &Server, request: &[u8]) -> String {
        let mut stream = connect(server);
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_request_is_answered_and_the_connection_closed() {
        let server = server();
        let answer = ask(&server, b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nGET /a"), "{answer}");
        let answer = ask(&server, b"HEAD / HTTP/1.0\n\n");
        assert!(answer.contains("Content-Length: 6\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        let body = [b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", [b'x'; 100_000].as_slice()].concat();
        assert!(ask(&server, &body).ends_with("POST /"));
    }

    #[test]
    fn garbage_is_refused_and_a_head_is_bounded() {
        let server = server();
        for garbage in
            [&b"\r\n\r\n"[..], b"GET /\r\n\r\n", b"\xff\xfe /\xff HTTP/1.1\r\n\r\n", b"GET / HTTP/2 x\r\n\r\n"]
        {
            assert!(ask(&server, garbage).starts_with("HTTP/1.1 400 "));
        }
        assert!(ask(&server, &[b'a'; HEAD_BYTES_MAX]).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn silent_clients_do_not_lock_a_probe_out_and_an_end_does_not_wait_for_them() {
        let server = server();
        let silent: Vec<TcpStream> = (0..3 * CONNECTIONS_MAX)
            .map(|_| {
                let mut stream = connect(&server);
                stream.write_all(b"GET /hea").unwrap();
                stream
            })
            .collect();
        assert!(ask(&server, b"GET /healthz HTTP/1.1\r\n\r\n").ends_with("GET /healthz"));
        assert!(server.open.lock().connections.len() <= CONNECTIONS_MAX);
        let begin = Instant::now();
        drop(server);
        assert!(begin.elapsed() < PATIENCE);
        drop(silent);
    }
}
