//! `tidelog storage`: what can be done with a data directory while no broker uses it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog_broker::config::{self, LoadArgs};
use tidelog_replication::check_stored;
use tidelog_storage::check::{CheckOptions, CheckReport, Finding, Outcome, check};
use tidelog_storage::fs::{DirectoryLock, RealFs};
use tidelog_storage::kv::{KeyValueStore, KvError, RocksKv};

use super::Format;
use super::failure::Failure;
use super::output::Output;

/// The partition without which a broker does not start: the log of the cluster's metadata.
const METADATA_PARTITION: &str = "__cluster_metadata-0";

/// What to do with a data directory.
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Read everything in a data directory and say what is wrong with it. Changes nothing.
    Check(CheckArgs),
}

/// Arguments of `storage check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The data directory [default: as `tidelog serve` would choose it]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Properties file of the broker, to find the data directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the result is printed
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

/// Runs a command; blocks.
pub(super) fn run(command: StorageCommand) -> Result<(), Failure> {
    let StorageCommand::Check(args) = command;
    let directory = directory(&args)?;
    let report = look(&directory)?;
    let mut out = Output::new();
    match args.output {
        Format::Text => out.text(&text(&report))?,
        Format::Json => out.json(&document(&directory, &report))?,
    }
    if report.findings.is_empty() {
        Ok(())
    } else {
        Err(Failure::Reported)
    }
}

fn directory(args: &CheckArgs) -> Result<PathBuf, Failure> {
    let load = LoadArgs {
        data_dir: args.data_dir.clone(),
        config_file: args.config.clone(),
        sets: Vec::new(),
        environment: std::env::vars().collect(),
    };
    let loaded = config::load(&load).map_err(|errors| Failure::Usage(errors.to_string()))?;
    Ok(loaded.config.data_dir)
}

fn look(directory: &Path) -> Result<CheckReport, Failure> {
    let shown = directory.display();
    if !directory.is_dir() {
        return Err(Failure::Unreadable(format!("{shown} is not a directory")));
    }
    let lock = DirectoryLock::hold(&RealFs, directory);
    let _lock = lock.map_err(|error| Failure::Unreadable(error.to_string()))?;
    if is_unused(directory)? {
        return Ok(CheckReport::default());
    }
    let kv = store(directory);
    let mut report = check(CheckOptions {
        directory: directory.to_owned(),
        fs: Arc::new(RealFs),
        kv: kv.clone(),
    });
    if let Ok(kv) = kv {
        for finding in stored(&*kv, &report) {
            report.add(finding);
        }
        report.sort();
    }
    for finding in &mut report.findings {
        if finding.outcome.partition() == Some(METADATA_PARTITION) {
            finding.outcome = Outcome::NoStart;
        }
    }
    Ok(report)
}

/// Whether no broker has used the directory.
fn is_unused(directory: &Path) -> Result<bool, Failure> {
    let failed = |error| Failure::Unreadable(format!("{}: {error}", directory.display()));
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        if entry.map_err(failed)?.file_name() != ".lock" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn store(directory: &Path) -> Result<Arc<dyn KeyValueStore>, KvError> {
    let kv = RocksKv::copy_of(&directory.join("kv"))?;
    Ok(Arc::new(kv))
}

fn stored(kv: &dyn KeyValueStore, report: &CheckReport) -> Vec<Finding> {
    let finding = |problem, outcome| Finding {
        file: "kv".to_owned(),
        position: None,
        problem,
        outcome,
    };
    match check_stored(kv, &report.logs) {
        Ok(problems) => {
            let problems = problems.into_iter();
            problems
                .map(|found| {
                    let outcome = found.partition;
                    let outcome = outcome.map(|partition| Outcome::Offline { partition });
                    finding(found.problem, outcome.unwrap_or(Outcome::NoStart))
                })
                .collect()
        }
        Err(error) => vec![finding(error.0, Outcome::NoStart)],
    }
}

fn text(report: &CheckReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let place = match finding.position {
            Some(position) => format!("{} at byte {position}", finding.file),
            None => finding.file.clone(),
        };
        text.push_str(&format!(
            "{place}: {}: {}\n",
            finding.problem, finding.outcome
        ));
    }
    if let Some((file, position)) = &report.tail_cut {
        text.push_str(&format!(
            "{file} ends at byte {position}; what follows was never acknowledged, which is no damage\n"
        ));
    }
    text.push_str(&format!(
        "{} logs, {} segments, {} batches, {} bytes read; {} journal frames to apply after {} stop; {}\n",
        report.logs.len(),
        report.segments,
        report.batches,
        report.bytes,
        report.frames_replayed,
        if report.clean_stop { "a clean" } else { "an unclean" },
        match report.findings.len() {
            0 => "nothing is wrong".to_owned(),
            1 => "1 finding".to_owned(),
            many => format!("{many} findings"),
        },
    ));
    text
}

fn document(directory: &Path, report: &CheckReport) -> Value {
    let findings = report.findings.iter().map(|finding| {
        json!({
            "file": finding.file,
            "position": finding.position,
            "problem": finding.problem,
            "outcome": finding.outcome.word(),
            "partition": finding.outcome.partition(),
        })
    });
    json!({
        "directory": directory.display().to_string(),
        "findings": findings.collect::<Vec<_>>(),
        "clean_stop": report.clean_stop,
        "logs": report.logs.len(),
        "segments": report.segments,
        "entries": report.entries,
        "batches": report.batches,
        "bytes": report.bytes,
        "frames_to_apply": report.frames_replayed,
        "tail_cut": report.tail_cut.as_ref().map(|(file, position)| json!({"file": file, "position": position})),
    })
}
