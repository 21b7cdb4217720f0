package shim

import "io/fs"

// LinkName is the name of git's program.
const LinkName = "git.exe"

const defaultPath = "" // there is none

// executable is always true: on Windows the name decides. Only git.exe is looked for, because
// arguments can't be handed safely to a .cmd file.
func executable(string, fs.FileInfo) bool { return true }
