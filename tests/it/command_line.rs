//! The command line as a person or a script uses it: the real binary, its output and its exit codes.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::running_broker::{RunningBroker, binary};

/// The command line against one broker.
struct Cli {
    address: String,
    /// Keeps names apart where several runs share a broker.
    run: String,
}

impl Cli {
    fn new(broker: &RunningBroker) -> Self {
        Cli {
            address: broker.address().to_owned(),
            run: uuid::Uuid::new_v4().simple().to_string(),
        }
    }

    fn name(&self, name: &str) -> String {
        format!("{name}-{}", &self.run[..8])
    }

    fn output(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(binary())
            .args(args)
            .env("TIDELOG_BOOTSTRAP_SERVER", &self.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary");
        let mut stdin = child.stdin.take().expect("piped above");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input).ok());
        let output = child.wait_with_output().expect("output of the binary");
        writer.join().expect("the writer does not panic");
        output
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, b"")
    }

    fn ok_with(&self, args: &[&str], input: &[u8]) -> String {
        let output = self.output(args, input);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Exit code and standard error of a command that must not succeed.
    fn fails(&self, args: &[&str]) -> (i32, String) {
        self.fails_with(args, b"")
    }

    fn fails_with(&self, args: &[&str], input: &[u8]) -> (i32, String) {
        let output = self.output(args, input);
        let code = output.status.code().expect("an exit code");
        assert_ne!(code, 0, "{args:?}: {output:?}");
        (code, String::from_utf8(output.stderr).expect("text"))
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).expect("JSON")
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn topics_are_created_listed_described_altered_and_deleted() {
    let broker = RunningBroker::start();
    let cli = Cli::new(&broker);
    let (orders, other) = (cli.name("orders"), cli.name("other"));

    let created = cli.ok(&[
        "topic",
        "create",
        &orders,
        "--partitions",
        "3",
        "--replication-factor",
        "1",
        "--config",
        "retention.ms=86400000",
    ]);
    assert_eq!(
        created,
        format!("created topic '{orders}' with 3 partitions\n")
    );
    let again = cli.fails(&["topic", "create", &orders]);
    assert_eq!(
        again,
        (1, format!("error: topic '{orders}' already exists\n"))
    );
    cli.ok(&["topic", "create", &orders, "--if-not-exists"]);
    cli.ok(&["topic", "create", &other]);

    let listed = cli.ok(&["topic", "list"]);
    let row = |topic: &str| {
        let row = listed
            .lines()
            .find(|line| line.split(' ').next() == Some(topic));
        row.map(|row| row.split_whitespace().skip(1).collect::<Vec<_>>())
    };
    assert_eq!(row(&orders), Some(vec!["3", "1"]));
    assert_eq!(row(&other), Some(vec!["1", "1"]));

    cli.ok(&[
        "topic",
        "alter",
        &orders,
        "--partitions",
        "5",
        "--config",
        "max.message.bytes=2000000",
        "--delete-config",
        "retention.ms",
    ]);
    let described = cli.json(&["topic", "describe", &orders, "--output", "json"]);
    let topic = &described[0];
    assert_eq!(topic["topic"], orders.as_str());
    assert_eq!(topic["partitions"].as_array().map(Vec::len), Some(5));
    assert!(topic["partitions"][4]["leader"].is_i64(), "{topic}");
    assert_eq!(
        topic["configs"],
        serde_json::json!({ "max.message.bytes": "2000000" })
    );
    let text = cli.ok(&["topic", "describe", &orders]);
    assert!(
        text.contains("Configs:     max.message.bytes=2000000\n"),
        "{text}"
    );
    assert!(lines(&text).len() > 9, "{text}");

    let fewer = cli.fails(&["topic", "alter", &orders, "--partitions", "2"]);
    assert_eq!(fewer.0, 1);
    assert!(fewer.1.contains("INVALID_PARTITIONS"), "{fewer:?}");
    let deleted = cli.ok(&["topic", "delete", &orders, &other]);
    assert_eq!(
        deleted,
        format!("deleted topic '{orders}'\ndeleted topic '{other}'\n")
    );
    let gone = cli.fails(&["topic", "describe", &orders]);
    assert_eq!(
        gone,
        (1, format!("error: topic '{orders}' does not exist\n"))
    );
    assert_eq!(cli.fails(&["topic", "delete", &orders]).0, 1);
    cli.ok(&["topic", "delete", &orders, "--if-exists"]);
}

#[test]
fn what_is_produced_is_consumed() {
    let broker = RunningBroker::start();
    let cli = Cli::new(&broker);
    let topic = cli.name("records");
    cli.ok(&["topic", "create", &topic, "--partitions", "2"]);

    for (number, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate() {
        let input = format!("key{number}:value of {codec}\nkey{number}:NULL\n");
        cli.ok_with(
            &[
                "produce",
                &topic,
                "-K",
                ":",
                "--null-value",
                "NULL",
                "-z",
                codec,
                "-H",
                "codec=x",
                "-H",
                "codec=y",
                "--partition",
                "1",
            ],
            input.as_bytes(),
        );
    }
    let read = cli.ok(&[
        "consume",
        &topic,
        "--from-beginning",
        "--end",
        "--format",
        "json",
        "--quiet",
    ]);
    let records: Vec<Value> = read
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(records.len(), 10);
    for (offset, record) in records.iter().enumerate() {
        assert_eq!(record["offset"], offset);
        assert_eq!(record["partition"], 1);
        assert_eq!(record["key"], format!("key{}", offset / 2));
        assert!(record["timestamp"].as_i64() > Some(1_600_000_000_000));
        assert_eq!(
            record["headers"],
            serde_json::json!([
                {"name": "codec", "value": "x"}, {"name": "codec", "value": "y"}
            ])
        );
        assert_eq!(record["value"].is_null(), offset % 2 == 1);
    }
    let part = cli.ok(&[
        "consume",
        &topic,
        "--partition",
        "1",
        "--offset",
        "6",
        "-n",
        "2",
        "--print",
        "key,offset",
        "--separator",
        "|",
    ]);
    assert_eq!(part, "6|key3|value of lz4\n7|key3|null\n");
    let since = format!("timestamp:{}", records[8]["timestamp"]);
    let part = cli.ok(&["consume", &topic, "--offset", &since, "--end"]);
    assert!(part.starts_with("value of"), "{part}");
    assert!(part.ends_with("value of zstd\nnull\n"), "{part}");
    let none = cli.ok(&["consume", &topic, "--timeout", "0.5"]);
    assert_eq!(none, "");
}

#[test]
fn big_records_and_acknowledgement_levels() {
    let broker = RunningBroker::start();
    let cli = Cli::new(&broker);
    let topic = cli.name("big");
    cli.ok(&[
        "topic",
        "create",
        &topic,
        "--config",
        "max.message.bytes=12000000",
    ]);
    let big = vec![b'x'; 10_000_000];
    let folder = tempfile::TempDir::new().expect("temporary folder");
    let path = folder.path().join("big");
    std::fs::write(&path, &big).expect("file");
    let path = path.to_str().expect("UTF-8");
    cli.ok(&["produce", &topic, "--file", path, "--key", "k"]);
    cli.ok(&["produce", &topic, "leader", "--acks", "1"]);
    cli.ok(&["produce", &topic, "nobody", "--acks", "0"]);
    cli.ok(&["produce", &topic, "again", "--idempotence", "false"]);
    let read = cli.ok(&[
        "consume",
        &topic,
        "--from-beginning",
        "-n",
        "4",
        "--timeout",
        "20",
    ]);
    // Nobody promised the record without an acknowledgement: its process may end before its bytes have left.
    let read: Vec<_> = lines(&read)
        .into_iter()
        .filter(|line| *line != "nobody")
        .collect();
    assert_eq!(read[0].len(), big.len());
    assert_eq!(read[1..], ["leader", "again"]);

    let small = cli.name("small");
    cli.ok(&[
        "topic",
        "create",
        &small,
        "--config",
        "max.message.bytes=2000",
    ]);
    // One batch is too large for the topic; its records are not, but for one.
    let mut input = String::new();
    for number in 0..100 {
        input.push_str(&format!("{number:0100}\n"));
    }
    input.push_str(&"y".repeat(3000));
    input.push('\n');
    let (code, error) = cli.fails_with(&["produce", &small], input.as_bytes());
    assert_eq!(code, 1);
    assert!(
        error.contains("error: record 101: ") && error.contains("MESSAGE_TOO_LARGE"),
        "{error}"
    );
    assert!(
        error.ends_with(&format!("100 records written to '{small}', 1 failed\n")),
        "{error}"
    );
    let read = cli.ok(&["consume", &small, "--from-beginning", "--end"]);
    let numbers: Vec<usize> = read
        .lines()
        .map(|line| line.parse().expect("number"))
        .collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn groups_go_on_where_they_stopped() {
    let broker = RunningBroker::start();
    let cli = Cli::new(&broker);
    let (topic, group) = (cli.name("events"), cli.name("readers"));
    cli.ok(&["topic", "create", &topic, "--partitions", "2"]);
    let input: String = (0..20).map(|number| format!("{number}\n")).collect();
    cli.ok_with(&["produce", &topic, "--partition", "0"], input.as_bytes());
    let consume = |most: &str| {
        cli.ok(&[
            "consume",
            &topic,
            "--group",
            &group,
            "--from-beginning",
            "-n",
            most,
            "--timeout",
            "20",
        ])
    };
    assert_eq!(lines(&consume("7")), ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(lines(&consume("3")), ["7", "8", "9"]);
    let described = cli.json(&["group", "describe", &group, "--output", "json"]);
    assert_eq!(described["state"], "Empty");
    let progress = &described["partitions"][0];
    assert_eq!(
        (&progress["offset"], &progress["lag"]),
        (&10.into(), &10.into())
    );
    assert!(cli.ok(&["group", "list"]).contains(&group));
    let text = cli.ok(&["group", "describe", &group]);
    assert!(text.contains("State:     Empty\n"), "{text}");

    cli.ok(&[
        "group",
        "reset-offsets",
        &group,
        "--topic",
        &topic,
        "--to",
        "18",
        "--partition",
        "0",
    ]);
    let rest = cli.ok(&[
        "consume",
        &topic,
        "--group",
        &group,
        "--end",
        "--timeout",
        "20",
    ]);
    assert_eq!(lines(&rest), ["18", "19"]);
    assert_eq!(
        cli.ok(&["group", "delete", &group]),
        format!("deleted group '{group}'\n")
    );
    let gone = cli.fails(&["group", "describe", &group]);
    assert_eq!(
        gone,
        (1, format!("error: group '{group}' does not exist\n"))
    );
}

#[test]
fn mistakes_are_told_in_one_line() {
    let broker = RunningBroker::start();
    let cli = Cli::new(&broker);
    let unreachable = cli.fails(&["topic", "list", "--bootstrap-server", "127.0.0.1:1"]);
    let message =
        "error: cannot reach 127.0.0.1:1: connection refused; is `tidelog serve` running?\n";
    assert_eq!(unreachable, (1, message.to_owned()));
    for usage in [
        &["topic"][..],
        &["topic", "create"],
        &["topic", "create", "t", "--config", "novalue"],
        &["topic", "alter", "t"],
        &["consume", "t", "--group", "g", "--partition", "0"],
        &["produce", "t", "--acks", "1", "--idempotence", "true"],
        &["topic", "list", "--bootstrap-server", "nowhere"],
    ] {
        assert_eq!(cli.fails(usage).0, 2, "{usage:?}");
    }
    let topic = cli.name("mistakes");
    let missing = cli.fails(&["consume", &topic]);
    assert_eq!(
        missing,
        (1, format!("error: topic '{topic}' does not exist\n"))
    );
    cli.ok(&["topic", "create", &topic]);
    let partition = cli.fails(&["produce", &topic, "x", "--partition", "7"]);
    assert_eq!(partition.0, 1);
    assert!(
        partition.1.contains("there is no partition 7"),
        "{partition:?}"
    );
    let separator = cli.fails_with(&["produce", &topic, "-K", ":"], b"a:1\nb\nc:3\n");
    assert_eq!(separator.0, 1);
    assert_eq!(
        separator.1,
        format!(
            "error: record 2: no key separator ':' in it\n2 records written to '{topic}', 1 failed\n"
        )
    );
    let invalid = cli.fails(&["topic", "create", "no/slashes"]);
    assert!(invalid.1.contains("INVALID_TOPIC"), "{invalid:?}");
    let config = cli.fails(&["topic", "create", &cli.name("c"), "--config", "no.such=1"]);
    assert!(config.1.contains("INVALID_CONFIG"), "{config:?}");
    let range = cli.fails(&["consume", &topic, "--offset", "99", "--timeout", "5"]);
    assert!(range.1.contains("has no offset 99"), "{range:?}");
}

#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    let broker = RunningBroker::start();
    let cli = Cli::new(&broker);
    let topic = cli.name("pipe");
    let input: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    cli.ok(&["topic", "create", &topic]);
    cli.ok_with(&["produce", &topic], input.as_bytes());
    let mut child = Command::new(binary())
        .args(["consume", &topic, "--from-beginning", "--quiet"])
        .env("TIDELOG_BOOTSTRAP_SERVER", broker.address())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("output of the binary");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"");
}

#[test]
fn raw_load_is_counted_timed_and_readable_by_others() {
    let broker = RunningBroker::start();
    let cli = Cli::new(&broker);
    let topic = cli.name("load");
    let raw = |args: &[&str]| {
        let mut all = vec!["bench", "raw", args[0], "--topic", &topic, "--json"];
        all.extend(&args[1..]);
        cli.json(&all)
    };
    let own = std::process::id().to_string();
    let partitions = ["--partitions", "3"];
    let written = raw(&[
        &[
            "produce",
            "--bytes",
            "4M",
            "--connections",
            "2",
            "--pid",
            &own,
        ][..],
        &partitions,
    ]
    .concat());
    assert_eq!(written["records_per_batch"], 15, "{written}");
    let batches = written["requests"].as_u64().expect("a number");
    assert_eq!(written["records"], batches * 15);
    assert!(written["bytes"].as_u64() >= Some(4 << 20));
    assert!(written["latency_ms"]["p99"].as_f64() > Some(0.0));
    assert!(written["broker"]["memory_bytes"].as_u64() > Some(0));
    // What was counted is there, for a client that checks every checksum.
    let consumed = cli.ok(&[
        "consume",
        &topic,
        "--from-beginning",
        "--end",
        "--format",
        "json",
    ]);
    assert_eq!(lines(&consumed).len() as u64, batches * 15);
    let read = raw(&["consume", "--bytes", "4M", "--connections", "5"]);
    assert!(read["bytes"].as_u64() >= Some(4 << 20), "{read}");
    // At a rate: 0.5 s of 200 batches a second.
    let paced = raw(&["produce", "--rate", "200", "--seconds", "0.5"]);
    let sent = paced["requests"].as_u64().expect("a number");
    assert!((50..=101).contains(&sent), "{paced}");
    let unheard = raw(&[
        "produce",
        "--acks",
        "0",
        "--bytes",
        "1M",
        "--compression",
        "lz4",
    ]);
    assert!(unheard["latency_ms"].is_null(), "{unheard}");

    let missing = cli.name("no-load");
    let failed = cli.fails(&[
        "bench", "raw", "consume", "--topic", &missing, "--bytes", "1M",
    ]);
    assert_eq!(
        failed,
        (1, format!("error: topic '{missing}' does not exist\n"))
    );
    let endless = cli.fails(&["bench", "raw", "produce", "--topic", &missing]);
    assert_eq!(endless.0, 2, "{endless:?}");
    let huge = ["--batch-bytes", "3000000", "--bytes", "1M"];
    let refused = cli.fails(&[&["bench", "raw", "produce", "--topic", &topic][..], &huge].concat());
    assert!(refused.1.contains("refused"), "{refused:?}");
}
