package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
)

// redis checks the server, or each master, and tries each step of a lock.
func (d *Checkup) redis(ctx context.Context, store *redisstore.Store) {
	ctx, cancel := context.WithTimeout(ctx, redisBudget)
	defer cancel()
	nodes, err := store.Nodes(ctx)
	if err != nil {
		d.storeFailure("redis", err)
		return
	}
	d.store = store
	user := d.Config.Redis.Username
	for _, n := range nodes {
		d.node(n)
		if n.User != "" {
			user = n.User
		}
	}
	if user == "" {
		user = "default"
	}
	errs := []error{}
	probe, acl := store.Probe, "git gitops doctor --acl "+user
	if d.Fence {
		probe, acl = store.ProbeCheck, acl+" --for server"
	}
	if err := probe(ctx); err != nil {
		errs = Flatten(err)
	}
	for _, err := range errs {
		var failed *lock.StoreError
		if errors.As(err, &failed) && failed.Failure == lock.Forbidden {
			d.Fail("permissions", acl, "%v", err)
			continue
		}
		d.storeFailure("permissions", err)
	}
	switch {
	case len(errs) == 0 && d.Fence:
		d.OK("permissions", "the hook may read declarations")
	case len(errs) == 0:
		d.OK("permissions", "every step of a lock is allowed")
		d.presence(ctx, store, user)
	}
}

// presence tells whether a lock whose processes are gone is freed before its TTL.
func (d *Checkup) presence(ctx context.Context, store *redisstore.Store, user string) {
	err := store.ProbePresence(ctx)
	var failed *lock.StoreError
	switch {
	case err == nil:
		d.OK("presence", "the server counts who is connected, so a lock whose container died is freed in seconds")
	case errors.As(err, &failed) && failed.Failure == lock.Forbidden:
		d.Warn("presence", "git gitops doctor --acl "+user, "a lock whose container died is freed only by its TTL: %v", err)
	default:
		d.Warn("presence", "use a Redis with Pub/Sub; for a Cluster, Redis 7 or newer", "a lock whose container died is freed only by its TTL: %v", err)
	}
}

// storeFailure is a check that failed, with what to do about it.
func (d *Checkup) storeFailure(name string, err error) {
	var failed *lock.StoreError
	do := ""
	if errors.As(err, &failed) {
		do = strings.Join(StoreAdvice[failed.Failure], "; ")
	}
	d.Fail(name, do, "%v", err)
}

func (d *Checkup) node(n redisstore.Node) {
	refused := func(command string) bool { return slices.Contains(n.Refused, command) }
	d.OK("redis", "%s answers", n.Addr)
	d.tls(n.TLS)
	switch {
	case refused("ACL WHOAMI") && d.Config.Redis.Username != "":
		d.OK("user", "%s", d.Config.Redis.Username)
	case refused("ACL WHOAMI"):
		d.OK("user", notAllowed)
	default:
		d.OK("user", "%s", n.User)
	}
	if len(n.Pings) == 0 {
		d.OK("latency", notAllowed)
	} else {
		rank := func(percent int) time.Duration {
			return n.Pings[(len(n.Pings)*percent+99)/100-1].Round(10 * time.Microsecond)
		}
		d.OK("latency", "p50 %s, p99 %s of %d pings", rank(50), rank(99), len(n.Pings))
	}
	if refused("TIME") {
		d.OK("clock", notAllowed)
	} else if apart := n.Ahead.Abs(); apart > clockApart {
		d.Warn("clock", "set one of the two clocks, if ages and logs should agree; locks use only the server's",
			"the server's differs by %s from this machine's", term.Duration(apart))
	} else {
		d.OK("clock", "the server's differs by %s from this machine's", term.Duration(apart))
	}
	if refused("INFO") {
		for _, name := range []string{"version", "role", "replicas", "persistence", "eviction"} {
			d.OK(name, notAllowed)
		}
		return
	}
	d.server(n, refused("CONFIG GET"))
}

func (d *Checkup) tls(state *tls.ConnectionState) {
	switch {
	case state == nil:
		d.OK("tls", "none")
		return
	case d.Config.Redis.Insecure:
		d.Warn("tls", "unset REDIS_TLS_INSECURE, and name the authority in REDIS_TLS_CA_CERT", "the certificate of Redis is not checked")
	}
	first := state.PeerCertificates[0]
	for _, c := range state.PeerCertificates {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	left := time.Until(first.NotAfter)
	text := fmt.Sprintf("%s, certificate of %s expires on %s (in %d days)",
		tls.VersionName(state.Version), first.Subject, first.NotAfter.UTC().Format(time.DateOnly), int(left.Hours()/24))
	if left < certificateSoon {
		d.Warn("tls", "renew the server's certificate", "%s", text)
		return
	}
	d.OK("tls", "%s", text)
}

// server judges what INFO says.
func (d *Checkup) server(n redisstore.Node, saveHidden bool) {
	name, version := "Redis", n.Info["redis_version"]
	if v := n.Info["valkey_version"]; v != "" {
		name, version = "Valkey", v
	}
	var major, minor int
	if count, _ := fmt.Sscanf(n.Info["redis_version"], "%d.%d", &major, &minor); count == 2 && (major < 6 || major == 6 && minor < 2) {
		d.Warn("version", "update the server to 6.2 or newer", "%s %s", name, version)
	} else {
		d.OK("version", "%s %s", name, version)
	}

	if n.Info["cluster_enabled"] == "1" && d.Config.Redis.Mode != config.Cluster {
		d.Fail("cluster", StoreAdvice[lock.ClusterNode][0], "one node of a Cluster, which refuses the locks of other nodes")
	}
	if role := n.Info["role"]; role == "slave" {
		d.Fail("role", StoreAdvice[lock.ReadOnly][0], "a replica of %s:%s, which takes no locks", n.Info["master_host"], n.Info["master_port"])
	} else {
		d.OK("role", "%s", role)
	}

	replicas, _ := strconv.Atoi(n.Info["connected_slaves"])
	switch want := d.Config.Redis.MinReplicas; {
	case replicas < want:
		d.Fail("replicas", "connect the replicas, or lower GITOPS_REDIS_MIN_REPLICAS", "%d connected, but GITOPS_REDIS_MIN_REPLICAS is %d", replicas, want)
	case replicas > 0 && want == 0:
		d.OK("replicas", "%d connected; no lock waits for them, so a failover may lose one that was just taken (GITOPS_REDIS_MIN_REPLICAS=1 makes that rare)", replicas)
	default:
		d.OK("replicas", "%d connected", replicas)
	}

	const forgets = "after a restart of the server, holders take their locks back, but the order of the waiters may be lost"
	switch {
	case n.Info["aof_enabled"] == "1":
		d.OK("persistence", "append-only file")
	case saveHidden:
		d.OK("persistence", "no append-only file; snapshots: %s", notAllowed)
	case n.Save == "":
		d.Warn("persistence", "turn the append-only file on (appendonly yes)", "none: %s", forgets)
	case n.Info["rdb_last_bgsave_status"] == "err":
		d.Warn("persistence", StoreAdvice[lock.Persistence][0], "snapshots (save %s), of which the last failed", n.Save)
	default:
		d.OK("persistence", "snapshots (save %s)", n.Save)
	}

	limit := "no memory limit is set"
	if bytes := n.Info["maxmemory"]; bytes != "0" && bytes != "" {
		limit = "the memory limit is " + bytes + " bytes"
	}
	switch policy := n.Info["maxmemory_policy"]; {
	case policy == "":
		d.OK("eviction", "the server does not say")
	case strings.HasPrefix(policy, "allkeys-"), strings.HasPrefix(policy, "volatile-"):
		d.Warn("eviction", "set maxmemory-policy to noeviction, or give locks a server of their own",
			"%s: a full server may drop held locks (%s)", policy, limit)
	default:
		d.OK("eviction", "%s (%s)", policy, limit)
	}
}
