//! A broker process for tests: the binary beside this test program, on loopback ports and a folder of its own.
//!
//! `TIDELOG_TEST_ADDRESS` names a broker that runs already, Apache Kafka for one; then none is started.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A start on a busy machine with two cores stays well below.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A running broker; dropping it ends the process by SIGTERM and checks that it went well.
pub struct RunningBroker {
    address: String,
    http: u16,
    process: Option<(Child, TempDir)>,
}

/// Memory of the broker's process as the kernel counts it, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was resident at a time.
    pub peak: u64,
}

impl RunningBroker {
    /// A broker as the tests find it: the one that runs already, or one of their own.
    pub fn start() -> Self {
        match env::var("TIDELOG_TEST_ADDRESS") {
            Ok(address) => Self {
                address,
                http: 0,
                process: None,
            },
            Err(_) => Self::start_own(&[]),
        }
    }

    /// Starts a broker of the test's own with these settings, `name=value`, and returns once it accepts connections
    /// and says that it is ready.
    pub fn start_own(settings: &[&str]) -> Self {
        let folder = TempDir::new().expect("temporary folder");
        let [kafka, http] = free_ports();
        let log = File::create(folder.path().join("broker.log")).expect("log file");
        let mut command = Command::new(binary());
        // A broker reads such variables as settings, those meant for the tests among them.
        for (name, _) in env::vars_os().filter(|(name, _)| is_setting(name)) {
            command.env_remove(name);
        }
        let child = command
            .args(["serve", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(["--set", &format!("listeners=PLAINTEXT://127.0.0.1:{kafka}")])
            .args(["--set", &format!("http.listeners=http://127.0.0.1:{http}")])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("the broker's binary: `make build` makes it");
        let mut broker = Self {
            address: format!("127.0.0.1:{kafka}"),
            http,
            process: Some((child, folder)),
        };
        broker.wait_until_ready(http);
        broker
    }

    /// host:port of the HTTP listener.
    pub fn http_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.http))
    }

    /// Memory of the process.
    pub fn memory(&self) -> Memory {
        let (child, _) = self.process.as_ref().expect("a process of ours");
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))
            .expect("the process is there");
        let bytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            kib.expect("a size in KiB") * 1024
        };
        Memory {
            resident: bytes("VmRSS:"),
            peak: bytes("VmHWM:"),
        }
    }

    /// A gauge or counter without labels, as `/metrics` has it.
    pub fn metric(&self, name: &str) -> u64 {
        let answer = get(self.http_address(), "/metrics").expect("metrics");
        let line = answer.lines().find(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(' '))
        });
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in:\n{answer}")) as u64
    }

    /// What the broker logged so far.
    pub fn log(&self) -> String {
        let (_, folder) = self.process.as_ref().expect("a process of ours");
        std::fs::read_to_string(folder.path().join("broker.log")).expect("its log")
    }

    /// Checks that the process is the one that was started, and says that it is ready.
    pub fn assert_ready(&mut self) {
        let (child, _) = self.process.as_mut().expect("a process of ours");
        let exited = child.try_wait().expect("state of the broker's process");
        assert_eq!(exited, None, "the broker ended:\n{}", self.log());
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready(self.http) {
            assert!(
                Instant::now() < deadline,
                "the broker is not ready any more"
            );
            thread::sleep(POLL);
        }
    }

    /// host:port for a client's bootstrap list.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Id of the process of a broker of the test's own.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("a broker of its own").0.id()
    }

    /// The data directory of a broker of the test's own.
    pub fn data_dir(&self) -> PathBuf {
        let (_, folder) = self.process.as_ref().expect("a broker of its own");
        folder.path().join("data")
    }

    /// Ends the process as an operator does, and hands over the folder that has the data directory, `data`, in it.
    pub fn stop(mut self) -> TempDir {
        let (child, folder) = self.process.take().expect("a broker of its own");
        end(child);
        folder
    }

    fn wait_until_ready(&mut self, http: u16) {
        let begun = Instant::now();
        while !is_ready(http) {
            let (child, folder) = self.process.as_mut().expect("started above");
            let exited = child.try_wait().expect("state of the broker's process");
            if exited.is_some() || begun.elapsed() > START_TIMEOUT {
                let log = std::fs::read_to_string(folder.path().join("broker.log"));
                panic!(
                    "the broker did not start ({exited:?}):\n{}",
                    log.unwrap_or_default()
                );
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        if let Some((child, _folder)) = self.process.take() {
            end(child);
        }
    }
}

/// SIGTERM, which must end the process with success.
fn end(mut child: Child) {
    let pid = Pid::from_child(&child);
    let signalled = kill_process(pid, Signal::TERM);
    let ended = child.wait();
    if !thread::panicking() {
        signalled.expect("the broker was still running");
        let status = ended.expect("exit status of the broker");
        assert!(status.success(), "the broker ended with {status}");
    }
}

fn is_setting(variable: &OsStr) -> bool {
    variable.to_string_lossy().starts_with("TIDELOG_")
}

/// The binary that `cargo build` put beside this test program.
pub fn binary() -> PathBuf {
    if let Some(named) = env::var_os("TIDELOG_TEST_BINARY") {
        return named.into();
    }
    let mut path = env::current_exe().expect("path of the test program");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("tidelog")
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let held =
        std::array::from_fn::<_, N, _>(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("address of a listener").port())
}

/// Whether `GET /health/ready` answers 200.
fn is_ready(port: u16) -> bool {
    get(SocketAddr::from(([127, 0, 0, 1], port)), "/health/ready")
        .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Head and body of the answer to a GET, if there is one; written by hand to need no HTTP client.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read, Write};

    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
