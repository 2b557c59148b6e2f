//! A broker in a process of its own, and the commands that talk to it.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};

use crate::DEADLINE;

/// A directory for one test: the data, the log, and where clients find fingerprints.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("it-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The program with arguments, and nothing of the environment that could lead it to another broker.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_corelane")), args)
    }

    /// Another program, in the same environment.
    pub(crate) fn program(&self, path: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(path);
        command.args(args).env("XDG_RUNTIME_DIR", self.path().join("run")).env_remove("CORELANE_BROKER");
        command.env_remove("CORELANE_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A command that ends by itself.
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that refuses its arguments does not read what it is given.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let process = Process::new(&child);
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = receiver.recv_timeout(DEADLINE);
        if output.is_err() {
            process.signal(Signal::KILL);
        }
        let output = output.unwrap_or_else(|_| panic!("corelane {args:?} did not end")).unwrap();
        writer.join().unwrap();
        Done::new(output)
    }

    /// Starts a broker that is expected not to come up.
    pub(crate) fn refused(&self, args: &[&str]) -> Done {
        self.run(&self.serve(args), b"")
    }

    fn serve<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        let data: &'static str = self.data().to_str().unwrap().to_owned().leak();
        let mut line = vec!["serve", "--admin", "127.0.0.1:0", "--memory", "512MiB"];
        if !args.contains(&"--listen") {
            line.extend(["--listen", "127.0.0.1:0"]);
        }
        if !args.contains(&"--data") {
            line.extend(["--data", data]);
        }
        line.extend(args);
        line
    }
}

/// What a command came to.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.out, self.err);
        self.out
    }

    /// Standard error of a command that must have failed with this code and without a panic.
    #[track_caller]
    pub(crate) fn bad(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self.err
    }
}

/// A process by its id.
#[derive(Clone, Copy)]
struct Process(Pid);

impl Process {
    fn new(child: &Child) -> Self {
        Self(Pid::from_child(child))
    }

    fn signal(self, signal: Signal) {
        // A process that is gone already needs no signal.
        let _gone = kill_process(self.0, signal);
    }
}

/// A client command that runs beside the test; it is killed when dropped.
pub(crate) struct Running {
    child: Child,
    printed: Receiver<String>,
    lines: Vec<String>,
}

impl Running {
    /// Starts a command.
    pub(crate) fn start(place: &Place, args: &[&str]) -> Self {
        Self::spawn(&mut place.command(args))
    }

    /// Starts a program.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, printed) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        Self { child, printed, lines: Vec::new() }
    }

    /// Reads what it prints until that is enough.
    #[track_caller]
    pub(crate) fn read(&mut self, is_enough: impl Fn(&[String]) -> bool) {
        while !is_enough(&self.lines) {
            let line = self.printed.recv_timeout(DEADLINE);
            self.lines.push(line.unwrap_or_else(|error| panic!("{error} after {} lines", self.lines.len())));
        }
    }

    /// Whether it prints nothing for so long.
    pub(crate) fn is_silent(&mut self, time: std::time::Duration) -> bool {
        let line = self.printed.recv_timeout(time).ok();
        let is_silent = line.is_none();
        self.lines.extend(line);
        is_silent
    }

    /// All lines that were read.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// SIGINT, and waits for its good end; all that it printed.
    #[track_caller]
    pub(crate) fn interrupt(self) -> Vec<String> {
        Process::new(&self.child).signal(Signal::INT);
        self.finish()
    }

    /// Waits for its good end; all that it printed.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Vec<String> {
        let since = std::time::Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(since.elapsed() < DEADLINE, "the command did not end");
            std::thread::yield_now();
        };
        self.lines.extend(self.printed.iter());
        assert_eq!(status.code(), Some(0), "{:?}", self.lines);
        std::mem::take(&mut self.lines)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Waits for a condition of the broker.
#[track_caller]
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < DEADLINE, "it did not come about in time");
        // Whoever brings it about may need this core.
        std::thread::yield_now();
    }
}

/// A broker that accepts; it is killed when dropped.
pub(crate) struct Broker<'a> {
    place: &'a Place,
    process: Process,
    ended: Receiver<ExitStatus>,
    is_over: bool,
    pub(crate) quic: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) shards: usize,
    log: PathBuf,
}

impl<'a> Broker<'a> {
    /// Starts a broker and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(place: &'a Place, args: &[&str]) -> Self {
        let log = place.path().join("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = place.command(&place.serve(args)).stderr(file).spawn().unwrap();
        let process = Process::new(&child);
        let stdout = child.stdout.take().unwrap();
        let (sender, ended) = channel();
        std::thread::spawn(move || sender.send(child.wait().unwrap()));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        // The sender goes with the process's standard output, so that an early end is no wait.
        let line = lines.recv_timeout(DEADLINE);
        let Ok(line) = line else {
            process.signal(Signal::KILL);
            panic!("the broker did not get ready; its log:\n{}", std::fs::read_to_string(&log).unwrap());
        };
        let field = |name: &str| {
            let field = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            field.unwrap_or_else(|| panic!("{name} is missing in {line:?}"))
        };
        assert!(line.starts_with("ready "), "{line:?}");
        Self {
            place,
            process,
            ended,
            is_over: false,
            quic: field("quic").parse().unwrap(),
            admin: field("admin").parse().unwrap(),
            shards: field("shards").parse().unwrap(),
            log,
        }
    }

    /// A client command against this broker.
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Done {
        let broker = self.quic.to_string();
        let mut line = args.to_vec();
        line.extend(["--broker", &broker]);
        self.place.run(&line, input)
    }

    /// A client command that must succeed; its standard output.
    #[track_caller]
    pub(crate) fn good(&self, args: &[&str], input: &[u8]) -> String {
        let done = self.run(args, input);
        assert_eq!(done.code, Some(0), "{args:?}\nstdout: {}\nstderr: {}\nlog: {}", done.out, done.err, self.log());
        done.out
    }

    /// Memory that the broker's process holds.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }

    /// What the broker logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.wait();
    }

    /// `kill -9`, and a start at the same address, where clients find it again.
    #[track_caller]
    pub(crate) fn kill_and_start(self, args: &[&str]) -> Self {
        let (place, address) = (self.place, self.quic.to_string());
        self.kill();
        Self::start(place, &[args, &["--listen", &address]].concat())
    }

    /// Sends a signal and goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the end; the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let status = self.ended.recv_timeout(DEADLINE);
        let status = status.unwrap_or_else(|_| panic!("the broker did not end; its log:\n{}", self.log()));
        self.is_over = true;
        status.code()
    }

    /// SIGTERM, and waits for the end; the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Broker<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.process.signal(Signal::KILL);
        }
        if std::thread::panicking() {
            let _closed = writeln!(std::io::stderr(), "log of the broker:\n{}", self.log());
        }
    }
}
