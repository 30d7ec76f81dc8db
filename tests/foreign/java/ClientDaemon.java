// The Java client behind one JSON request a line: see clients/daemon.py for the other end.
//
// Each request runs on a thread of its own; answers are lines on standard output, in the order in which they are
// ready. Errors carry Kafka's code, as the client's exception maps to it.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class ClientDaemon {
    private static final ObjectMapper JSON = new ObjectMapper();

    private final String address;
    private final PrintStream out;
    private final Map<Integer, AutoCloseable> handles = new ConcurrentHashMap<>();
    private final AtomicInteger nextHandle = new AtomicInteger();
    private Admin admin;

    private interface Op {
        Object run(JsonNode request) throws Exception;
    }

    private final Map<String, Op> ops = new HashMap<>();

    public static void main(String[] args) throws Exception {
        new ClientDaemon(args[0]).serve();
    }

    private ClientDaemon(String address) {
        this.address = address;
        this.out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        ops.put("produce", this::produce);
        ops.put("open", this::open);
        ops.put("poll", r -> ((Reader) handle(r)).poll(r.get("count").asInt(), r.get("timeout_ms").asLong()));
        ops.put("close", r -> { handles.remove(r.get("handle").asInt()).close(); return null; });
        ops.put("member", r -> keep(new Member(r)));
        ops.put("member_state", r -> ((Member) handle(r)).state(r.get("since").asInt()));
        ops.put("member_stop", r -> { ((Member) handle(r)).stop(); return null; });
        ops.put("committed", this::committed);
        ops.put("commit", this::commit);
        ops.put("create_topic", this::createTopic);
        ops.put("delete_topic", r -> admin().deleteTopics(List.of(text(r, "name"))).all().get());
        ops.put("create_partitions", r -> admin()
            .createPartitions(Map.of(text(r, "name"), NewPartitions.increaseTo(r.get("count").asInt()))).all().get());
        ops.put("list_topics", r -> admin().listTopics().names().get());
        ops.put("topic_config", this::topicConfig);
        ops.put("set_config", r -> alterConfig(r, AlterConfigOp.OpType.SET));
        ops.put("append_config", r -> alterConfig(r, AlterConfigOp.OpType.APPEND));
        ops.put("delete_config", r -> alterConfig(r, AlterConfigOp.OpType.DELETE));
        ops.put("delete_records", r -> admin()
            .deleteRecords(Map.of(partition(r), RecordsToDelete.beforeOffset(r.get("before").asLong())))
            .lowWatermarks().get(partition(r)).get().lowWatermark());
        ops.put("list_groups", r -> admin().listGroups(ListGroupsOptions.forConsumerGroups()).all().get().stream()
            .map(GroupListing::groupId).collect(Collectors.toList()));
        ops.put("describe_group", this::describeGroup);
        ops.put("delete_group", r -> admin().deleteConsumerGroups(List.of(text(r, "group"))).all().get());
        ops.put("describe_cluster", this::describeCluster);
        ops.put("describe_topic", this::describeTopic);
        ops.put("log_dirs", this::logDirs);
        ops.put("describe_producers", r -> admin().describeProducers(List.of(partition(r))).partitionResult(partition(r))
            .get().activeProducers().stream()
            .map(p -> List.of(p.producerId(), p.producerEpoch(), p.lastSequence())).collect(Collectors.toList()));
        ops.put("list_offset", this::listOffset);
        ops.put("alter_offset", r -> admin().alterConsumerGroupOffsets(text(r, "group"),
            Map.of(partition(r), new OffsetAndMetadata(r.get("offset").asLong()))).all().get());
        ops.put("delete_offset", r -> admin()
            .deleteConsumerGroupOffsets(text(r, "group"), Set.of(partition(r))).all().get());
        ops.put("remove_member", r -> admin().removeMembersFromConsumerGroup(text(r, "group"),
            new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove(text(r, "instance"))))).all().get());
    }

    // ---- requests and answers

    private void serve() throws Exception {
        ExecutorService pool = Executors.newCachedThreadPool();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonNode request = JSON.readTree(line);
            pool.execute(() -> answer(request));
        }
        System.exit(0);
    }

    private void answer(JsonNode request) {
        ObjectNode answer = JSON.createObjectNode().put("id", request.get("id").asInt());
        try {
            Object result = ops.get(text(request, "op")).run(request);
            answer.set("ok", JSON.valueToTree(result));
        } catch (Throwable thrown) {
            Throwable cause = thrown instanceof ExecutionException ? thrown.getCause() : thrown;
            ObjectNode error = answer.putObject("error").put("message", cause.toString());
            if (cause instanceof OffsetOutOfRangeException) {
                error.put("code", Errors.OFFSET_OUT_OF_RANGE.code());
            } else if (Errors.forException(cause) != Errors.UNKNOWN_SERVER_ERROR) {
                error.put("code", Errors.forException(cause).code());
            }
        }
        synchronized (out) {
            out.println(answer);
        }
    }

    private int keep(AutoCloseable thing) {
        int number = nextHandle.incrementAndGet();
        handles.put(number, thing);
        return number;
    }

    private AutoCloseable handle(JsonNode request) {
        return handles.get(request.get("handle").asInt());
    }

    private static String text(JsonNode node, String name) {
        return node.get(name).asText();
    }

    private static byte[] bytes(JsonNode node) {
        return node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }

    private static String base64(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }

    private static TopicPartition partition(JsonNode request) {
        return new TopicPartition(text(request, "topic"), request.get("partition").asInt());
    }

    private Properties common() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        return properties;
    }

    private synchronized Admin admin() {
        if (admin == null) {
            Properties properties = common();
            properties.put("request.timeout.ms", "15000");
            properties.put("default.api.timeout.ms", "20000");
            admin = Admin.create(properties);
        }
        return admin;
    }

    // ---- records

    private Object produce(JsonNode request) throws Exception {
        Properties properties = common();
        properties.put(ProducerConfig.ACKS_CONFIG, text(request, "acks"));
        properties.put(ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, request.get("idempotent").asBoolean());
        properties.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, text(request, "codec"));
        properties.put(ProducerConfig.LINGER_MS_CONFIG, 5);
        properties.put(ProducerConfig.MAX_BLOCK_MS_CONFIG, 3000);
        properties.put(ProducerConfig.REQUEST_TIMEOUT_MS_CONFIG, 8000);
        properties.put(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, 10000);
        if (!request.get("max_bytes").isNull()) {
            properties.put(ProducerConfig.MAX_REQUEST_SIZE_CONFIG, request.get("max_bytes").asInt());
        }
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (JsonNode r : request.get("records")) {
                List<Header> headers = new ArrayList<>();
                r.get("headers").forEach(h -> headers.add(new RecordHeader(h.get(0).asText(), bytes(h.get(1)))));
                Long timestamp = r.get("timestamp").isNull() ? null : r.get("timestamp").asLong();
                sent.add(producer.send(new ProducerRecord<>(text(request, "topic"), r.get("partition").asInt(), timestamp,
                    bytes(r.get("key")), bytes(r.get("value")), headers)));
            }
            producer.flush();
        }
        List<List<Long>> acks = new ArrayList<>();
        for (Future<RecordMetadata> future : sent) {
            RecordMetadata metadata = future.get();
            acks.add(List.of((long) metadata.partition(), metadata.offset()));
        }
        return acks;
    }

    private KafkaConsumer<byte[], byte[]> consumer(Properties properties) {
        properties.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        properties.put(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, 100);
        properties.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, 4 << 20);
        properties.put(ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, false);
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private Object open(JsonNode request) {
        Properties properties = common();
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, text(request, "reset"));
        if (request.hasNonNull("rack")) {
            properties.put(ConsumerConfig.CLIENT_RACK_CONFIG, text(request, "rack"));
            // A broker that stands still must not be waited for longer than the test does.
            properties.put(ConsumerConfig.REQUEST_TIMEOUT_MS_CONFIG, 5000);
        }
        KafkaConsumer<byte[], byte[]> consumer = consumer(properties);
        TopicPartition where = partition(request);
        consumer.assign(List.of(where));
        switch (text(request, "start")) {
            case "beginning" -> consumer.seekToBeginning(List.of(where));
            case "end" -> consumer.seekToEnd(List.of(where));
            case "timestamp" -> {
                var found = consumer.offsetsForTimes(Map.of(where, request.get("timestamp").asLong())).get(where);
                if (found == null) {
                    consumer.seekToEnd(List.of(where));
                } else {
                    consumer.seek(where, found.offset());
                }
            }
            default -> consumer.seek(where, request.get("start").asLong());
        }
        consumer.position(where);
        return keep(new Reader(consumer));
    }

    private record Reader(KafkaConsumer<byte[], byte[]> consumer) implements AutoCloseable {
        Object poll(int count, long timeoutMs) {
            ArrayNode found = JSON.createArrayNode();
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(timeoutMs))) {
                if (found.size() == count) {
                    consumer.seek(new TopicPartition(record.topic(), record.partition()), record.offset());
                    break;
                }
                ObjectNode one = found.addObject().put("value", base64(record.value())).put("key", base64(record.key()))
                    .put("timestamp", record.timestamp()).put("partition", record.partition()).put("offset", record.offset());
                ArrayNode headers = one.putArray("headers");
                record.headers().forEach(h -> headers.addArray().add(h.key()).add(base64(h.value())));
            }
            return found;
        }

        @Override
        public void close() {
            consumer.close();
        }
    }

    // ---- groups

    private final class Member implements AutoCloseable {
        private final Thread thread;
        private final List<List<Object>> received = new ArrayList<>();
        private volatile List<Integer> assignment = List.of();
        private volatile boolean stopping;
        private volatile Throwable failure;

        Member(JsonNode request) {
            thread = new Thread(() -> run(request));
            thread.start();
        }

        private void run(JsonNode request) {
            Properties properties = common();
            properties.put(ConsumerConfig.GROUP_ID_CONFIG, text(request, "group"));
            properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
            properties.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 10000);
            properties.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 300);
            boolean sticky = text(request, "strategy").equals("cooperative-sticky");
            properties.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG,
                List.of(sticky ? CooperativeStickyAssignor.class : RangeAssignor.class));
            if (!request.get("instance").isNull()) {
                properties.put(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG, text(request, "instance"));
            }
            try (KafkaConsumer<byte[], byte[]> consumer = consumer(properties)) {
                consumer.subscribe(List.of(text(request, "topic")));
                while (!stopping) {
                    pollOnce(consumer, text(request, "metadata"));
                }
            } catch (Throwable thrown) {
                failure = thrown;
            }
        }

        private void pollOnce(KafkaConsumer<byte[], byte[]> consumer, String metadata) {
            Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
            List<List<Object>> got = new ArrayList<>();
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                got.add(List.of(record.partition(), record.offset(), base64(record.value())));
                ends.put(new TopicPartition(record.topic(), record.partition()),
                    new OffsetAndMetadata(record.offset() + 1, metadata));
            }
            if (!ends.isEmpty()) {
                consumer.commitSync(ends);
            }
            synchronized (received) {
                received.addAll(got);
            }
            assignment = consumer.assignment().stream().map(TopicPartition::partition).sorted().toList();
        }

        Object state(int since) {
            synchronized (received) {
                return Map.of("received", new ArrayList<>(received.subList(since, received.size())),
                    "assignment", assignment);
            }
        }

        void stop() throws Exception {
            stopping = true;
            thread.join();
            if (failure != null) {
                throw failure instanceof Exception e ? e : new RuntimeException(failure);
            }
        }

        @Override
        public void close() throws Exception {
            stopping = true;
            thread.join();
        }
    }

    private Object committed(JsonNode request) throws Exception {
        OffsetAndMetadata found = admin().listConsumerGroupOffsets(text(request, "group"))
            .partitionsToOffsetAndMetadata().get().get(partition(request));
        return found == null ? List.of(-1, "") : List.of(found.offset(), found.metadata());
    }

    private Object commit(JsonNode request) {
        Properties properties = common();
        properties.put(ConsumerConfig.GROUP_ID_CONFIG, text(request, "group"));
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(properties)) {
            consumer.assign(List.of(partition(request)));
            consumer.commitSync(Map.of(partition(request),
                new OffsetAndMetadata(request.get("offset").asLong(), text(request, "metadata"))));
        }
        return null;
    }

    private Object describeGroup(JsonNode request) throws Exception {
        var found = admin().describeConsumerGroups(List.of(text(request, "group"))).all().get().get(text(request, "group"));
        return List.of(found.groupState().toString(), found.members().size());
    }

    // ---- administration

    private Object createTopic(JsonNode request) throws Exception {
        Map<String, String> configs = new HashMap<>();
        request.get("configs").properties().forEach(e -> configs.put(e.getKey(), e.getValue().asText()));
        NewTopic topic = new NewTopic(text(request, "name"), Optional.of(request.get("partitions").asInt()),
            Optional.of((short) request.get("replication").asInt())).configs(configs);
        return admin().createTopics(List.of(topic)).all().get();
    }

    private Object topicConfig(JsonNode request) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, text(request, "name"));
        Map<String, String> values = new TreeMap<>();
        admin().describeConfigs(List.of(resource)).all().get().get(resource).entries()
            .forEach(e -> values.put(e.name(), e.value()));
        return values;
    }

    private Object alterConfig(JsonNode request, AlterConfigOp.OpType type) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, text(request, "name"));
        String value = request.hasNonNull("value") ? text(request, "value") : null;
        Collection<AlterConfigOp> change = List.of(new AlterConfigOp(new ConfigEntry(text(request, "key"), value), type));
        return admin().incrementalAlterConfigs(Map.of(resource, change)).all().get();
    }

    private Object describeCluster(JsonNode request) throws Exception {
        var found = admin().describeCluster();
        return Map.of("cluster", found.clusterId().get(), "controller", found.controller().get().id(),
            "nodes", found.nodes().get().stream().map(n -> n.host() + ":" + n.port()).toList());
    }

    private Object describeTopic(JsonNode request) throws Exception {
        TopicDescription found = admin().describeTopics(List.of(text(request, "name"))).allTopicNames().get()
            .get(text(request, "name"));
        return Map.of("id", found.topicId().toString(), "internal", found.isInternal(),
            "partitions", found.partitions().stream().map(p ->
                List.of(p.partition(), p.leader().id(), p.replicas().size(), p.isr().size())).toList());
    }

    private Object logDirs(JsonNode request) throws Exception {
        int node = admin().describeCluster().nodes().get().iterator().next().id();
        Map<String, Object> sizes = new TreeMap<>();
        admin().describeLogDirs(List.of(node)).allDescriptions().get().get(node).forEach((dir, description) ->
            description.replicaInfos().forEach((where, info) -> sizes.put(where.toString(), info.size())));
        return sizes;
    }

    private Object listOffset(JsonNode request) throws Exception {
        OffsetSpec spec = switch (text(request, "spec")) {
            case "earliest" -> OffsetSpec.earliest();
            case "latest" -> OffsetSpec.latest();
            case "max_timestamp" -> OffsetSpec.maxTimestamp();
            default -> OffsetSpec.forTimestamp(request.get("spec").asLong());
        };
        var found = admin().listOffsets(Map.of(partition(request), spec)).partitionResult(partition(request)).get();
        return List.of(found.offset(), found.timestamp(), found.leaderEpoch().orElse(-1));
    }
}
