package broker

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Listener is an address that clients come in by.
type Listener struct {
	Name    string
	Address string // HOST:PORT to listen at
	// AdvertiseHost and AdvertisePort are what Metadata answers. Without them a
	// client is told the address that it came to.
	AdvertiseHost string
	AdvertisePort int32
	Protocol      string
}

// ParseListener reads NAME=HOST:PORT[;advertise=HOST:PORT][;protocol=PLAINTEXT].
func ParseListener(s string) (Listener, error) {
	const form = "want NAME=HOST:PORT[;advertise=HOST:PORT][;protocol=PLAINTEXT]"
	parts := strings.Split(s, ";")
	name, addr, ok := strings.Cut(parts[0], "=")
	if !ok || name == "" {
		return Listener{}, fmt.Errorf("listener %q: %s", s, form)
	}
	if _, _, err := splitHostPort(addr); err != nil {
		return Listener{}, fmt.Errorf("listener %q: %w; %s", s, err, form)
	}
	l := Listener{Name: name, Address: addr, Protocol: "PLAINTEXT"}
	for _, p := range parts[1:] {
		k, v, _ := strings.Cut(p, "=")
		switch k {
		case "advertise":
			host, port, err := splitHostPort(v)
			if err != nil || host == "" || port == 0 {
				return Listener{}, fmt.Errorf("listener %q: advertise needs HOST:PORT", s)
			}
			l.AdvertiseHost, l.AdvertisePort = host, port
		case "protocol":
			if v != "PLAINTEXT" {
				return Listener{}, fmt.Errorf("listener %q: protocol %s is not served; only PLAINTEXT is", s, v)
			}
		default:
			return Listener{}, fmt.Errorf("listener %q: unknown option %q; %s", s, k, form)
		}
	}
	return l, nil
}

func splitHostPort(s string) (host string, port int32, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q", p)
	}
	return host, int32(n), nil
}

// Bound is a listener that listens.
type Bound struct {
	Listener
	ln net.Listener
}

// Listen binds l by listen, which is net.Listen outside of tests.
func Listen(l Listener, listen func(network, address string) (net.Listener, error)) (*Bound, error) {
	ln, err := listen("tcp", l.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.Name, err)
	}
	return &Bound{Listener: l, ln: ln}, nil
}

// Addr is where it listens.
func (b *Bound) Addr() net.Addr { return b.ln.Addr() }

// Close stops listening; a Server that serves it does so too.
func (b *Bound) Close() error { return b.ln.Close() }
