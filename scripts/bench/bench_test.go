package main

import (
	"testing"
	"time"
)

// The issue that brought the hand-off allows 8 commands. Times are not asserted anywhere.
func TestMeasureHandOff_commands(t *testing.T) {
	const rounds = 20
	got, err := measureHandOff(3, rounds, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got.CommandsPerHandOff < 2 || got.CommandsPerHandOff > 8 {
		t.Errorf("%v commands for each hand-off, want 2 to 8", got.CommandsPerHandOff)
	}
	if got.InScripts < got.CommandsPerHandOff {
		t.Errorf("%v calls in scripts for each hand-off: they cannot be told apart from the clients' own", got.InScripts)
	}
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	for i := 100; i > 0; i-- {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	for p, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := percentile(d, p); got != want {
			t.Errorf("percentile %v is %v ms, want %v", p, got, want)
		}
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("percentile of nothing is %v, want 0", got)
	}
}

func TestCounts_rate(t *testing.T) {
	var c counts
	for _, line := range []string{
		`+1700000000.000000 [0 127.0.0.1:1] "hello" "2"`,
		`+1700000000.000000 [0 127.0.0.1:1] "EVALSHA" "abc"`,
		`+1700000000.100000 [0 127.0.0.1:1] "BLPOP" "k" "10"`,
		`+1700000002.000000 [0 127.0.0.1:2] "BLPOP" "k" "300"`,
		`+1700000010.000000 [0 127.0.0.1:1] "EVALSHA" "abc"`,
		`+1700000010.100000 [0 127.0.0.1:1] "BLPOP" "k" "10"`,
	} {
		cmd, err := parseCommand(line)
		if err != nil {
			t.Fatal(err)
		}
		c.sent = append(c.sent, cmd)
	}
	if got := c.rate(); got != 0.2 {
		t.Errorf("%v commands a second, want 0.2: two in each cycle of 10 s, none of who sent only one", got)
	}
}
