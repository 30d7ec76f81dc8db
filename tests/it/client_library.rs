//! The client library against a running broker: order, groups that share and rebalance, deletions.

use std::collections::BTreeSet;
use std::time::Duration;

use tidelog_client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, GroupConfig, GroupConsumer, NewTopic,
    Offset, OffsetSpec, PartitionIndex, Producer, ProducerConfig, ProducerRecord, TopicName,
    TopicPartition,
};

use crate::running_broker::RunningBroker;

const WAIT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(broker: &RunningBroker) -> Client {
    Client::connect(ClientConfig::new(broker.address()))
        .await
        .expect("a connection to the broker")
}

async fn topic(client: &Client, name: &str, partitions: i32) -> TopicName {
    let name = format!("{name}-{}", uuid::Uuid::new_v4().simple());
    let mut topic = NewTopic::new(&name);
    topic.partitions = Some(partitions);
    Admin::new(client.clone())
        .create_topic(&topic)
        .await
        .expect("a new topic");
    topic.name
}

fn partition(topic: &TopicName, index: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.clone(),
        partition: PartitionIndex(index),
    }
}

#[tokio::test]
async fn records_of_a_partition_keep_their_order_and_offsets() {
    let broker = RunningBroker::start();
    let client = connect(&broker).await;
    let topic = topic(&client, "order", 3).await;
    let config = ProducerConfig {
        batch_bytes: 1000,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client.clone(), config).expect("a producer");
    let mut deliveries = Vec::new();
    for number in 0..3000 {
        let record = ProducerRecord::new(topic.clone())
            .partition(number % 3)
            .value(number.to_string());
        deliveries.push((number, producer.send(record).await.expect("sent")));
    }
    for (number, delivery) in deliveries {
        let delivered = delivery.await.expect("delivered");
        assert_eq!(delivered.partition, partition(&topic, number % 3));
        assert_eq!(delivered.offset, Some(Offset(i64::from(number / 3))));
    }
    producer.close().await.expect("closed");
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign((0..3).map(|index| (partition(&topic, index), Offset(0))));
    let mut next = [0, 1, 2];
    let mut count = 0;
    while count < 3000 {
        for record in consumer.poll(PATIENCE).await.expect("records") {
            let expected = &mut next[usize::try_from(record.partition.partition.0).unwrap()];
            assert_eq!(
                record.value.as_deref(),
                Some(expected.to_string().as_bytes())
            );
            *expected += 3;
            count += 1;
        }
    }
}

#[tokio::test]
async fn deleted_records_move_the_start_and_a_reader_follows() {
    let broker = RunningBroker::start();
    let client = connect(&broker).await;
    let topic = topic(&client, "deleted", 1).await;
    let producer = Producer::new(client.clone(), ProducerConfig::default()).expect("a producer");
    for number in 0..10 {
        let record = ProducerRecord::new(topic.clone()).value(number.to_string());
        producer.send(record).await.expect("sent");
        producer.flush().await.expect("flushed");
    }
    let admin = Admin::new(client.clone());
    let of = partition(&topic, 0);
    let start = admin
        .delete_records(&of, Some(Offset(6)))
        .await
        .expect("deleted");
    assert_eq!(start, Offset(6));
    let listed = admin
        .list_offset(&of, OffsetSpec::Earliest)
        .await
        .expect("start");
    assert_eq!(listed.offset, Some(Offset(6)));
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign([(of, Offset(2))]);
    let records = consumer.poll(PATIENCE).await.expect("records");
    assert_eq!(records.first().map(|record| record.offset), Some(Offset(6)));
}

#[tokio::test]
async fn members_of_a_group_share_and_take_over() {
    let broker = RunningBroker::start();
    let client = connect(&broker).await;
    let topic = topic(&client, "shared", 4).await;
    let topics = [topic.clone()];
    let config = GroupConfig {
        heartbeat_interval: Duration::from_millis(200),
        ..GroupConfig::new(&format!("group-{}", uuid::Uuid::new_v4().simple()))
    };
    let mut first = GroupConsumer::subscribe(client.clone(), config.clone(), &topics);
    let mut second = GroupConsumer::subscribe(client.clone(), config.clone(), &topics);
    let halves = async {
        loop {
            let (a, b) = tokio::join!(first.poll(WAIT), second.poll(WAIT));
            a.and(b).expect("both are members");
            let (a, b) = (first.assignment(), second.assignment());
            if a.len() == 2 && b.len() == 2 {
                let all: BTreeSet<_> = a.into_iter().chain(b).collect();
                return all.len();
            }
        }
    };
    let shared = tokio::time::timeout(PATIENCE, halves).await;
    assert_eq!(shared.expect("the group settles"), 4);

    let producer = Producer::new(client.clone(), ProducerConfig::default()).expect("a producer");
    for index in 0..4 {
        let record = ProducerRecord::new(topic.clone())
            .partition(index)
            .value("v");
        producer.send(record).await.expect("sent");
    }
    producer.close().await.expect("closed");
    let mut seen = 0;
    while seen < 4 {
        for consumer in [&mut first, &mut second] {
            for record in consumer.poll(WAIT).await.expect("records") {
                consumer.processed(&record.partition, record.offset.plus(1));
                seen += 1;
            }
        }
    }
    second.close().await.expect("committed and left");
    let alone = async {
        while first.assignment().len() < 4 {
            assert_eq!(first.poll(WAIT).await.expect("a member"), []);
        }
    };
    let took_over = tokio::time::timeout(PATIENCE, alone).await;
    took_over.expect("the one that stays gets everything");
    first.close().await.expect("committed and left");
    let committed = Admin::new(client)
        .group_offsets(&config.group_id)
        .await
        .expect("offsets");
    let offsets: Vec<_> = committed.iter().map(|commit| commit.offset.0).collect();
    assert_eq!(offsets, [1, 1, 1, 1]);
}
