import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.StringWriter;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/** The Java client behind the drivers' protocol, which ../driver.go describes. */
public class Driver {
    static final Duration LIMIT = Duration.ofSeconds(60);
    static String bootstrap;
    static BufferedReader in;

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8), 1 << 16);
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line; (line = in.readLine()) != null; ) {
            String[] a = line.split("\t", -1);
            String answer;
            try {
                answer = switch (a[0]) {
                    case "version" -> "\"version\":" + quote("kafka-clients " + AppInfoParser.getVersion());
                    case "produce" -> produce(a[1], a[2], Integer.parseInt(a[3]));
                    case "consume" -> consume(a[1], Integer.parseInt(a[2]));
                    case "group" -> group(a[1], a[2], Integer.parseInt(a[3]));
                    case "seek" -> seek(a[1], Long.parseLong(a[2]), Integer.parseInt(a[3]));
                    default -> throw new IllegalArgumentException("unknown command " + a[0]);
                };
            } catch (Throwable t) {
                StringWriter trace = new StringWriter();
                t.printStackTrace(new PrintWriter(trace));
                answer = "\"error\":" + quote(trace.toString());
            }
            out.println("{" + answer + "}");
        }
    }

    static Map<String, Object> config(Object... pairs) {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", bootstrap);
        c.put("client.id", "firn-test-java");
        c.put("key.serializer", ByteArraySerializer.class);
        c.put("value.serializer", ByteArraySerializer.class);
        c.put("key.deserializer", ByteArrayDeserializer.class);
        c.put("value.deserializer", ByteArrayDeserializer.class);
        c.put("auto.offset.reset", "earliest");
        c.put("enable.auto.commit", false);
        for (int i = 0; i < pairs.length; i += 2) c.put((String) pairs[i], pairs[i + 1]);
        return c;
    }

    static String produce(String topic, String codec, int n) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < n; i++) {
            String[] f = in.readLine().split("\t", -1);
            List<Header> headers = new ArrayList<>();
            if (!f[4].isEmpty()) {
                for (String h : f[4].split(",")) {
                    String[] kv = h.split(":", 2);
                    headers.add(new RecordHeader(kv[0], decode(kv[1])));
                }
            }
            records.add(new ProducerRecord<>(topic, Integer.parseInt(f[0]), Long.parseLong(f[1]), decode(f[2]), decode(f[3]), headers));
        }
        StringBuilder acks = new StringBuilder("\"acks\":[");
        try (Producer<byte[], byte[]> p = new KafkaProducer<>(config("compression.type", codec, "acks", "all", "linger.ms", 5))) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (ProducerRecord<byte[], byte[]> r : records) sent.add(p.send(r));
            for (int i = 0; i < n; i++) {
                RecordMetadata m = sent.get(i).get();
                acks.append(i > 0 ? "," : "").append("[").append(m.partition()).append(",").append(m.offset()).append("]");
            }
        }
        return acks.append("]").toString();
    }

    static String consume(String topic, int n) {
        try (Consumer<byte[], byte[]> c = new KafkaConsumer<>(config())) {
            Collection<TopicPartition> all = partitions(c, topic);
            c.assign(all);
            c.seekToBeginning(all);
            return records(read(c, n));
        }
    }

    static String group(String topic, String group, int n) {
        try (Consumer<byte[], byte[]> c = new KafkaConsumer<>(config("group.id", group, "session.timeout.ms", 10000))) {
            c.subscribe(List.of(topic));
            List<ConsumerRecord<byte[], byte[]>> got = read(c, n);
            Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
            for (ConsumerRecord<byte[], byte[]> r : got) {
                next.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1));
            }
            c.commitSync(next);
            return records(got);
        }
    }

    static String seek(String topic, long timestamp, int n) {
        try (Consumer<byte[], byte[]> c = new KafkaConsumer<>(config())) {
            Collection<TopicPartition> all = partitions(c, topic);
            Map<TopicPartition, Long> ask = new HashMap<>();
            for (TopicPartition tp : all) ask.put(tp, timestamp);
            c.assign(all);
            StringBuilder offsets = new StringBuilder("\"offsets\":{");
            for (Map.Entry<TopicPartition, OffsetAndTimestamp> e : c.offsetsForTimes(ask, LIMIT).entrySet()) {
                if (e.getValue() == null) {
                    c.seekToEnd(List.of(e.getKey()));
                    continue;
                }
                c.seek(e.getKey(), e.getValue().offset());
                offsets.append(offsets.charAt(offsets.length() - 1) == '{' ? "" : ",")
                    .append("\"").append(e.getKey().partition()).append("\":").append(e.getValue().offset());
            }
            return offsets + "}," + records(read(c, n));
        }
    }

    static Collection<TopicPartition> partitions(Consumer<?, ?> c, String topic) {
        List<TopicPartition> all = new ArrayList<>();
        for (PartitionInfo p : c.partitionsFor(topic, LIMIT)) all.add(new TopicPartition(topic, p.partition()));
        return all;
    }

    /** Reads exactly n records; what a poll brings beyond them is dropped. */
    static List<ConsumerRecord<byte[], byte[]>> read(Consumer<byte[], byte[]> c, int n) {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        long end = System.nanoTime() + LIMIT.toNanos();
        while (got.size() < n) {
            if (System.nanoTime() > end) throw new IllegalStateException("only " + got.size() + " of " + n + " records came in time");
            for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(500))) {
                if (got.size() < n) got.add(r);
            }
        }
        return got;
    }

    static String records(List<ConsumerRecord<byte[], byte[]>> got) {
        StringBuilder s = new StringBuilder("\"records\":[");
        for (ConsumerRecord<byte[], byte[]> r : got) {
            if (s.charAt(s.length() - 1) == '}') s.append(",");
            s.append("{\"partition\":").append(r.partition()).append(",\"offset\":").append(r.offset())
                .append(",\"timestamp\":").append(r.timestamp()).append(",\"key\":").append(encode(r.key()))
                .append(",\"value\":").append(encode(r.value())).append(",\"headers\":[");
            boolean first = true;
            for (Header h : r.headers()) {
                s.append(first ? "" : ",").append("{\"key\":").append(quote(h.key())).append(",\"value\":").append(encode(h.value())).append("}");
                first = false;
            }
            s.append("]}");
        }
        return s.append("]").toString();
    }

    static byte[] decode(String s) {
        return s.equals("-") ? null : Base64.getDecoder().decode(s);
    }

    static String encode(byte[] b) {
        return b == null ? "null" : "\"" + Base64.getEncoder().encodeToString(b) + "\"";
    }

    static String quote(String s) {
        StringBuilder q = new StringBuilder("\"");
        for (char c : s.toCharArray()) {
            if (c == '"' || c == '\\') q.append('\\').append(c);
            else if (c < 0x20) q.append(String.format("\\u%04x", (int) c));
            else q.append(c);
        }
        return q.append('"').toString();
    }
}
