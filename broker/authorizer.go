package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// anonymous is the principal of a connection that has not said who it is, which on
// a PLAINTEXT listener is all of them.
const anonymous = "User:ANONYMOUS"

// Authorizer says what a principal may do. Every request asks it, for each resource
// that it names.
type Authorizer interface {
	Allowed(principal string, op kmsg.ACLOperation, kind kmsg.ACLResourceType, name string) bool
}

// allowAll is the Authorizer of a cluster without one.
type allowAll struct{}

func (allowAll) Allowed(string, kmsg.ACLOperation, kmsg.ACLResourceType, string) bool { return true }

// Allowed asks the Authorizer about this connection's principal.
func (c *Conn) Allowed(op kmsg.ACLOperation, kind kmsg.ACLResourceType, name string) bool {
	return c.s.cfg.Authorizer.Allowed(c.principal, op, kind, name)
}

func (c *Conn) mayTopic(op kmsg.ACLOperation, topic string) bool {
	return c.Allowed(op, kmsg.ACLResourceTypeTopic, topic)
}

// mayCreate says whether a missing topic may be made by the way.
func (c *Conn) mayCreate(topic string) bool {
	return c.mayTopic(kmsg.ACLOperationCreate, topic) || c.Allowed(kmsg.ACLOperationCreate, kmsg.ACLResourceTypeCluster, clusterResource)
}
