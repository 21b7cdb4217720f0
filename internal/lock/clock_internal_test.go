package lock

import (
	"testing"
	"time"
)

// A machine that was suspended has less of its lease left than Go's clock says.
// Not beside other tests, whose clock it is too.
func TestLease_Left_suspended(t *testing.T) {
	if earlier := bootClock(); earlier <= 0 || bootClock() < earlier {
		t.Errorf("the clock says %s", earlier)
	}
	real := sinceBoot
	defer func() { sinceBoot = real }()
	asleep := time.Duration(0)
	sinceBoot = func() time.Duration { return real() + asleep }
	l := newLease(Hold{TTL: time.Minute}, 1, now())
	if left := l.Left(); left <= 0 {
		t.Errorf("left %s before", left)
	}
	asleep = time.Hour
	if left := l.Left(); left > -time.Minute {
		t.Errorf("left %s after an hour of suspend", left)
	}
}

// Who is how far back in line asks how often.
func TestPatience(t *testing.T) {
	t.Parallel()
	timing := DefaultTiming()
	known := Holder{Known: true, Token: "t", Left: time.Hour, Age: time.Hour}
	for _, test := range []struct {
		name        string
		attempt     Attempt
		least, most time.Duration
	}{
		{"first in line", Attempt{Position: 1, Holder: known}, timing.Heartbeat, timing.Heartbeat + timing.Heartbeat/10},
		{"the holder's lease ends", Attempt{Position: 1, Holder: Holder{Known: true, Left: time.Second}}, time.Second, 1100 * time.Millisecond},
		{"a stranger holds", Attempt{Position: 1, Holder: Holder{Token: "x", Left: -1}}, 50 * time.Millisecond, 100 * time.Millisecond},
		{"second, a stranger holds", Attempt{Position: 2, Holder: Holder{Token: "x", Left: -1}}, timing.Heartbeat, timing.Heartbeat + timing.Heartbeat/10},
		{"the last that is near", Attempt{Position: Near, Holder: known}, timing.Heartbeat, timing.Heartbeat + timing.Heartbeat/10},
		{"in between", Attempt{Position: (Near + Far) / 2, Holder: known}, 30 * time.Second, 45 * time.Second},
		{"far", Attempt{Position: Far + 1, Holder: known}, time.Minute, 66 * time.Second},
		{"very far", Attempt{Position: 5000, Holder: known}, time.Minute, 66 * time.Second},
	} {
		if d := timing.patience(test.attempt); d < test.least || d > test.most {
			t.Errorf("%s: asks again in %s", test.name, d)
		}
	}
	var near, back Backoff
	var longest time.Duration
	for range 20 {
		longest = max(longest, near.at(1).Next())
		back.at(Far).Next()
	}
	if longest > time.Second || back.at(Far).Next() < 30*time.Second {
		t.Errorf("after a long outage the first tries again within %s, the last too early", longest)
	}
}
