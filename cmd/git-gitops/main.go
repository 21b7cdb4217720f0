// Command git-gitops is git for pipelines that share a branch. Installed on PATH it is reached as
// "git gitops"; as a link named git it stands in for git itself.
package main

import (
	"os"

	"github.com/git-gitops/git-gitops/internal/cli"
	_ "github.com/git-gitops/git-gitops/internal/early" // before all others
)

func main() { os.Exit(cli.Main(os.Args)) }
