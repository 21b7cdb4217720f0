package gitargs

import "testing"

func TestConfig_With(t *testing.T) {
	c := Config{"a.b": {"1"}}
	got := c.With([]string{"A.B=2", "Url.git@Host:.insteadOf=x:", "flag.On", "a.B=3=4"})
	for key, want := range map[string]string{"a.b": "3=4", "url.git@Host:.insteadof": "x:", "flag.on": "true"} {
		if value, _ := got.Get(key); value != want {
			t.Errorf("%s is %q, want %q", key, value, want)
		}
	}
	if url := got.FetchURL("x:r"); url != "git@Host:r" {
		t.Errorf("rewritten to %q", url)
	}
	if value, _ := c.Get("a.b"); value != "1" || len(c) != 1 {
		t.Errorf("the first has changed: %v", c)
	}
}
