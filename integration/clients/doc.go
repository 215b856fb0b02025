// Package clients runs unmodified Kafka clients, at pinned versions, against a
// firn process: franz-go, kcat (librdkafka), confluent-kafka-python, kafkajs and
// the Java kafka-clients.
//
// Every client goes through the same cases and is judged by the data alone: each
// codec it has with keys, null and empty keys and values, headers and a record
// of 900 KiB; a group that joins, commits, and resumes behind a restart of the
// server; a seek by timestamp into a part of the log that has left the local
// disk. What a client wrote is read back by itself and by franz-go, and compared
// record by record with what it was told when it wrote.
//
// setup.sh gets the clients; a test that misses them is skipped, except in CI
// (CI=true), where it gets them itself or fails. FIRN_TEST_BOOTSTRAP points the
// tests at a running server instead, which is how they were tried on Apache
// Kafka; the restart is left out there, and with FIRN_TEST_COLD=0, for a server
// without a remote tier, the wait for the cold part.
//
// Read client.go for what a client can do here, then driver.go for the
// protocol of the programs in java, python and node, kcat.go and franz.go for
// the other two, workload.go for the records, and clients_test.go for the cases.
package clients
