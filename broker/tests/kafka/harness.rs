//! A broker in this process, with its data in a temporary directory, and a client that writes frames by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_broker::config::{self, LoadArgs};
use tidelog_broker::server::Server;
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::batch::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::encode;
use tidelog_protocol::frame::{self, RequestHeader};
use tidelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use tidelog_protocol::messages::metadata_request::MetadataRequestTopic;
use tidelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tidelog_protocol::messages::{
    FetchRequest, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, TopicName,
};
use tidelog_protocol::types::TimestampMs;
use tidelog_protocol::{Decodable, Encodable, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing in these tests takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that serves.
pub struct TestBroker {
    pub server: RunningServer,
    pub directory: Option<tempfile::TempDir>,
}

/// A server that is stopped when it is dropped: a key-value store at work while the process ends aborts it. Tests on a
/// runtime of one thread have to call `shutdown`, which needs that thread.
pub struct RunningServer(Option<Server>);

impl RunningServer {
    pub async fn shutdown(mut self) -> bool {
        self.0.take().expect("it runs").shutdown().await
    }
}

impl std::ops::Deref for RunningServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.0.as_ref().expect("it runs")
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if let Some(server) = self.0.take()
            && !std::thread::panicking()
        {
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(server.shutdown()));
        }
    }
}

impl TestBroker {
    /// A broker with default settings.
    pub async fn start() -> TestBroker {
        TestBroker::with(&[]).await
    }

    /// A broker with some properties set.
    pub async fn with(sets: &[&str]) -> TestBroker {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut broker = TestBroker::at(directory.path(), sets).await;
        broker.directory = Some(directory);
        broker
    }

    /// A broker over a directory that outlives it.
    pub async fn at(directory: &Path, sets: &[&str]) -> TestBroker {
        let base = [
            "listeners=PLAINTEXT://127.0.0.1:0",
            "http.listeners=http://127.0.0.1:0",
        ];
        let args = LoadArgs {
            data_dir: Some(directory.to_owned()),
            sets: base
                .iter()
                .chain(sets)
                .map(|set| (*set).to_owned())
                .collect(),
            ..LoadArgs::default()
        };
        let loaded = config::load(&args).expect("configuration");
        let server = Server::start(loaded).await.expect("the broker starts");
        TestBroker {
            server: RunningServer(Some(server)),
            directory: None,
        }
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Client {
        let endpoint = self.server.endpoints().first().expect("a listener");
        let socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
            .await
            .expect("connect");
        socket.set_nodelay(true).expect("socket option");
        Client { socket, next: 1 }
    }

    /// Creates a topic by asking for it.
    pub async fn create_topic(&self, name: &str) {
        let mut client = self.connect().await;
        for _ in 0..100 {
            let response: MetadataResponse = client.call(5, &metadata_of(name)).await;
            if response.topics[0].error_code == 0
                && response.topics[0]
                    .partitions
                    .iter()
                    .all(|p| p.error_code == 0)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("topic {name} did not come into being");
    }
}

/// A connection that frames are written to by hand.
pub struct Client {
    pub socket: TcpStream,
    next: i32,
}

impl Client {
    /// Sends a request and yields its correlation id.
    pub async fn send<Q: Request>(&mut self, version: i16, request: &Q) -> i32 {
        let header = header_of::<Q>(version, self.next);
        self.next += 1;
        let pieces = encode::encode_request(&header, request).expect("request encodes");
        for piece in pieces {
            self.socket.write_all(&piece).await.expect("send");
        }
        header.correlation_id
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("send");
    }

    /// The next reply frame; `None` if the broker closed.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let read = async {
            let mut prefix = [0u8; 4];
            self.socket.read_exact(&mut prefix).await.ok()?;
            let mut frame = vec![0u8; u32::from_be_bytes(prefix) as usize];
            self.socket.read_exact(&mut frame).await.ok()?;
            Some(Bytes::from(frame))
        };
        timeout(PATIENCE, read)
            .await
            .expect("a reply or an end in time")
    }

    /// The next reply, which must be the one to `correlation_id`.
    pub async fn receive<Q: Request, A: Decodable>(
        &mut self,
        version: i16,
        correlation_id: i32,
    ) -> A {
        let mut frame = self.frame().await.expect("a reply");
        let api = ApiKey::try_from(Q::KEY).expect("known API");
        let got = frame::read_response_header(&mut frame, api, version).expect("reply header");
        assert_eq!(
            got, correlation_id,
            "replies leave in the order of their requests"
        );
        let response = A::decode(&mut frame, version).expect("reply decodes");
        assert!(frame.is_empty(), "{} bytes after the reply", frame.len());
        response
    }

    /// A request and its reply.
    pub async fn call<Q: Request, A: Decodable>(&mut self, version: i16, request: &Q) -> A {
        let id = self.send(version, request).await;
        self.receive::<Q, A>(version, id).await
    }

    /// Whether the broker closes without a further byte.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0u8; 1];
        let read = timeout(PATIENCE, self.socket.read(&mut byte))
            .await
            .expect("an end in time");
        matches!(read, Ok(0) | Err(_))
    }
}

/// Header of a request of this client.
pub fn header_of<Q: Request>(version: i16, correlation_id: i32) -> RequestHeader {
    RequestHeader {
        api_key: ApiKey::try_from(Q::KEY).expect("known API"),
        api_version: version,
        correlation_id,
        client_id: Some(StrBytes::from_static_str("test")),
    }
}

/// The frame of a request, size prefix included.
pub fn frame_of<Q: Request + Encodable>(version: i16, correlation_id: i32, request: &Q) -> Vec<u8> {
    encode::encode_request(&header_of::<Q>(version, correlation_id), request)
        .expect("request encodes")
        .concat()
}

/// The first bytes of a frame whose size prefix says `size`.
pub fn frame_start(size: i32, key: i16, version: i16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_i32(size);
    bytes.put_i16(key);
    bytes.put_i16(version);
    bytes.put_i32(77);
    bytes.put_i16(-1);
    bytes.to_vec()
}

/// A topic's name on the wire.
pub fn name_of(topic: &str) -> TopicName {
    StrBytes::from_string(topic.to_owned()).into()
}

/// Asks for a topic, and for its creation.
pub fn metadata_of(topic: &str) -> MetadataRequest {
    MetadataRequest::default()
        .with_topics(Some(vec![
            MetadataRequestTopic::default().with_name(Some(name_of(topic))),
        ]))
        .with_allow_auto_topic_creation(true)
}

/// A batch of records with these values.
pub fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let now = std::time::UNIX_EPOCH.elapsed().expect("clock").as_millis() as i64;
    for value in values {
        builder
            .push(NewRecord {
                timestamp: TimestampMs(now),
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            })
            .expect("record fits");
    }
    builder.build().expect("batch").to_bytes()
}

/// Produces a batch to partition 0.
pub fn produce_of(topic: &str, acks: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(name_of(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

/// The error code and base offset of a response for one partition.
pub fn produced(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// Fetches partition 0 from an offset.
pub fn fetch_of(topic: &str, offset: i64, max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name_of(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Metrics by name, as the exporter prints them.
pub async fn metrics(broker: &TestBroker) -> BTreeMap<String, f64> {
    let (_, body) = http_get(broker, "/metrics").await;
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Status and body of a GET.
pub async fn http_get(broker: &TestBroker, path: &str) -> (u16, String) {
    let address = broker.server.http_addresses()[0];
    let mut socket = TcpStream::connect(address).await.expect("connect");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("send");
    let mut text = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut text))
        .await
        .expect("in time")
        .expect("response");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("status");
    (status, body.to_owned())
}
