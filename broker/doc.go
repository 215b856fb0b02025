// Package broker turns Kafka requests on a socket into calls, and their results
// into Kafka responses.
//
// api.go has the one table of APIs: it decides what ApiVersions advertises, what
// docs/protocol.md says and which function answers. Every API has a file of its
// own, api_<key>_<name>.go, that opens with its versions and what it leaves out.
// errors.go (with errors_metadata.go) is the only place where a Kafka error code
// is chosen.
//
// Read api.go, server.go, listener.go, connection.go, frame.go and memory.go (what
// a client may take), then api_00_produce.go and api_01_fetch.go.
package broker
