package gitargs

import (
	"errors"
	"strings"
	"testing"
)

func TestPushArgs_Target(t *testing.T) {
	t.Parallel()
	local := []string{
		"refs/heads/alias refs/heads/main", "refs/heads/dev", "refs/heads/main", "refs/heads/team/a",
		"refs/remotes/origin/HEAD refs/remotes/origin/main", "refs/remotes/origin/main", "refs/tags/v1", "refs/heads/both", "refs/tags/both",
	}
	remote := []string{"refs/heads/main", "refs/heads/old", "refs/tags/v0"}

	origin := "remote.origin.url\nu\x00"
	tests := map[string]struct {
		words  string
		head   string // "-" is detached, "" is main
		config string // entries end in "|", "=" parts key and value
		remote string // "" is origin
		want   string // short names; "+" marks that the remote was asked
	}{
		"word":                       {words: "origin main", want: "main"},
		"word of another branch":     {words: "origin dev", want: "dev"},
		"forced word":                {words: "origin +main", want: "main"},
		"head":                       {words: "origin HEAD", want: "main"},
		"at":                         {words: "origin @", want: "main"},
		"head detached":              {words: "origin HEAD", head: "-"},
		"head to a branch":           {words: "origin HEAD:refs/heads/prod", head: "-", want: "prod"},
		"head to a short name":       {words: "origin HEAD:prod", want: "prod"},
		"object id":                  {words: "origin 4b825dc6:refs/heads/prod", want: "prod"},
		"colon in the source":        {words: "origin main:f:refs/heads/prod", want: "prod"},
		"heads/x is two":             {words: "origin main:heads/x", want: "heads/x x"},
		"symbolic branch":            {words: "origin alias", want: "main"},
		"symbolic branch to a name":  {words: "origin alias:refs/heads/x", want: "x"},
		"tag":                        {words: "origin v1"},
		"tag word":                   {words: "origin tag main"},
		"tag and branch":             {words: "origin both", want: "both"},
		"tag to a branch":            {words: "origin v1:refs/heads/x", want: "x"},
		"remote-tracking":            {words: "origin origin/main"},
		"no such branch":             {words: "origin nope"},
		"several":                    {words: "origin main dev:x main", want: "main x"},
		"delete":                     {words: "origin --delete a refs/heads/b refs/tags/c", want: "a b"},
		"delete a tag":               {words: "-d origin tag a"},
		"delete by colon":            {words: "origin :a", want: "a"},
		"tags only":                  {words: "--tags origin"},
		"tags and a branch":          {words: "--tags origin main", want: "main"},
		"all":                        {words: "--all origin", want: "alias both dev main team/a"},
		"mirror":                     {words: "--mirror origin", want: "+alias both dev main old team/a"},
		"matching":                   {words: "origin :", want: "+main"},
		"matching, forced":           {words: "origin +:", want: "+main"},
		"wildcard":                   {words: "origin refs/heads/t*:refs/heads/p*", want: "peam/a"},
		"wildcard to tags":           {words: "origin refs/heads/*:refs/tags/*"},
		"first wildcard wins":        {words: "origin refs/heads/d*:refs/heads/D* refs/heads/*", want: "Dev alias both main team/a"},
		"wildcard without one":       {words: "origin refs/heads/*:refs/heads/x"},
		"negative":                   {words: "origin refs/heads/* ^refs/heads/t* ^refs/heads/dev", want: "alias both main"},
		"negative alone":             {words: "origin ^refs/heads/dev"},
		"prune":                      {words: "--prune origin refs/heads/*", want: "+alias both dev main old team/a"},
		"prune elsewhere":            {words: "--prune origin refs/heads/*:refs/heads/x/*", want: "+x/alias x/both x/dev x/main x/team/a"},
		"prune a word":               {words: "--prune origin main", want: "main"},
		"default":                    {want: "main"},
		"default, detached":          {head: "-"},
		"default, unborn":            {head: "refs/heads/new", want: "new"},
		"default nothing":            {config: "push.default=nothing|"},
		"default current":            {config: "push.default=current|", head: "refs/heads/dev", want: "dev"},
		"default matching":           {config: "push.default=matching|", want: "+main"},
		"default matching, detached": {config: "push.default=matching|", head: "-", want: "+main"},
		"default upstream":           {config: "push.default=upstream|branch.main.remote=origin|branch.main.merge=refs/heads/up|", want: "up"},
		"default tracking":           {config: "push.default=tracking|branch.main.remote=origin|branch.main.merge=refs/heads/up|", want: "up"},
		"default upstream, none":     {config: "push.default=upstream|push.autosetupremote=true|", want: "main"},
		"default simple":             {config: "branch.main.remote=origin|branch.main.merge=refs/heads/up|", want: "main"},
		"all over push refspecs":     {words: "--all", config: "remote.origin.push=main:refs/heads/p|", want: "alias both dev main team/a"},
		"push refspecs":              {config: "remote.origin.push=main:refs/heads/p|remote.origin.push=dev|", want: "dev p"},
		"push refspecs, word mapped": {words: "origin main", config: "remote.origin.push=refs/heads/*:refs/heads/q/*|", want: "q/main"},
		"push refspecs, whole name":  {words: "origin main", config: "remote.origin.push=main:refs/heads/p|", want: "main"},
		"push refspecs, forced word": {words: "origin +main", config: "remote.origin.push=refs/heads/*:refs/heads/q/*|", want: "main"},
		"push refspecs, of another":  {words: "origin main", config: "remote.fork.push=refs/heads/*:refs/heads/q/*|", want: "main"},
		"upstream, word mapped":      {words: "origin dev", config: "push.default=upstream|branch.dev.remote=origin|branch.dev.merge=refs/heads/up|", want: "up"},
		"upstreams, word not mapped": {words: "origin dev", config: "push.default=upstream|branch.dev.remote=origin|branch.dev.merge=refs/heads/up|branch.dev.merge=refs/heads/b|", want: "dev"},
		"mirror by config":           {words: "origin", config: "remote.origin.mirror=yes|", want: "+alias both dev main old team/a"},
		"no mirror by config":        {words: "origin", config: "remote.origin.mirror=off|", want: "main"},
		"remote by url":              {words: "https://h/r.git main", remote: "https://h/r.git", want: "main"},
		"remote by repo":             {words: "--repo fork", remote: "fork", want: "main"},
		"remote word over repo":      {words: "--repo fork origin", want: "main"},
		"remote of the branch":       {config: "branch.main.remote=up|", remote: "up", want: "main"},
		"remote by push default":     {config: "branch.main.remote=up|remote.pushdefault=fork|", remote: "fork", want: "main"},
		"remote by branch":           {config: "branch.main.remote=up|remote.pushdefault=fork|branch.main.pushremote=mine|", remote: "mine", want: "main"},
		"remote is the only one":     {config: "remote.Up.x.url=u|remote.Up.x.fetch=f|", remote: "Up.x", want: "main"},
		"remote of two":              {config: "remote.a.url=u|remote.b.url=u|", remote: "origin", want: "main"},
		"remote, detached":           {words: "", head: "-", config: "remote.up.url=u|", remote: "up"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := ParsePush(strings.Fields(test.words))
			if err != nil {
				t.Fatal(err)
			}
			head := test.head
			switch head {
			case "":
				head = "refs/heads/main"
			case "-":
				head = ""
			}
			config := strings.NewReplacer("=", "\n", "|", "\x00").Replace(test.config)
			if !strings.Contains(config, "url") {
				config += origin
			}
			asked := ""
			got, err := a.Target(PushContext{
				Config:    ParseConfig([]byte(config)),
				Head:      head,
				LocalRefs: func() ([]string, error) { return local, nil },
				RemoteRefs: func(string) ([]string, error) {
					asked += "+"
					return remote, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			var short []string
			for _, branch := range got.Branches {
				short = append(short, strings.TrimPrefix(branch, "refs/heads/"))
			}
			if branches := asked + strings.Join(short, " "); branches != test.want {
				t.Errorf("branches %q, want %q", branches, test.want)
			}
			want := test.remote
			if want == "" {
				want = "origin"
			}
			if got.Remote != want {
				t.Errorf("remote %q, want %q", got.Remote, want)
			}
		})
	}
}

func TestPushArgs_Target_errors(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	fine := func() ([]string, error) { return nil, nil }
	fails := func() ([]string, error) { return nil, broken }
	for words, local := range map[string]func() ([]string, error){
		"https://u:secret@h/r main":     fails,
		"--mirror https://u:secret@h/r": fine,
	} {
		a, err := ParsePush(strings.Fields(words))
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Target(PushContext{
			LocalRefs:  local,
			RemoteRefs: func(string) ([]string, error) { return fails() },
		})
		if !errors.Is(err, broken) || strings.Contains(err.Error(), "secret") {
			t.Errorf("git push %s: error %v", words, err)
		}
	}
}
