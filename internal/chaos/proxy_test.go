//go:build unix

package chaos

import (
	"net"
	"sync"
	"testing"
	"time"
)

// proxy passes connections on to a server, until it is cut: then it closes them all and every new one at
// once. Several faults may cut it at a time; it works when none of them goes on. It is not
// toxiproxy's, whose Start and Stop race with each other when a connection comes between.
type proxy struct {
	addr, target string
	listener     net.Listener
	all          sync.WaitGroup

	mu    sync.Mutex
	cuts  int
	deaf  int // answers are dropped
	late  time.Duration
	conns map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), target: target, listener: l, conns: map[net.Conn]bool{}}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.all.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
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
	p.mu.Unlock()
	p.all.Go(func() { p.copy(server, client, false) })
	p.copy(client, server, true)
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// copy passes bytes on until either side has ended, and ends the other.
func (p *proxy) copy(to, from net.Conn, answers bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.mu.Lock()
			late, deaf := p.late, p.deaf > 0
			p.mu.Unlock()
			if answers && deaf {
				continue
			}
			if answers {
				time.Sleep(late)
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut closes the connections and refuses new ones; mend undoes it.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts++
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts--
}

// deafen has what is asked carried out and its answers lost, until the end of the cut that must
// follow.
func (p *proxy) deafen(by int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf += by
}

// delay makes every answer come later by so much; a negative one takes that back.
func (p *proxy) delay(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late += by
}
