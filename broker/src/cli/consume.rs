//! `tidelog consume`: reads a topic, alone or as a member of a group, and prints it.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use tidelog_client::{
    Admin, Client, ConsumedRecord, Consumer, ConsumerConfig, Error, GroupConfig, GroupConsumer,
    Offset, OffsetReset, OffsetSpec, TopicName, TopicPartition,
};
use tokio::time::Instant;

use super::failure::{Failure, about_topic};
use super::output::Output;
use super::record_format::{Field, RecordFormat};
use super::start_point::StartPoint;
use super::stop::Stop;
use super::{ConnectArgs, Format, partitions, seconds};

/// Longest wait for records between looks at what ends the command.
const POLL_WAIT: Duration = Duration::from_millis(250);

/// Arguments of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// Topic to read
    topic: String,
    /// Read as a member of this group: shares the partitions, goes on after what it has committed
    #[arg(long, short, value_name = "GROUP", conflicts_with_all = ["partition", "offset"])]
    group: Option<String>,
    /// Read this partition only; may be repeated
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Where to begin: earliest, latest, an offset, or timestamp:MILLISECONDS [default: latest]
    #[arg(long, short, value_name = "WHERE")]
    offset: Option<StartPoint>,
    /// Begin with the first record that is retained; with --group, where the group has not committed
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Stop after so many records
    #[arg(long, short = 'n', value_name = "N")]
    max_messages: Option<u64>,
    /// Stop when no record came for so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Stop at what is the end of each partition now
    #[arg(long)]
    end: bool,
    /// How records are printed: values, or an object per line
    #[arg(long, short, value_enum, default_value = "text")]
    format: Format,
    /// What text shows before the value, separated by commas
    #[arg(long, value_enum, value_name = "FIELDS", value_delimiter = ',')]
    print: Vec<Field>,
    /// What stands between the fields of text
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "\t",
        hide_default_value = true
    )]
    separator: String,
    /// What text shows for null
    #[arg(long, value_name = "TEXT", default_value = "null")]
    null_value: String,
    /// No summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Reads alone or with others; printing is the same.
enum Reader {
    Alone(Consumer),
    Group(Box<GroupConsumer>),
}

impl Reader {
    async fn poll(&mut self) -> Result<Vec<ConsumedRecord>, Error> {
        match self {
            Reader::Alone(consumer) => consumer.poll(POLL_WAIT).await,
            Reader::Group(consumer) => consumer.poll(POLL_WAIT).await,
        }
    }

    fn printed(&mut self, of: &TopicPartition, next: Offset) {
        if let Reader::Group(consumer) = self {
            consumer.processed(of, next);
        }
    }

    /// Whether every partition has been read to its end of when the command began.
    fn has_reached(&self, ends: &BTreeMap<TopicPartition, Offset>) -> bool {
        let assignment = match self {
            Reader::Alone(consumer) => consumer.assignment(),
            Reader::Group(consumer) => consumer.assignment(),
        };
        let position = |of| match self {
            Reader::Alone(consumer) => consumer.position(of),
            Reader::Group(consumer) => consumer.position(of),
        };
        !assignment.is_empty()
            && assignment
                .iter()
                .all(|of| ends.get(of).is_none_or(|end| position(of) >= Some(*end)))
    }
}

pub(super) async fn run(args: ConsumeArgs) -> Result<(), Failure> {
    let client = args.connect.connect().await?;
    let mut stop = Stop::new()?;
    let admin = Admin::new(client.clone());
    let partitions = partitions::find(&admin, &args.topic, &args.partition).await?;
    let mut ends = BTreeMap::new();
    if args.end {
        for of in &partitions {
            let end = admin
                .list_offset(of, OffsetSpec::Latest)
                .await
                .map_err(|error| about_topic(&error, &args.topic))?;
            ends.insert(of.clone(), end.offset.unwrap_or_default());
        }
    }
    let mut reader = args.reader(client, &admin, partitions).await?;
    let mut output = Output::new();
    let mut printed = 0;
    let ended = tokio::select! {
        ended = print(&args, &mut reader, &ends, &mut output, &mut printed) => ended,
        () = stop.wait() => Ok(()),
    };
    let flushed = output.flush();
    let closed = match reader {
        Reader::Group(consumer) => consumer.close().await.map_err(Failure::from),
        Reader::Alone(_) => Ok(()),
    };
    if !args.quiet {
        let records = if printed == 1 { "record" } else { "records" };
        eprintln!("{printed} {records} read from '{}'", args.topic);
    }
    ended.and(flushed).and(closed)
}

impl ConsumeArgs {
    async fn reader(
        &self,
        client: Client,
        admin: &Admin,
        partitions: Vec<TopicPartition>,
    ) -> Result<Reader, Failure> {
        let consumer = ConsumerConfig {
            fetch_wait: POLL_WAIT,
            offset_reset: match self.from_beginning {
                true => OffsetReset::Earliest,
                false => OffsetReset::Latest,
            },
            ..ConsumerConfig::default()
        };
        if let Some(group) = &self.group {
            let config = GroupConfig {
                consumer,
                ..GroupConfig::new(group)
            };
            let topics = [TopicName::from(self.topic.as_str())];
            let consumer = GroupConsumer::subscribe(client, config, &topics);
            return Ok(Reader::Group(Box::new(consumer)));
        }
        let start = match self.offset {
            Some(start) => start,
            None if self.from_beginning => StartPoint::Earliest,
            None => StartPoint::Latest,
        };
        let mut starts = Vec::with_capacity(partitions.len());
        for of in partitions {
            let offset = start
                .resolve(admin, &of)
                .await
                .map_err(|error| about_topic(&error, &self.topic))?;
            starts.push((of, offset));
        }
        // An offset that is not there was asked for by its number.
        let offset_reset = match start {
            StartPoint::At(_) => OffsetReset::Error,
            _ => OffsetReset::Earliest,
        };
        let mut reader = Consumer::new(
            client,
            ConsumerConfig {
                offset_reset,
                ..consumer
            },
        );
        reader.assign(starts);
        Ok(Reader::Alone(reader))
    }

    fn record_format(&self) -> RecordFormat {
        let mut fields = self.print.clone();
        fields.sort();
        fields.dedup();
        RecordFormat {
            format: self.format,
            fields,
            separator: self.separator.clone(),
            null: self.null_value.clone(),
        }
    }
}

/// Prints records until one of the ends that the arguments name. May be dropped while it waits.
async fn print(
    args: &ConsumeArgs,
    reader: &mut Reader,
    ends: &BTreeMap<TopicPartition, Offset>,
    output: &mut Output,
    printed: &mut u64,
) -> Result<(), Failure> {
    let format = args.record_format();
    let most = args.max_messages.unwrap_or(u64::MAX);
    let mut last = Instant::now();
    let mut line = Vec::new();
    while *printed < most {
        if args.end && reader.has_reached(ends) {
            return Ok(());
        }
        let records = reader.poll().await?;
        if records.is_empty() {
            if args
                .timeout
                .is_some_and(|timeout| last.elapsed() >= timeout)
            {
                return Ok(());
            }
            continue;
        }
        for record in &records {
            // What is written meanwhile lies behind the end.
            if ends
                .get(&record.partition)
                .is_some_and(|end| record.offset >= *end)
            {
                continue;
            }
            if *printed == most {
                break;
            }
            line.clear();
            format.write(record, &mut line);
            output.bytes(&line)?;
            *printed += 1;
            reader.printed(&record.partition, record.offset.plus(1));
        }
        output.flush()?;
        last = Instant::now();
    }
    Ok(())
}
