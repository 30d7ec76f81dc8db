//! Changes through the admin APIs.

use super::super::alter::{
    AlterError, AlterOp, Changes, broker_changes, replacement, topic_changes,
};
use super::super::layers::{Layers, Overrides};
use super::load_from;

fn layers() -> Layers {
    let settings = load_from("", &[], &[]).expect("loads").settings;
    Layers::new(settings, Overrides::new(), Overrides::new())
}

fn own(pairs: &[(&str, &str)]) -> Overrides {
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn set(name: &str, value: &str) -> (String, AlterOp) {
    (name.to_owned(), AlterOp::Set(value.to_owned()))
}

fn topic(pairs: &[(&str, &str)], ops: &[(String, AlterOp)]) -> Result<Changes, AlterError> {
    topic_changes(&layers(), &own(pairs), ops)
}

fn changes(pairs: &[(&str, Option<&str>)]) -> Result<Changes, AlterError> {
    Ok(pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), v.map(str::to_owned)))
        .collect())
}

#[test]
fn set_and_delete() {
    assert_eq!(
        topic(&[], &[set("retention.ms", "5")]),
        changes(&[("retention.ms", Some("5"))])
    );
    assert_eq!(
        topic(&[("retention.ms", "5")], &[set("retention.ms", "5")]),
        changes(&[])
    );
    let delete = |name: &str| (name.to_owned(), AlterOp::Delete);
    assert_eq!(
        topic(&[("retention.ms", "5")], &[delete("retention.ms")]),
        changes(&[("retention.ms", None)])
    );
    assert_eq!(topic(&[], &[delete("foo")]), changes(&[]));
}

#[test]
fn append_and_subtract_work_on_lists_and_begin_with_the_default() {
    let append = (
        "cleanup.policy".to_owned(),
        AlterOp::Append("delete".to_owned()),
    );
    assert_eq!(
        topic(&[], std::slice::from_ref(&append)),
        changes(&[("cleanup.policy", Some("delete"))])
    );
    let compacted = topic_changes(
        &layers(),
        &Overrides::new(),
        &[(
            "cleanup.policy".to_owned(),
            AlterOp::Append("compact".to_owned()),
        )],
    );
    assert_eq!(
        compacted,
        changes(&[("cleanup.policy", Some("delete,compact"))])
    );
    let subtract = (
        "cleanup.policy".to_owned(),
        AlterOp::Subtract("compact".to_owned()),
    );
    assert_eq!(
        topic(&[("cleanup.policy", "delete,compact")], &[subtract]),
        changes(&[("cleanup.policy", Some("delete"))])
    );
    let number = ("retention.ms".to_owned(), AlterOp::Append("1".to_owned()));
    assert_eq!(
        topic(&[], &[number]).expect_err("refused").to_string(),
        "Can't APPEND to key retention.ms because its type is not LIST."
    );
}

#[test]
fn refused_topic_changes() {
    let message = |name: &str, value: &str| {
        topic(&[], &[set(name, value)])
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(message("foo", "1"), "Unknown topic config name: foo");
    assert_eq!(
        message("retention.ms", "-2"),
        "Invalid value -2 for configuration retention.ms: Value must be at least -1"
    );
    assert!(message("cleanup.policy", "compacted").contains("cleanup.policy"));
}

#[test]
fn throttled_replicas_are_what_kafka_takes_for_some() {
    for list in ["leader", "follower"] {
        let name = format!("{list}.replication.throttled.replicas");
        for value in ["", "*", "0:1", "0:1,0:1", " 0:1 , 1:2 ,", "*,", "0:1,,1:2"] {
            assert!(topic(&[], &[set(&name, value)]).is_ok(), "{value}");
        }
        for (value, shown) in [("x", "[x]"), ("0:1,*", "[0:1, *]"), ("-1:0", "[-1:0]")] {
            let refused = topic(&[], &[set(&name, value)]).expect_err("refused");
            let message = format!(
                "Invalid value {shown} for configuration {name}: {name} must be the literal '*' or a list of replicas in \
                 the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
            );
            assert_eq!(refused, AlterError::InvalidConfig(message));
        }
        let op = |op: fn(String) -> AlterOp, words: &str| (name.clone(), op(words.to_owned()));
        let appended = topic(&[], &[op(AlterOp::Append, "0:1,0:2")]);
        assert_eq!(appended, changes(&[(&name, Some("0:1,0:2"))]));
        let taken = topic(&[(&name, "0:1,0:2")], &[op(AlterOp::Subtract, "0:1")]);
        assert_eq!(taken, changes(&[(&name, Some("0:2"))]));
    }
}

#[test]
fn throttles_have_rates_for_one_broker_and_for_all() {
    for name in [
        "leader.replication.throttled.rate",
        "follower.replication.throttled.rate",
    ] {
        for cluster in [false, true] {
            let alter =
                |value| broker_changes(&layers(), cluster, &Overrides::new(), &[set(name, value)]);
            assert_eq!(alter("0"), changes(&[(name, Some("0"))]));
            let message =
                format!("Invalid value -1 for configuration {name}: Value must be at least 0");
            assert_eq!(alter("-1"), Err(AlterError::InvalidRequest(message)));
        }
    }
}

#[test]
fn a_replacement_removes_what_it_does_not_name() {
    let before = [("retention.ms", "5"), ("segment.ms", "6")];
    let ops = replacement(
        &own(&before),
        vec![("retention.ms".to_owned(), "7".to_owned())],
    );
    assert_eq!(
        topic(&before, &ops),
        changes(&[("retention.ms", Some("7")), ("segment.ms", None)])
    );
}

#[test]
fn brokers_change_only_what_is_dynamic() {
    let broker =
        |ops: &[(String, AlterOp)]| broker_changes(&layers(), false, &Overrides::new(), ops);
    assert_eq!(
        broker(&[set("message.max.bytes", "10")]),
        changes(&[("message.max.bytes", Some("10"))])
    );
    let refused = |name: &str, value: &str| broker(&[set(name, value)]).expect_err("refused");
    assert_eq!(
        refused("num.partitions", "3"),
        AlterError::InvalidRequest(
            "Cannot update these configs dynamically: [num.partitions]".to_owned()
        )
    );
    assert_eq!(
        refused("message.max.bytes", "x"),
        AlterError::InvalidRequest(
            "Invalid value x for configuration message.max.bytes: Not a number of type INT"
                .to_owned()
        )
    );
    assert!(
        refused("foo.bar", "3")
            .to_string()
            .contains("Unknown broker config name")
    );
    assert!(
        refused("log.retention.ms", "0")
            .to_string()
            .contains("must be unlimited")
    );
    assert!(broker(&[set("log.cleaner.threads", "2")]).is_ok());
    assert_eq!(
        refused("log.cleaner.threads", "3").to_string(),
        "Log cleaner threads cannot be increased to more than double the current value 1"
    );
    assert_eq!(
        refused("log.cleaner.threads", "0").to_string(),
        "Log cleaner threads should be at least 1"
    );
    let append = (
        "message.max.bytes".to_owned(),
        AlterOp::Append("1".to_owned()),
    );
    assert_eq!(
        broker(&[append]).expect_err("refused").to_string(),
        "Config value append is not allowed for config key: message.max.bytes"
    );
}
