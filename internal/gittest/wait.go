package gittest

import (
	"flag"
	"strconv"
	"testing"
	"time"
)

// patience is for what a busy machine may be slow to do. Nothing that works takes as long.
const patience = 3 * time.Minute

// Until waits for a condition, without which the test fails.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !Reached(ok) {
		t.Fatalf("still not after %s: %s", patience, what)
	}
}

// Reached waits for a condition, and reports whether it came true. The longer it waits, the less
// often it looks, and to look takes a fifth of the time at most: it may mean to start a process.
func Reached(ok func() bool) bool {
	for began := time.Now(); ; {
		looked := time.Now()
		if ok() {
			return true
		}
		waited := time.Since(began)
		if waited > patience {
			return false
		}
		pause := min(max(waited/20, time.Millisecond), 25*time.Millisecond)
		time.Sleep(max(pause, 4*time.Since(looked)))
	}
}

// Parallel lets so many tests of a package run at a time, because they wait more than they work. A
// -parallel on the command line wins.
func Parallel(n int) {
	if err := flag.Set("test.parallel", strconv.Itoa(n)); err != nil {
		panic(err)
	}
}
