package gitops

import (
	"strings"
	"testing"
)

// What each CI system sets, and what those who wait see of it.
func TestCIRun(t *testing.T) {
	for name, tc := range map[string]struct {
		env      map[string]string
		url, job string
	}{
		"none": {},
		"GitHub Actions": {map[string]string{
			"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "7",
			"GITHUB_WORKFLOW": "deploy", "GITHUB_JOB": "prod",
		}, "https://github.com/o/r/actions/runs/7", "deploy / prod"},
		"GitLab CI":   {map[string]string{"GITLAB_CI": "true", "CI_JOB_URL": "https://gitlab.com/o/r/-/jobs/1", "CI_JOB_NAME": "deploy"}, "https://gitlab.com/o/r/-/jobs/1", "deploy"},
		"Jenkins":     {map[string]string{"JENKINS_URL": "https://ci/", "BUILD_URL": "https://ci/job/x/1/", "JOB_NAME": "x"}, "https://ci/job/x/1/", "x"},
		"Toolchain":   {map[string]string{"PIPELINE_RUN_URL": "https://cloud.example/run/1", "PIPELINE_NAME": "cd"}, "https://cloud.example/run/1", "cd"},
		"Azure":       {map[string]string{"TF_BUILD": "True", "SYSTEM_COLLECTIONURI": "https://dev.azure.com/o/", "SYSTEM_TEAMPROJECT": "p", "BUILD_BUILDID": "9", "BUILD_DEFINITIONNAME": "cd"}, "https://dev.azure.com/o/p/_build/results?buildId=9", "cd"},
		"Buildkite":   {map[string]string{"BUILDKITE": "true", "BUILDKITE_BUILD_URL": "https://buildkite.com/o/p/builds/1", "BUILDKITE_LABEL": "ship"}, "https://buildkite.com/o/p/builds/1", "ship"},
		"CircleCI":    {map[string]string{"CIRCLECI": "true", "CIRCLE_BUILD_URL": "https://circleci.com/gh/o/r/1", "CIRCLE_JOB": "ship"}, "https://circleci.com/gh/o/r/1", "ship"},
		"Bitbucket":   {map[string]string{"BITBUCKET_BUILD_NUMBER": "3", "BITBUCKET_GIT_HTTP_ORIGIN": "https://bitbucket.org/o/r", "BITBUCKET_REPO_FULL_NAME": "o/r"}, "https://bitbucket.org/o/r/pipelines/results/3", "o/r"},
		"Drone":       {map[string]string{"DRONE": "true", "DRONE_BUILD_LINK": "https://drone/o/r/1", "DRONE_STEP_NAME": "ship"}, "https://drone/o/r/1", "ship"},
		"Woodpecker":  {map[string]string{"CI_PIPELINE_URL": "https://wp/1", "CI_STEP_NAME": "ship"}, "https://wp/1", "ship"},
		"TeamCity":    {map[string]string{"TEAMCITY_VERSION": "2026.1", "BUILD_URL": "https://tc/1", "TEAMCITY_BUILDCONF_NAME": "ship"}, "https://tc/1", "ship"},
		"Tekton task": {map[string]string{"TEKTON_PIPELINE_RUN": "cd-x7", "PIPELINE_RUN_URL": "https://dash/cd-x7"}, "https://dash/cd-x7", "cd-x7"},
	} {
		url, job := ciRun(func(key string) string { return tc.env[key] })
		if url != tc.url || job != tc.job {
			t.Errorf("%s: got %q, %q; want %q, %q", name, url, job, tc.url, tc.job)
		}
	}
}

// A record is bounded, and has no control characters, no broken text and no credentials.
func TestBounded(t *testing.T) {
	if got := bounded("a\x1b[2J\nb\xff https://user:secret@host/x"); got != "a?[2J b? https://host/x" {
		t.Errorf("got %q", got)
	}
	if got := bounded(strings.Repeat("x", most-20) + " https://user:secret@host/x"); strings.Contains(got, "user") {
		t.Errorf("half a password: %q", got)
	}
	if got := bounded(strings.Repeat("ä", 1000)); len([]rune(got)) != most {
		t.Errorf("%d runes", len([]rune(got)))
	}
}
