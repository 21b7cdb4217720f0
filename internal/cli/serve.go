package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/demo"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/serve"
	"github.com/git-gitops/git-gitops/internal/term"
)

func (c *command) serveCommand(out *term.Printer) *ucli.Command {
	return &ucli.Command{
		Name:      "serve",
		Usage:     "serve a page that shows who holds, who waits and what happened",
		UsageText: "git gitops serve [--listen ADDR] [OPTIONS]\ngit gitops serve --demo",
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "listen", Value: "127.0.0.1:8080", Usage: "`ADDR` to listen on"},
			&ucli.StringFlag{Name: "tls-cert", Usage: "PEM `FILE` with the certificate of this server"},
			&ucli.StringFlag{Name: "tls-key", Usage: "PEM `FILE` with the key of that certificate"},
			&ucli.StringFlag{Name: "base-path", Usage: "`PATH` that prefixes all others, for a proxy that also serves other pages"},
			&ucli.StringFlag{Name: "operators", Usage: "`FILE` of users who may break, freeze and thaw locks: a line user:hash for each, with a bcrypt hash"},
			&ucli.StringFlag{Name: "proxy-user-header", Usage: "`NAME` of the header in which a proxy names the user who has logged in; these users may break, freeze and thaw locks"},
			&ucli.StringSliceFlag{Name: "trusted-proxy", Usage: "`CIDR` of a proxy whose header is trusted; may be repeated"},
			&ucli.BoolFlag{Name: "demo", Usage: "show an embedded Redis with pipelines that come and go"},
		},
		Action: func(u *ucli.Context) error {
			switch {
			case u.Args().Present():
				return &usageError{verb: "serve", err: fmt.Errorf("unexpected argument %q", u.Args().First())}
			case u.IsSet("tls-cert") != u.IsSet("tls-key"):
				return &usageError{verb: "serve", err: errors.New("use --tls-cert and --tls-key together")}
			case u.Bool("demo"):
				return serveDemo(u, out)
			}
			return c.with(u, out, func(ctx context.Context, u *ucli.Context, o *opened) error {
				return serveVerb(ctx, u, o.redis, o.flows().Me("serve"), out)
			})
		},
	}
}

// serveDemo shows pipelines that come and go, on a Redis of its own.
func serveDemo(u *ucli.Context, out *term.Printer) error {
	redis, err := demo.Redis()
	if err != nil {
		return err
	}
	defer redis.Stop()
	open := func() *redisstore.Store {
		return redisstore.Open(redisstore.Options{Addrs: []string{net.JoinHostPort(redis.Host, redis.Port)}, Events: 1000})
	}
	if err := redis.Past(u.Context, open(), 2*time.Hour); err != nil {
		return err
	}
	ctx, end := context.WithCancel(u.Context)
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		demo.Pipelines(ctx, func() lock.Store { return open() })
	}()
	defer func() {
		end()
		<-joined
	}()
	return serveVerb(ctx, u, open(), lock.Record{}, out)
}

func serveVerb(ctx context.Context, u *ucli.Context, store *redisstore.Store, by lock.Record, out *term.Printer) error {
	var proxies []netip.Prefix
	for _, text := range u.StringSlice("trusted-proxy") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return &usageError{verb: "serve", err: fmt.Errorf("--trusted-proxy is %s, want a CIDR such as 10.0.0.0/8 or 192.0.2.7/32", text)}
		}
		proxies = append(proxies, p)
	}
	secure := u.IsSet("tls-cert")
	m := newMetrics(store)
	server, err := serve.New(serve.Options{
		Store: store, BasePath: u.String("base-path"), OperatorsFile: u.String("operators"),
		ProxyUserHeader: u.String("proxy-user-header"), TrustedProxies: proxies, Secure: secure, By: by,
		Locks: printJSON,
		Events: func(w io.Writer, events []redisstore.Event) error {
			for _, e := range events {
				if err := printEvent(w, e, true); err != nil {
					return err
				}
			}
			return nil
		},
		Stats: func(w io.Writer, events []redisstore.Event) error {
			enc := json.NewEncoder(w)
			for _, s := range summarize(events) {
				if err := enc.Encode(s); err != nil {
					return fmt.Errorf("print: %w", err)
				}
			}
			return nil
		},
		Metrics: m.write, Warn: out.Warn,
	})
	if err != nil {
		return &usageError{verb: "serve", err: err}
	}
	listener, err := net.Listen("tcp", u.String("listen"))
	if err != nil {
		return &adminError{what: err.Error(), do: "git gitops serve --listen 127.0.0.1:8080"}
	}
	scheme := "http"
	if secure {
		cert, err := tls.LoadX509KeyPair(u.String("tls-cert"), u.String("tls-key"))
		if err != nil {
			_ = listener.Close()
			return &usageError{verb: "serve", err: err}
		}
		scheme = "https"
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	}
	if addr, ok := listener.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() && !secure && len(proxies) == 0 {
		out.Warn("serving without TLS beyond this machine: others on the network can read the page and its logins")
	}
	m.skipPast(ctx)
	out.Say("the page is on %s://%s%s/", scheme, listener.Addr(), u.String("base-path"))
	return server.Serve(ctx, listener)
}
