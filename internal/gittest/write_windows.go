package gittest

import "os"

// WriteProgram writes a file that is run next.
func WriteProgram(path, content string) error {
	return os.WriteFile(path, []byte(content), 0o755) //nolint:gosec // it is to be run
}
