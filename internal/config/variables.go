package config

import (
	"slices"
	"strings"
)

// Variable describes one setting, for documentation and listings.
type Variable struct {
	Name    string // environment variable
	GitKey  string // git config key
	Default string // as a user would write it; empty for none
	Doc     string // one line, without a period
	Hidden  bool   // the value is never printed
}

// Variables returns every setting in documented order.
func Variables() []Variable {
	all := slices.Clone(variables)
	for i := range all {
		all[i].GitKey = gitKey(all[i].Name)
	}
	return all
}

// Unknown returns the names in environ (as os.Environ gives it) that look like
// ours and that nobody reads, sorted: those that start with GITOPS_LOCK_,
// GITOPS_REDIS_ or GITOPS_PUSH_. They are most likely misspelt.
func Unknown(environ []string) []string {
	var unknown []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		ours := strings.HasPrefix(name, "GITOPS_LOCK_") ||
			strings.HasPrefix(name, "GITOPS_REDIS_") ||
			strings.HasPrefix(name, "GITOPS_PUSH_")
		known := slices.ContainsFunc(variables, func(v Variable) bool { return v.Name == name })
		if ours && !known {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return slices.Compact(unknown)
}

// gitKey returns the git config key of a variable: "gitops." and the name in
// lower case, without its leading GITOPS_ and without underscores.
func gitKey(name string) string {
	name = strings.TrimPrefix(name, "GITOPS_")
	return "gitops." + strings.ToLower(strings.ReplaceAll(name, "_", ""))
}

// variables is the one list of settings. GitKey is filled in by Variables, so
// that this stays plain data and costs nothing at the start of a program that
// reads no settings.
var variables = []Variable{
	{Name: "REDIS_HOST", Doc: "host name or IP address of the Redis server"},
	{Name: "REDIS_PORT", Default: "6379", Doc: "port of the Redis server"},
	{Name: "REDIS_USERNAME", Doc: "user to log in as; without it, the default user"},
	{Name: "REDIS_PASSWORD", Hidden: true, Doc: "password to log in with"},
	{Name: "REDIS_PASSWORD_FILE", Doc: "file whose first line is the password"},
	{Name: "REDIS_DB", Default: "0", Doc: "number of the database"},
	{Name: "REDIS_TLS", Default: "false", Doc: "whether to connect with TLS"},
	{Name: "REDIS_TLS_CA_CERT_B64", Hidden: true, Doc: "certificates to trust instead of the system's: base64 of PEM"},
	{Name: "REDIS_TLS_CA_CERT", Doc: "certificates to trust instead of the system's: a PEM file"},
	{Name: "REDIS_TLS_CERT", Doc: "PEM file with the client's certificate, for mutual TLS"},
	{Name: "REDIS_TLS_KEY", Doc: "PEM file with the key of the client's certificate"},
	{Name: "REDIS_TLS_SERVER_NAME", Doc: "name that the server's certificate must have; without it, the host"},
	{Name: "REDIS_TLS_INSECURE", Default: "false", Doc: "whether to accept any certificate; for tests only"},
	{Name: "REDIS_URL", Hidden: true, Doc: "URL of the server, instead of host, port, user, password and database: redis://, rediss:// or unix://"},
	{Name: "REDIS_SENTINEL_MASTER", Doc: "name of the master, as the sentinels know it"},
	{Name: "REDIS_SENTINEL_ADDRS", Doc: "sentinels, host:port separated by commas; the port is 26379 if left out"},
	{Name: "REDIS_SENTINEL_USERNAME", Doc: "user to log in to the sentinels as"},
	{Name: "REDIS_SENTINEL_PASSWORD", Hidden: true, Doc: "password to log in to the sentinels with"},
	{Name: "REDIS_CLUSTER_ADDRS", Doc: "cluster nodes, host:port separated by commas; the port is 6379 if left out"},
	{Name: "GITOPS_USE_REDIS_LOCKING", Default: "true", Doc: "true or unset; there is no other kind of locking"},
	{Name: "GITOPS_REDIS_PREFIX", Default: "gitops", Doc: "first part of the names of keys in Redis"},
	{Name: "GITOPS_EVENTS_MAX", Default: "1000", Doc: "how many events Redis keeps for each lock; 0 keeps none"},
	{Name: "GITOPS_REDIS_MIN_REPLICAS", Default: "0", Doc: "how many replicas must confirm a lock before it counts"},
	{Name: "GITOPS_LOCK_TTL", Default: "300", Doc: "how long a lock lives when nobody renews it: seconds, or a duration such as 5m"},
	{Name: "GITOPS_LOCK_TIMEOUT", Doc: "longest wait for a lock; 0 does not wait at all; without it, GITOPS_LOCK_RETRY_MAX times GITOPS_LOCK_RETRY_DELAY"},
	{Name: "GITOPS_LOCK_RETRY_MAX", Default: "100", Doc: "this times GITOPS_LOCK_RETRY_DELAY is the longest wait for a lock"},
	{Name: "GITOPS_LOCK_RETRY_DELAY", Default: "20", Doc: "this times GITOPS_LOCK_RETRY_MAX is the longest wait for a lock"},
	{Name: "GITOPS_LOCK_MAX_HOLD", Default: "1h", Doc: "longest time that a lock is held, renewed or not"},
	{Name: "GITOPS_LOCK_NAME", Doc: "narrows the lock to a part of the branch, so that unrelated edits run side by side"},
	{Name: "GITOPS_LOCK_KEY", Doc: "Redis key of the lock, verbatim, to share it with other scripts"},
	{Name: "GITOPS_LOCK_REPO", Doc: "name of the repository in its locks, if it has several URLs"},
	{Name: "GITOPS_LOCK_SESSION", Doc: "what the lock belongs to: a process id, or workspace for the clone alone; without it, the script that runs git"},
	{Name: "GITOPS_LOCK_POLICY", Default: "queue", Doc: "how clone, lock and run queue: queue, skip (exit with 77 instead of waiting) or newest (only the newest command of a group waits, the others exit with 77)"},
	{Name: "GITOPS_LOCK_GROUP", Doc: "with GITOPS_LOCK_POLICY=newest, the group of which only the newest command waits; without it, all commands for the same lock"},
	{Name: "GITOPS_LOCK_HEAD_START", Default: "0", Doc: "clone, lock and run queue as if they had arrived this much earlier: seconds, or a duration such as 10m"},
	{Name: "GITOPS_LOCK_UNTIL", Default: "push", Doc: "what ends a lock: push, the push that lands; or session, the end of the script, for several pushes in one script"},
	{Name: "GITOPS_LOCK_SHARE", Default: "on", Doc: "whether a command below the processes that hold a lock shares it, or takes it over when they have ended"},
	{Name: "GITOPS_ON_LOST", Default: "warn", Doc: "what happens to the script when its lock is lost: warn, or term to send it TERM"},
	{Name: "GITOPS_CLONE_LOCK", Default: "on", Doc: "whether clone takes the lock"},
	{Name: "GITOPS_CLONE_AHEAD", Default: "on", Doc: "whether a clone starts while it waits for its lock, and is then brought up to date"},
	{Name: "GITOPS_PURPOSE", Doc: "free text that waiters see"},
	{Name: "GITOPS_LOG", Default: "info", Doc: "how much to print on stderr: error, info or debug"},
	{Name: "GITOPS_LOG_FORMAT", Default: "text", Doc: "format of the lines on stderr: text, or json for one object a line"},
	{Name: "GITOPS_PUSH_RETRIES", Default: "3", Doc: "how often to retry a push that failed for a temporary reason"},
	{Name: "GITOPS_PUSH_REBASE", Default: "false", Doc: "whether to rebase and push again when somebody moved the branch without the lock"},
	{Name: "GITOPS_PUSH_BATCH", Default: "false", Doc: "whether pushes under a GITOPS_LOCK_NAME that wait for the same branch go out together; needs GITOPS_PUSH_REBASE"},
	{Name: "GITOPS_PUSH_BATCH_SECRET", Hidden: true, Doc: "secret that signs what is pushed together, the same for all pipelines; without it, nothing is pushed together"},
	{Name: "GITOPS_PUSH_BATCH_MAX", Default: "50", Doc: "how many other pushes one push takes with it at most; 1 or more"},
	{Name: "GITOPS_WEBHOOK_URL", Hidden: true, Doc: "https or http URL to which events are posted as JSON"},
	{Name: "GITOPS_WEBHOOK_SECRET", Hidden: true, Doc: "key of the X-Gitops-Signature header, an HMAC-SHA256 of the body"},
	{Name: "GITOPS_WEBHOOK_EVENTS", Doc: "which events are posted: acquired, released, lost, pushed, gone, separated by commas; without it, all"},
}
