package gitargs

import (
	"reflect"
	"strings"
	"testing"
)

func TestParsePush(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args  []string
		want  PushArgs
		fails bool
	}{
		"nothing":          {},
		"usual":            {args: []string{"-u", "origin", "main"}, want: PushArgs{SetUpstream: true, Remote: "origin", Refspecs: []string{"main"}, RefspecIndex: []int{2}, OptionEnd: 3}},
		"options last":     {args: []string{"origin", "main", "-fu", "x"}, want: PushArgs{Force: true, SetUpstream: true, Remote: "origin", Refspecs: []string{"main", "x"}, RefspecIndex: []int{1, 3}, OptionEnd: 4}},
		"dashes":           {args: []string{"-n", "--", "origin", "-f"}, want: PushArgs{DryRun: true, Remote: "origin", Refspecs: []string{"-f"}, RefspecIndex: []int{3}, OptionEnd: 1}},
		"repo":             {args: []string{"--repo", "origin"}, want: PushArgs{Repo: "origin", OptionEnd: 2}},
		"push option":      {args: []string{"-o", "ci.skip", "origin"}, want: PushArgs{Remote: "origin", Refspecs: []string{}, RefspecIndex: []int{}, OptionEnd: 3}},
		"leases":           {args: []string{"--force-with-lease", "--force-w=a:b"}, want: PushArgs{ForceWithLease: []string{"", "a:b"}, OptionEnd: 2}},
		"no lease":         {args: []string{"--force-with-lease", "--no-force-with-lease"}, want: PushArgs{OptionEnd: 2}},
		"force taken back": {args: []string{"--mirror", "--no-force"}, want: PushArgs{Mirror: true, OptionEnd: 2}},
		"no-verify":        {args: []string{"--no-verify"}, want: PushArgs{OptionEnd: 1}},
		"verify":           {args: []string{"--no-verify", "--verify"}, want: PushArgs{OptionEnd: 2}},
		"branches":         {args: []string{"--branches"}, want: PushArgs{All: true, OptionEnd: 1}},
		"shortened":        {args: []string{"--set-up", "--dr", "--porc", "--at", "--foll", "--del", "--prun"}, want: PushArgs{SetUpstream: true, DryRun: true, Porcelain: true, Delete: true, Prune: true, OptionEnd: 7}},
		"signed":           {args: []string{"--signed", "origin"}, want: PushArgs{Remote: "origin", Refspecs: []string{}, RefspecIndex: []int{}, OptionEnd: 2}},
		"submodules":       {args: []string{"--recurse-submodules", "check", "--tags"}, want: PushArgs{Tags: true, OptionEnd: 3}},
		"help":             {args: []string{"origin", "-h"}, want: PushArgs{Help: true, Remote: "origin", Refspecs: []string{}, RefspecIndex: []int{}, OptionEnd: 2}},
		"ambiguous":        {args: []string{"--pr"}, fails: true},
		"value missing":    {args: []string{"-o"}, fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParsePush(test.args)
			if test.fails != (err != nil) {
				t.Fatalf("error %v", err)
			}
			if err == nil && !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func FuzzParsePush(f *testing.F) {
	f.Add("-fu\x00origin\x00--\x00+a:b")
	f.Add("--force-with-lease=x\x00--no-f\x00-o")
	f.Fuzz(func(t *testing.T, words string) {
		args := strings.Split(words, "\x00")
		a, err := ParsePush(args)
		if err != nil {
			return
		}
		if len(a.Refspecs) != len(a.RefspecIndex) || a.OptionEnd > len(args) {
			t.Fatalf("%+v", a)
		}
		for i, at := range a.RefspecIndex {
			if args[at] != a.Refspecs[i] {
				t.Errorf("refspec %q is not at %d of %q", a.Refspecs[i], at, args)
			}
		}
		none := func() ([]string, error) { return nil, nil }
		if _, err := a.Target(PushContext{LocalRefs: none, RemoteRefs: func(string) ([]string, error) { return none() }}); err != nil {
			t.Error(err)
		}
	})
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	c := ParseConfig([]byte("remote.o.push\na:b\x00push.autosetupremote\x00remote.o.push\nc\nd\x00empty.key\n\x00"))
	want := Config{"remote.o.push": {"a:b", "c\nd"}, "push.autosetupremote": {"true"}, "empty.key": {""}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %q, want %q", c, want)
	}
	if value, ok := c.Get("remote.o.push"); value != "c\nd" || !ok {
		t.Errorf("the last value is %q, %t", value, ok)
	}
	if _, ok := c.Get("other"); ok {
		t.Error("a key that is not there was found")
	}
}
