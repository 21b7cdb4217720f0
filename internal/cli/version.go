package cli

import "runtime/debug"

// version is set when a release is linked (-X).
var version string

// programVersion is the version of this program: the release's, without a v, else what Go knows of
// the build.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
