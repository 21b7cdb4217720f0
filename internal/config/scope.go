package config

import "slices"

// IncludeKey is the git config key of GITOPS_INCLUDE, which may have several values.
const IncludeKey = "gitops.include"

// repositoryKeys are the settings that a repository's own configuration may make, because they
// concern its own locks. All others say where Redis is and how far it is trusted, what is sent
// where, and whether anything is locked at all: a repository may be somebody else's. How a command
// queues is not among them: it acts on the pipelines of others that wait, whose lock a repository
// could name as its own, and has a script go on without having done its work.
var repositoryKeys = []string{
	"GITOPS_CLONE_AHEAD",
	"GITOPS_LOCK_KEY",
	"GITOPS_LOCK_MAX_HOLD",
	"GITOPS_LOCK_NAME",
	"GITOPS_LOCK_REPO",
	"GITOPS_LOCK_RETRY_DELAY",
	"GITOPS_LOCK_RETRY_MAX",
	"GITOPS_LOCK_SESSION",
	"GITOPS_LOCK_SHARE",
	"GITOPS_LOCK_TIMEOUT",
	"GITOPS_LOCK_TTL",
	"GITOPS_LOCK_UNTIL",
	"GITOPS_LOG",
	"GITOPS_LOG_FORMAT",
	"GITOPS_ON_LOST",
	"GITOPS_PURPOSE",
	"GITOPS_PUSH_REBASE",
	"GITOPS_PUSH_RETRIES",
}

// RepositoryMaySet reports whether a setting, by its environment variable, may come from a
// repository's own configuration.
func RepositoryMaySet(name string) bool { return slices.Contains(repositoryKeys, name) }

// FromGit is the lookup in git config that Load takes: user is what the user and the machine
// set, all has what the repository says as well.
func FromGit(user, all func(key string) (string, bool)) func(key string) (string, bool) {
	return func(key string) (string, bool) {
		for _, name := range repositoryKeys {
			if gitKey(name) == key {
				return all(key)
			}
		}
		return user(key)
	}
}
