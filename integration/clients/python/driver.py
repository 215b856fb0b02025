"""confluent-kafka-python behind the drivers' protocol, which ../driver.go describes."""

import base64
import json
import sys
import time
import traceback

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Producer, TopicPartition

LIMIT = 60.0
BOOTSTRAP = sys.argv[1]


def decode(s):
    return None if s == "-" else base64.b64decode(s)


def encode(b):
    return None if b is None else base64.b64encode(b).decode()


def config(**more):
    c = {"bootstrap.servers": BOOTSTRAP, "client.id": "firn-test-python"}
    c.update({k.replace("_", "."): v for k, v in more.items()})
    return c


def consumer(group):
    return Consumer(config(group_id=group, auto_offset_reset="earliest", enable_auto_commit=False, session_timeout_ms=10000))


def version():
    return {"version": "confluent-kafka %s, librdkafka %s" % (confluent_kafka.version(), confluent_kafka.libversion()[0])}


def produce(topic, codec, n):
    acks, errors = [None] * int(n), []

    def on_delivery(i):
        def done(err, msg):
            if err:
                errors.append(str(err))
            else:
                acks[i] = [msg.partition(), msg.offset()]

        return done

    p = Producer(config(compression_type=codec, acks="all", enable_idempotence=True, linger_ms=5))
    for i in range(int(n)):
        partition, timestamp, key, value, headers = sys.stdin.readline().rstrip("\n").split("\t")
        pairs = [h.split(":", 1) for h in headers.split(",")] if headers else []
        p.produce(topic, decode(value), decode(key), int(partition), on_delivery=on_delivery(i),
                  timestamp=int(timestamp), headers=[(k, decode(v)) for k, v in pairs])
        p.poll(0)
    left = p.flush(LIMIT)
    if left or errors:
        raise RuntimeError("%d records undelivered, errors: %s" % (left, errors[:3]))
    return {"acks": acks}


def partitions(c, topic):
    t = c.list_topics(topic, timeout=LIMIT).topics[topic]
    if t.error:
        raise RuntimeError(str(t.error))
    return sorted(t.partitions)


def read(c, n):
    """Reads exactly n records; the consumer hands them out one by one."""
    got, end = [], time.monotonic() + LIMIT
    while len(got) < n:
        if time.monotonic() > end:
            raise RuntimeError("only %d of %d records came in time" % (len(got), n))
        for m in c.consume(min(500, n - len(got)), 0.5):
            if m.error():
                raise RuntimeError(str(m.error()))
            got.append(m)
    return got


def records(got):
    return [{"partition": m.partition(), "offset": m.offset(), "timestamp": m.timestamp()[1],
             "key": encode(m.key()), "value": encode(m.value()),
             "headers": [{"key": k, "value": encode(v)} for k, v in m.headers() or []]} for m in got]


def consume(topic, n):
    c = consumer("unused")
    try:
        c.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions(c, topic)])
        return {"records": records(read(c, int(n)))}
    finally:
        c.close()


def group(topic, group, n):
    c = consumer(group)
    try:
        c.subscribe([topic])
        got = read(c, int(n))
        last = {m.partition(): m.offset() for m in got}
        done = c.commit(offsets=[TopicPartition(topic, p, o + 1) for p, o in last.items()], asynchronous=False)
        for tp in done:
            if tp.error:
                raise RuntimeError(str(tp.error))
        return {"records": records(got)}
    finally:
        c.close()


def seek(topic, timestamp, n):
    c = consumer("unused")
    try:
        found = c.offsets_for_times([TopicPartition(topic, p, int(timestamp)) for p in partitions(c, topic)], timeout=LIMIT)
        c.assign(found)
        return {"offsets": {str(tp.partition): tp.offset for tp in found if tp.offset != OFFSET_END},
                "records": records(read(c, int(n)))}
    finally:
        c.close()


def main():
    for line in iter(sys.stdin.readline, ""):
        name, *args = line.rstrip("\n").split("\t")
        try:
            answer = {"version": version, "produce": produce, "consume": consume, "group": group, "seek": seek}[name](*args)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
