package session

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " S 7 11 11 0 -1 4194368 6 9 0 0 0 0 0 0 20 0 1 0 113311 44 3"
	for _, name := range []string{"bash", "a b", "a) S 1 (b", ")", "((", ""} {
		p, state, err := parseStat("42 (" + name + ")" + rest)
		if err != nil || state != "S" || p.PID != 42 || p.ppid != 7 || p.Start != 113311 || p.Name != name || p.execed {
			t.Errorf("name %q: %+v, %q, %v", name, p, state, err)
		}
	}
	for flags, execed := range map[string]bool{"0": false, "4194368": false, "4194304": true} {
		p, _, err := parseStat("42 (x)" + strings.Replace(rest, "4194368", flags, 1))
		if err != nil || p.execed != execed {
			t.Errorf("flags %s: execed = %t, %v; want %t", flags, p.execed, err, execed)
		}
	}
	for _, bad := range []string{"", "42", "42 (x", "42 (x) S 7", "x (x)" + rest, ")(" + rest} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) succeeded", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (a) b) S 7 11 11 0 -1 4194368 6 9 0 0 0 0 0 0 20 0 1 0 113311 44 3")
	f.Fuzz(func(t *testing.T, line string) {
		p, state, err := parseStat(line)
		if err == nil && (state == "" || !strings.Contains(line, "("+p.Name+")")) {
			t.Errorf("%+v, %q", p, state)
		}
	})
}

// A child that has ended and that its parent, this test, has not reaped.
func TestProcess_zombie(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	p := start(t, cmd)
	if !p.Alive() || p.Name != "sleep" {
		t.Fatalf("%+v: alive = %t", p, p.Alive())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if p.Alive() {
		t.Error("a zombie is alive")
	}
	if _, err := Lookup(p.PID); !errors.Is(err, ErrGone) {
		t.Errorf("Lookup of a zombie: %v", err)
	}
	if _, err := Detect(p.PID, ""); err != nil {
		t.Errorf("Detect for a zombie: %v", err)
	}
}
