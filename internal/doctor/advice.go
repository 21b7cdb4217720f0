package doctor

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// StateAdvice is what to do about what a clone remembers and cannot be used.
func StateAdvice(e *workspace.StateError) []string {
	switch {
	case e.Problem == workspace.Missing:
		return []string{"set HOME or XDG_STATE_HOME; or work in a clone"}
	case e.Problem == workspace.Foreign:
		return []string{"upgrade this git-gitops (git gitops upgrade); or, if nobody needs its lock, remove that file"}
	case e.Problem == workspace.Damaged:
		return []string{"remove that file; if it had a lock, that ends within its TTL, or at once: git gitops locks, then git gitops unlock --force ID"}
	case errors.Is(e, fs.ErrPermission):
		return []string{"run as the user who made the clone; or let several users work in it: " +
			"git config core.sharedRepository group, then chmod -R g+rwX on its .git"}
	case errors.Is(e, syscall.EROFS):
		return []string{"work in a clone on a disk that can be written"}
	case errors.Is(e, syscall.ENOSPC), errors.Is(e, syscall.EDQUOT):
		return []string{"free space on that disk"}
	default:
		return []string{"see what is there: ls -ld " + e.Path}
	}
}

// TooOldAdvice is what to do about a git that is too old.
const TooOldAdvice = "install a newer git, or name one in GITOPS_GIT"

// StoreAdvice is what to do about each failure of Redis.
var StoreAdvice = map[lock.Failure][]string{
	lock.Unreachable: {"check REDIS_HOST, REDIS_PORT (or REDIS_URL; REDIS_SENTINEL_ADDRS and REDIS_SENTINEL_MASTER; REDIS_CLUSTER_ADDRS) and the network; a server that wants TLS needs REDIS_TLS=true"},
	lock.TLSFailed:   {"check REDIS_TLS, REDIS_TLS_CA_CERT_B64 (or REDIS_TLS_CA_CERT), REDIS_TLS_SERVER_NAME, and REDIS_TLS_CERT with REDIS_TLS_KEY if the server asks for one"},
	lock.TLSAbsent:   {"set REDIS_PORT to the server's TLS port; if it has none, unset REDIS_TLS (in REDIS_URL: redis:// for rediss://)"},
	lock.TLSTooOld:   {"enable TLS 1.2 or newer on the server (tls-protocols in redis.conf): older versions are not safe"},
	lock.Untrusted:   {"name the authority that signed the server's certificate: REDIS_TLS_CA_CERT (a PEM file) or REDIS_TLS_CA_CERT_B64 (base64 of it)"},
	lock.WrongName:   {"set REDIS_TLS_SERVER_NAME to a name that the certificate has, or REDIS_HOST, if the server is reached by that name"},
	lock.Expired:     {"renew the server's certificate, or set the clock of this machine"},
	lock.WantsCert:   {"set REDIS_TLS_CERT and REDIS_TLS_KEY to the files of a client certificate that the server's authority has signed"},
	lock.AuthFailed:  {"check REDIS_USERNAME and REDIS_PASSWORD (or REDIS_PASSWORD_FILE); those of sentinels are REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"},
	lock.Forbidden:   {"allow this Redis user the command or key that the reason names (ACL SETUSER)"},
	lock.ReadOnly:    {"point REDIS_HOST at the primary; it may be a failover that is still under way, then try again"},
	lock.Persistence: {"the server cannot save to disk and refuses writes: free its disk, or see its log"},
	lock.Loading:     {"the server is not ready yet: try again when it is"},
	lock.Moving:      {"a slot of the Cluster is moving to another node, or no node has it: try again; if it stays so: redis-cli --cluster check"},
	lock.OutOfMemory: {"the server's maxmemory is reached: raise it, or free keys"},
	lock.Unconfirmed: {"see why the replicas are behind (INFO replication), or lower GITOPS_REDIS_MIN_REPLICAS"},
	lock.Rotated:     {"the password, or a certificate, was changed: put the new one into its file (REDIS_PASSWORD_FILE, REDIS_TLS_CA_CERT, REDIS_TLS_CERT and REDIS_TLS_KEY); it is read again at each login"},
	lock.NotALock:    {"GITOPS_LOCK_KEY names a key that holds something else: choose another"},
	lock.NotOurs:     {"a key under GITOPS_REDIS_PREFIX holds something else: choose another prefix, or delete the key"},
	lock.Full:        {"wait for other clients to end, or raise maxclients of the server (or the proxy's limit)"},
	lock.Protected:   {"the server has no password and answers only its own machine: give it one (requirepass) and set REDIS_PASSWORD"},
	lock.ClusterNode: {"it is a node of a Cluster: set REDIS_CLUSTER_ADDRS to its nodes, and unset REDIS_HOST, REDIS_PORT and REDIS_URL"},
	lock.NoEndpoint:  {"let each node announce an address (cluster-announce-hostname or cluster-announce-ip, cluster-preferred-endpoint-type), or set REDIS_HOST to a proxy of the Cluster"},
	lock.NoDatabase:  {"set REDIS_DB (or the number at the end of REDIS_URL) to a database that the server has; behind many proxies, and in a Cluster, that is 0 only"},
	lock.Newer:       {"upgrade git-gitops: git gitops upgrade"},
	lock.Refused:     {"see the server's log, and check that the settings match it: one server (REDIS_HOST or REDIS_URL), sentinels (REDIS_SENTINEL_ADDRS) or a cluster (REDIS_CLUSTER_ADDRS)"},
}

// Flatten undoes errors.Join.
func Flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, Flatten(e)...)
	}
	return all
}
