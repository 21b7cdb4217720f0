//go:build unix

package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/git-gitops/git-gitops/internal/cli"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// TestMain puts this test binary on the scripts' PATH as git-gitops, so that "git gitops" in a
// script is the program itself.
func TestMain(m *testing.M) {
	// Most tests wait for processes rather than for a processor. A -parallel on the command line
	// comes later and wins.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"git-gitops": func() { os.Exit(cli.Main(os.Args)) },
	})
}

// TestScript runs the scripts in testdata/script, each with a Redis of its own and a home without
// anybody's settings.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               setup,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eventually": eventually,
			"seed":       seed,
			"redis":      redisServer,
		},
	})
}

// raceSettings spares every process that is built with -race the second for which it would wait at
// its end.
const raceSettings = "atexit_sleep_ms=0"

const gitConfig = `[user]
	name = Pipeline
	email = pipeline@example.com
[init]
	defaultBranch = main
[protocol "file"]
	allow = always
`

func setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(gitConfig), 0o600); err != nil {
		return err
	}
	server, err := redistest.Run(home)
	if err != nil {
		return err
	}
	env.Defer(server.Stop)
	env.Values["redis"] = server
	for _, kv := range [][2]string{
		{"HOME", home},
		{"XDG_CONFIG_HOME", filepath.Join(home, ".config")},
		{"XDG_STATE_HOME", filepath.Join(home, ".local", "state")},
		{"GIT_CONFIG_NOSYSTEM", "1"},
		{"GIT_TERMINAL_PROMPT", "0"},
		{"REDIS_HOST", server.Host},
		{"REDIS_PORT", server.Port},
		{"LC_ALL", "C"},
		{"GORACE", raceSettings},
	} {
		env.Setenv(kv[0], kv[1])
	}
	return nil
}

// eventually runs a program again and again until it succeeds (fails, with !), for ten seconds
// at most.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] eventually program [args...]")
	}
	var out []byte
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		cmd := exec.Command(args[0], args[1:]...)
		if path, err := lookPath(ts, args[0]); err == nil {
			cmd.Path = path
		}
		cmd.Dir = ts.Getenv("PWD")
		cmd.Env = environ(ts)
		var err error
		if out, err = cmd.CombinedOutput(); (err == nil) != neg {
			return
		}
	}
	ts.Fatalf("still not after 10 s: %s\n%s", strings.Join(args, " "), out)
}

func lookPath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// environ is the script's environment, as far as programs in eventually need it.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "PWD", "WORK", "REDIS_HOST", "REDIS_PORT", "GIT_CONFIG_NOSYSTEM", "LC_ALL", "XDG_STATE_HOME"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// seed makes a bare repository with one commit on main, in which the file counter says 0:
//
//	seed remote.git
func seed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: seed repository.git")
	}
	bare := ts.MkAbs(args[0])
	work := bare + ".seed"
	ts.Check(os.MkdirAll(work, 0o750))
	ts.Check(os.WriteFile(filepath.Join(work, "counter"), []byte("0\n"), 0o600))
	for _, words := range [][]string{
		{"init", "-q", "--bare", bare},
		{"-C", work, "init", "-q"},
		{"-C", work, "add", "."},
		{"-C", work, "commit", "-q", "-m", "seed"},
		{"-C", work, "push", "-q", bare, "main"},
	} {
		ts.Check(ts.Exec("git", words...))
	}
	ts.Check(os.RemoveAll(work))
}

// redisServer stops, kills or resumes the script's Redis:
//
//	redis stop | kill | resume
func redisServer(ts *testscript.TestScript, neg bool, args []string) {
	server, ok := ts.Value("redis").(*redistest.Server)
	if neg || !ok || len(args) != 1 {
		ts.Fatalf("usage: redis stop|kill|resume")
	}
	switch args[0] {
	case "stop":
		server.Stop()
	case "kill":
		server.Kill()
	case "resume":
		ts.Check(server.Resume())
	default:
		ts.Fatalf("unknown: %s", fmt.Sprint(args))
	}
}
