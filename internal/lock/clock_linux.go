package lock

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootClock is the time since the boot, with that of suspends (clock_gettime(2)).
func bootClock() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return time.Since(processStart)
	}
	return time.Duration(t.Nano())
}

var processStart = time.Now()
