//! `tidelog serve`: from the command line to a running broker, and from a signal to its end.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tidelog_broker::config::{self, BrokerConfig, LoadArgs, LogFormat};
use tidelog_broker::server::{Server, ServerError};
use tikv_jemalloc_ctl::{background_thread, max_background_threads};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info, warn};
use tracing_subscriber::EnvFilter;

/// Exit code of a start that failed, as that of `ExitCode::FAILURE`.
const EXIT_FAILED: u8 = 1;

/// Exit code after a second signal: what was in flight was dropped.
const EXIT_ABORTED: u8 = 130;

/// What is logged of libraries unless `log.level` names them. What a group's handle says, as of one that was just stopped, its caller
/// is told, too.
const QUIET: &str = "openraft=error,openraft::raft=off";

/// Threads that read segments; more readers of a disk than this only wait for each other.
const BLOCKING_THREADS_MAX: usize = 64;

/// Arguments of `tidelog serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Directory that holds everything the broker keeps. The same as --set log.dirs=DIR
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Properties file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Join the cluster of the broker that listens there for others (its inter.broker.listener), with an empty data
    /// directory. The same as --set cluster.join=HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
    /// Set one property; may be repeated. Wins over the environment (TIDELOG_*) and the file.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    sets: Vec<String>,
    /// Print the configuration in force, with its sources, and exit.
    #[arg(long)]
    print_config: bool,
}

/// Runs a broker until a signal ends it.
pub fn run(args: ServeArgs) -> ExitCode {
    let mut sets = args.sets;
    sets.extend(args.join.map(|contact| format!("cluster.join={contact}")));
    let load = LoadArgs {
        data_dir: args.data_dir,
        config_file: args.config,
        sets,
        environment: std::env::vars().collect(),
    };
    let loaded = match config::load(&load) {
        Ok(loaded) => loaded,
        Err(errors) => return fail(&errors),
    };
    if args.print_config {
        print!("{}", config::print(&loaded.settings));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = start_logging(&loaded.config) {
        return fail(&error);
    }
    limit_background_threads();
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tidelog")
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(loaded)),
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("tidelog: {error}");
    ExitCode::FAILURE
}

async fn serve(loaded: config::Loaded) -> ExitCode {
    let data_dir = loaded.config.data_dir.clone();
    let signals = Signals::listen();
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(&error),
    };
    let started = tokio::select! {
        started = Server::start(loaded) => started,
        () = signals.next() => give_up(&"stopped before the start was done"),
    };
    let server = match started {
        Ok(server) => server,
        Err(error) => give_up(&error as &ServerError),
    };
    greet(&server, &data_dir);
    signals.next().await;
    tokio::select! {
        // Clients that were not answered in time were warned about; what they were promised is on disk.
        _ = server.shutdown() => ExitCode::SUCCESS,
        () = signals.next() => {
            warn!("stopped by a second signal");
            end_at_once(EXIT_ABORTED)
        }
    }
}

/// Ends a start that failed. What was opened until then may be in use by its threads.
fn give_up(error: &dyn std::fmt::Display) -> ! {
    fail(error);
    end_at_once(EXIT_FAILED)
}

/// Returning from `main` would wait for what still blocks, and `exit` would destroy under other threads' hands what
/// they still use (RocksDB aborts then).
fn end_at_once(code: u8) -> ! {
    // SAFETY: ends the process at once; no code of ours runs after it.
    unsafe { libc::_exit(i32::from(code)) }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => info!("SIGTERM received"),
            _ = self.interrupt.recv() => info!("SIGINT received"),
        }
    }
}

/// What a person who started a broker wants to know next.
fn greet(server: &Server, data_dir: &std::path::Path) {
    let mut text = format!(
        "\nTidelog {} is ready, data in {}\n",
        env!("CARGO_PKG_VERSION"),
        data_dir.display()
    );
    for endpoint in server.endpoints() {
        text.push_str(&format!(
            "  {}://{}:{}\n",
            endpoint.listener, endpoint.host, endpoint.port
        ));
    }
    for address in server.http_addresses() {
        text.push_str(&format!("  http://{address}/health/ready and /metrics\n"));
    }
    // As this process was called, so that the lines work where it was started.
    let tidelog = std::env::args().next();
    let tidelog = tidelog.as_deref().unwrap_or("tidelog");
    text.push_str("Try:\n");
    text.push_str(&format!("  {tidelog} topic create hello --partitions 3\n"));
    text.push_str(&format!(
        "  echo 'hello, world' | {tidelog} produce hello\n"
    ));
    text.push_str(&format!("  {tidelog} consume hello --from-beginning\n\n"));
    // Without a reader of standard output the broker serves all the same.
    let _ = io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush());
}

fn start_logging(config: &BrokerConfig) -> Result<(), String> {
    // The consensus library tells every step of an election, some as warnings; its errors are enough unless it is named.
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.process.log_level))
        .map_err(|error| format!("log.level: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // A log that cannot be written, its disk being full, is no reason to panic in whoever had something to say.
        .log_internal_errors(false);
    match config.process.log_format {
        LogFormat::Plain => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// One thread that gives freed memory back, instead of one for each core.
fn limit_background_threads() {
    let limited = max_background_threads::write(1).and_then(|()| background_thread::write(true));
    if let Err(error) = limited {
        warn!(%error, "freed memory goes back to the system only when more is asked for");
    }
}

/// Segments, connections and the key-value store all hold files open.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => debug!(limit = limit.maximum.unwrap_or(u64::MAX), "open files"),
        Err(error) => {
            warn!(%error, current = limit.current.unwrap_or(u64::MAX), "the open-file limit stays as it is")
        }
    }
}
