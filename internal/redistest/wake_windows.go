package redistest

import "os"

// wake has nothing to do: processes cannot be stopped there.
func wake(*os.Process) {}
