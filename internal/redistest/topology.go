package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

// MasterName is what the sentinels call the primary that they watch.
const MasterName = "main"

// Topology is several servers that fail over among themselves.
type Topology struct {
	Servers   []*Server // that keep data
	Sentinels []*Server // that watch them; none in a Cluster
}

// Sentinel starts a primary, two replicas, and three sentinels that watch them, for a test. It
// returns when they know each other.
func Sentinel(t testing.TB, sentinelConfig ...string) *Topology {
	t.Helper()
	return topology(t, func(dir string) (*Topology, error) { return RunSentinel(dir, sentinelConfig...) })
}

// Cluster starts a Cluster of three primaries with a replica each for a test. It returns when it
// serves every slot.
func Cluster(t testing.TB) *Topology {
	t.Helper()
	return topology(t, RunCluster)
}

func topology(t testing.TB, run func(string) (*Topology, error)) *Topology {
	t.Helper()
	started := time.Now()
	all, err := run(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Stop)
	t.Logf("%d servers were ready in %s", len(all.Servers)+len(all.Sentinels), time.Since(started).Round(10*time.Millisecond))
	return all
}

// RunSentinel is Sentinel for those who have no testing.TB: the caller stops it.
func RunSentinel(dir string, sentinelConfig ...string) (_ *Topology, err error) {
	all := &Topology{}
	defer func() {
		if err != nil {
			all.Stop()
		}
	}()
	replication := []string{"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}
	for i := range 3 {
		args := replication
		if i > 0 {
			args = append(args[:len(args):len(args)], "--replicaof", all.Servers[0].Host+" "+all.Servers[0].Port)
		}
		if err := all.add(&all.Servers, filepath.Join(dir, fmt.Sprint("redis", i)), args...); err != nil {
			return nil, err
		}
	}
	for i := range 3 {
		home := filepath.Join(dir, fmt.Sprint("sentinel", i))
		file := filepath.Join(home, "sentinel.conf") // that it rewrites
		lines := append([]string{
			"sentinel monitor " + MasterName + " " + all.Servers[0].Host + " " + all.Servers[0].Port + " 2",
			"sentinel down-after-milliseconds " + MasterName + " 2000", // else a server that a busy machine is slow to run counts as dead
			"sentinel failover-timeout " + MasterName + " 3000",
			"sentinel parallel-syncs " + MasterName + " 2",
		}, sentinelConfig...)
		if err := os.MkdirAll(home, 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
		if err := all.add(&all.Sentinels, home, file, "--sentinel"); err != nil {
			return nil, err
		}
	}
	return all, all.watched(sentinelConfig)
}

// watched waits until each sentinel knows both replicas and both other sentinels.
func (all *Topology) watched(sentinelConfig []string) error {
	password := ""
	for _, line := range sentinelConfig {
		password, _ = strings.CutPrefix(line, "requirepass ")
	}
	for _, s := range all.Sentinels {
		c := redis.NewSentinelClient(&redis.Options{Addr: s.Addr(), Protocol: 2, DisableIdentity: true, Password: password})
		err := until("the sentinels know each other", func() bool {
			m := c.Master(context.Background(), MasterName).Val()
			return m["flags"] == "master" && m["num-slaves"] == "2" && m["num-other-sentinels"] == "2"
		})
		_ = c.Close()
		if err != nil {
			return err
		}
	}
	return all.linked()
}

// RunCluster is Cluster for those who have no testing.TB: the caller stops it.
func RunCluster(dir string) (_ *Topology, err error) {
	all := &Topology{}
	defer func() {
		if err != nil {
			all.Stop()
		}
	}()
	const primaries, slots = 3, 16384
	ctx := context.Background()
	buses := make([]string, 2*primaries)
	for i := range buses {
		if buses[i], err = FreePort(); err != nil {
			return nil, err
		}
		err = all.add(&all.Servers, filepath.Join(dir, fmt.Sprint("node", i)), "--cluster-enabled", "yes", "--cluster-port", buses[i],
			"--cluster-node-timeout", "2500", "--cluster-replica-validity-factor", "0",
			"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
		if err != nil {
			return nil, err
		}
	}
	ids := make([]string, len(buses))
	for i, s := range all.Servers {
		err := s.with(func(c *redis.Client) error {
			id, err := c.ClusterMyID(ctx).Result()
			ids[i] = id
			errs := []error{err, c.Do(ctx, "cluster", "set-config-epoch", i+1).Err()}
			if i < primaries {
				errs = append(errs, c.ClusterAddSlotsRange(ctx, i*slots/primaries, (i+1)*slots/primaries-1).Err())
			}
			if i > 0 {
				errs = append(errs, c.Do(ctx, "cluster", "meet", s.Host, all.Servers[0].Port, buses[0]).Err())
			}
			return errors.Join(errs...)
		})
		if err != nil {
			return nil, err
		}
	}
	for i, s := range all.Servers {
		err := s.with(func(c *redis.Client) error {
			err := until("the nodes know each other", func() bool {
				return strings.Contains(c.ClusterInfo(ctx).Val(), fmt.Sprintf("cluster_known_nodes:%d\r", len(ids)))
			})
			if err == nil && i >= primaries {
				err = c.ClusterReplicate(ctx, ids[i-primaries]).Err()
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, all.ready()
}

// ready waits until every node finds the Cluster whole, and every replica has its primary's data.
func (all *Topology) ready() error {
	for _, s := range all.Servers {
		err := s.with(func(c *redis.Client) error {
			return until("the cluster is up", func() bool {
				info := c.ClusterInfo(context.Background()).Val()
				return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384")
			})
		})
		if err != nil {
			return err
		}
	}
	return all.linked()
}

// linked waits until every server is a primary, or a replica that has its primary's data.
func (all *Topology) linked() error {
	for _, s := range all.Servers {
		err := s.with(func(c *redis.Client) error {
			return until("the replicas are in sync", func() bool {
				info := c.Info(context.Background(), "replication").Val()
				return strings.Contains(info, "role:master") || strings.Contains(info, "master_link_status:up")
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Addrs are those for a client's settings: of the sentinels, or of the nodes of a Cluster.
func (all *Topology) Addrs() []string {
	servers := all.Sentinels
	if len(servers) == 0 {
		servers = all.Servers
	}
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}

// Primary is the server that keeps a key, by its own word and that of all sentinels that answer, or
// of most of the Cluster; nil while there is none, or two. A client may ask any of the sentinels,
// and fails when that one still names a server that is dead.
func (all *Topology) Primary(key string) *Server {
	ctx := context.Background()
	votes, answers := map[string]int{}, 0
	var found []*Server
	for _, s := range slices.Concat(all.Servers, all.Sentinels) {
		_ = s.with(func(c *redis.Client) error {
			switch role, err := c.Do(ctx, "role").Slice(); {
			case err != nil:
				return nil
			case role[0] == "sentinel":
				words, _ := c.Do(ctx, "sentinel", "get-master-addr-by-name", MasterName).StringSlice()
				votes[strings.Join(words, ":")]++
				answers++
				return nil
			case role[0] == "master":
				found = append(found, s)
			}
			for _, r := range slot(c, key) {
				votes[r.Nodes[0].Addr]++
			}
			return nil
		})
	}
	found = slices.DeleteFunc(found, func(s *Server) bool { return votes[s.Addr()] == 0 && len(all.Sentinels) == 0 })
	if len(found) != 1 || votes[found[0].Addr()] < max(2, answers) {
		return nil
	}
	return found[0]
}

// slot is the range of slots that a key is in, by the word of one node of a Cluster that is whole.
func slot(c *redis.Client, key string) []redis.ClusterSlot {
	ctx := context.Background()
	n, err := c.ClusterKeySlot(ctx, key).Result()
	if err != nil || !strings.Contains(c.ClusterInfo(ctx).Val(), "cluster_state:ok") {
		return nil
	}
	//nolint:staticcheck // older than CLUSTER SHARDS, and says it shorter
	all := c.ClusterSlots(ctx).Val()
	return slices.DeleteFunc(all, func(r redis.ClusterSlot) bool {
		return len(r.Nodes) == 0 || int64(r.Start) > n || n > int64(r.End)
	})
}

// Follow starts a server again after Kill, as a replica of the primary. A node of a Cluster finds
// that out by itself.
func (all *Topology) Follow(s, primary *Server) error {
	if len(all.Sentinels) > 0 {
		s.args = append(slices.Clone(s.args), "--replicaof", primary.Host+" "+primary.Port)
	}
	if err := s.Resume(); err != nil {
		return err
	}
	return s.with(func(c *redis.Client) error {
		return until("it is a replica in sync", func() bool {
			return strings.Contains(c.Info(context.Background(), "replication").Val(), "master_link_status:up")
		})
	})
}

// Stop ends all servers.
func (all *Topology) Stop() {
	for _, s := range append(all.Sentinels[:len(all.Sentinels):len(all.Sentinels)], all.Servers...) { // first those who watch
		s.Kill()
	}
}

func (all *Topology) add(to *[]*Server, dir string, args ...string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := Run(dir, args...)
	if err == nil {
		*to = append(*to, s)
	}
	return err
}

var silence = sync.OnceFunc(func() { redis.SetLogger(&logging.VoidLogger{}) })

// with is a client for a moment.
func (s *Server) with(f func(*redis.Client) error) error {
	silence()
	c := redis.NewClient(&redis.Options{
		Addr: s.Addr(), Protocol: 2, DisableIdentity: true, MaxRetries: -1, DialerRetries: 1, ReadTimeout: time.Second,
	})
	defer func() { _ = c.Close() }()
	return f(c)
}

func until(what string, reached func() bool) error {
	if !gittest.Reached(reached) {
		return fmt.Errorf("never: %s", what)
	}
	return nil
}

// HandOver asks for a failover while the primary of a key is alive. A Cluster gives one up that
// takes longer than five seconds, as on a busy machine, and is asked again.
func (all *Topology) HandOver(key string) error {
	ctx := context.Background()
	if len(all.Sentinels) > 0 {
		return all.Sentinels[0].with(func(c *redis.Client) error {
			return until("the last failover is over", func() bool { return c.Do(ctx, "sentinel", "failover", MasterName).Err() == nil })
		})
	}
	var old *Server
	var asked time.Time
	return until("a replica takes over", func() (done bool) {
		if old == nil {
			old = all.Primary(key)
		}
		if old != nil {
			_ = old.with(func(c *redis.Client) error {
				role, err := c.Do(ctx, "role").Slice()
				done = err == nil && role[0] == "slave"
				return nil
			})
		}
		if !done && old != nil && time.Since(asked) > 10*time.Second && all.beginFailover(key) {
			asked = time.Now()
		}
		return done
	})
}

// beginFailover asks the replica of a key's primary in a Cluster to take over.
func (all *Topology) beginFailover(key string) (begins bool) {
	ctx := context.Background()
	for _, s := range all.Servers {
		_ = s.with(func(c *redis.Client) error {
			for _, r := range slot(c, key) {
				begins = len(r.Nodes) > 1 && s.Addr() == r.Nodes[1].Addr && c.ClusterFailover(ctx).Err() == nil
			}
			return nil
		})
		if begins {
			break
		}
	}
	return begins
}

// Replicas is how many replicas have the data of a primary.
func (all *Topology) Replicas(primary *Server) (n int) {
	_ = primary.with(func(c *redis.Client) error {
		n = strings.Count(c.Info(context.Background(), "replication").Val(), "state=online")
		return nil
	})
	return n
}
