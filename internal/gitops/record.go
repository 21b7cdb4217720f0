package gitops

import (
	"fmt"
	"os"
	"os/user"

	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/term"
)

// most is the longest text of a record, in runes.
const most = 256

// record is what others learn about us while we hold or wait.
func (f *Flows) record(k lock.Key, command string) lock.Record {
	r := lock.Record{
		Repo: k.Repo, Branch: k.Branch, Name: k.Name,
		PID: os.Getpid(), Command: command, Purpose: f.Config.Lock.Purpose, Session: f.Session,
	}
	r.Host, _ = os.Hostname()
	r.User = userName()
	r.RunURL, r.Job = ciRun(os.Getenv)
	for _, text := range []*string{&r.Host, &r.User, &r.Purpose, &r.RunURL, &r.Job} {
		*text = bounded(*text)
	}
	return r
}

// userName is who runs us. A container may run as a user that has no name.
func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// Me is the record of an operator's command.
func (f *Flows) Me(command string) lock.Record { return f.record(lock.Key{}, command) }

// bounded is a text as others may see it: on one line of at most most runes, and without
// credentials in URLs.
func bounded(s string) string { return term.CleanTo(giturl.Redact(s), most) }

// ciSystems are the variables that CI systems set, from their documentation: one that shows the
// system, the URL of the run, its job. A text with $ is put together from variables.
var ciSystems = []struct{ mark, url, job string }{
	{"GITHUB_ACTIONS", "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID", "$GITHUB_WORKFLOW / $GITHUB_JOB"},
	{"GITLAB_CI", "$CI_JOB_URL", "$CI_JOB_NAME"},
	{"TEKTON_PIPELINE_RUN", "$PIPELINE_RUN_URL", "$TEKTON_PIPELINE_RUN"},
	{"PIPELINE_RUN_URL", "$PIPELINE_RUN_URL", "$PIPELINE_NAME"}, // IBM Toolchain
	{"TF_BUILD", "$SYSTEM_COLLECTIONURI$SYSTEM_TEAMPROJECT/_build/results?buildId=$BUILD_BUILDID", "$BUILD_DEFINITIONNAME"},
	{"BUILDKITE", "$BUILDKITE_BUILD_URL", "$BUILDKITE_LABEL"},
	{"CIRCLECI", "$CIRCLE_BUILD_URL", "$CIRCLE_JOB"},
	{"BITBUCKET_BUILD_NUMBER", "$BITBUCKET_GIT_HTTP_ORIGIN/pipelines/results/$BITBUCKET_BUILD_NUMBER", "$BITBUCKET_REPO_FULL_NAME"},
	{"DRONE", "$DRONE_BUILD_LINK", "$DRONE_STEP_NAME"},
	{"CI_PIPELINE_URL", "$CI_PIPELINE_URL", "$CI_STEP_NAME"}, // Woodpecker
	{"TEAMCITY_VERSION", "$BUILD_URL", "$TEAMCITY_BUILDCONF_NAME"},
	{"JENKINS_URL", "$BUILD_URL", "$JOB_NAME"}, // last: some of the others run on it
}

// ciRun is the CI run that the environment names: its URL and the job's name.
func ciRun(env func(string) string) (url, job string) {
	for _, ci := range ciSystems {
		if env(ci.mark) != "" {
			return os.Expand(ci.url, env), os.Expand(ci.job, env)
		}
	}
	return "", ""
}
