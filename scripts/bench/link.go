package main

import (
	"errors"
	"net"
	"strings"
	"time"
)

// link puts a proxy before the server, over which a round trip takes a time, and a new connection
// some more of them: a TCP handshake, TLS.
func (s *site) link(transport string, roundTrip time.Duration, opening int) error {
	if roundTrip == 0 {
		return nil
	}
	address, rest, ok := strings.Cut(strings.TrimPrefix(s.urls["http"], "http://"), "/")
	if transport != "http" || !ok {
		return errors.New("-delay is for -over http")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.stop = append(s.stop, func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				time.Sleep(time.Duration(opening) * roundTrip)
				server, err := net.Dial("tcp", address)
				if err != nil {
					_ = client.Close()
					return
				}
				go late(server, client, roundTrip/2)
				late(client, server, roundTrip/2)
			}()
		}
	}()
	s.urls["http"] = "http://" + listener.Addr().String() + "/" + rest
	return nil
}

// late copies what comes from one connection to another, each piece after a time.
func late(to, from net.Conn, after time.Duration) {
	type piece struct {
		due  time.Time
		text []byte
	}
	pieces := make(chan piece, 1000)
	go func() {
		defer close(pieces)
		for {
			text := make([]byte, 32<<10)
			n, err := from.Read(text)
			if n > 0 {
				pieces <- piece{time.Now().Add(after), text[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.text); err != nil {
			_ = from.Close()
		}
	}
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
