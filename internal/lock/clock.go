package lock

import "time"

// moment is a point in time by two clocks. Go's monotonic clock stands still while a machine is
// suspended, and the store's goes on; the time since the boot does as well.
type moment struct {
	mono time.Time
	boot time.Duration
}

// sinceBoot is a variable for tests, which cannot suspend the machine.
var sinceBoot = bootClock

func now() moment { return moment{time.Now(), sinceBoot()} }

func (m moment) add(d time.Duration) moment { return moment{m.mono.Add(d), m.boot + d} }

// left is the time until then; negative when that is over.
func (m moment) left() time.Duration { return min(time.Until(m.mono), m.boot-sinceBoot()) }
