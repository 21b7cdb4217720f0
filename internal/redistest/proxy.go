package redistest

import (
	"bytes"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Proxy passes connections on to a server, until it is cut: then it closes them all and every new
// one at once. Several faults may cut it at a time; it works when none of them goes on. It is not
// toxiproxy's, whose Start and Stop race with each other when a connection comes between.
type Proxy struct {
	Addr, target string
	listener     net.Listener
	all          sync.WaitGroup

	mu     sync.Mutex
	cuts   int
	deaf   int // answers are dropped
	late   time.Duration
	conns  map[net.Conn]bool
	n      int // connections there have been
	silent int // how many of the first connections pass nothing any more
	deny   []byte
	record bool
	sent   map[int]*bytes.Buffer // by the client, for each connection
}

// NewProxy starts a proxy for a test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, listener: l, conns: map[net.Conn]bool{}, sent: map[int]*bytes.Buffer{}}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		p.all.Wait()
	})
	return p
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	if p.cuts > 0 {
		_, _ = client.Close(), server.Close()
	}
	p.conns[client], p.conns[server] = true, true
	n := p.n
	p.n++
	if p.record {
		p.sent[n] = &bytes.Buffer{}
	}
	p.mu.Unlock()
	p.all.Go(func() { p.copy(server, client, n, false) })
	p.copy(client, server, n, true)
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// copy passes bytes of connection n on until either side has ended, and ends the other.
func (p *Proxy) copy(to, from net.Conn, n int, answers bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 64<<10)
	for {
		got, err := from.Read(buf)
		if got > 0 {
			p.mu.Lock()
			late, deaf, silent := p.late, p.deaf > 0, n < p.silent
			denied := len(p.deny) > 0 && !answers && bytes.Contains(buf[:got], p.deny)
			if sent := p.sent[n]; sent != nil && !answers {
				sent.Write(buf[:got])
			}
			p.mu.Unlock()
			if denied {
				return
			}
			if silent || answers && deaf {
				continue
			}
			if answers {
				time.Sleep(late)
			}
			if _, err := to.Write(buf[:got]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut closes the connections and refuses new ones; Mend undoes it.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts++
	for c := range p.conns {
		_ = c.Close()
	}
}

// Mend ends a Cut.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts--
}

// Deafen has what is asked carried out and its answers lost, until the end of the cut that must
// follow.
func (p *Proxy) Deafen(by int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf += by
}

// Delay makes every answer come later by so much; a negative one takes that back.
func (p *Proxy) Delay(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late += by
}

// Silence lets nothing pass any more over the connections that there are, in neither direction and
// without ending them, as a network does that has forgotten them. New ones work.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = p.n
}

// Deny ends each connection over which a client asks for this command; "" ends that.
func (p *Proxy) Deny(command string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deny = nil
	if command != "" {
		p.deny = []byte("\r\n" + command + "\r\n")
	}
}

// Connections is how many there have been.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// Record notes what clients send over the connections that come.
func (p *Proxy) Record() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record = true
}

// Sent is what they have sent, for each connection since Record.
func (p *Proxy) Sent() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range slices.Sorted(maps.Keys(p.sent)) {
		all = append(all, p.sent[n].String())
	}
	return all
}
