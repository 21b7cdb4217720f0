// Command man prints the manual page git-gitops(1) in roff, for the version that its argument
// names.
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/cpuguy83/go-md2man/v2/md2man"

	"github.com/git-gitops/git-gitops/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man VERSION")
		os.Exit(129)
	}
	var page bytes.Buffer
	if err := cli.Manual(&page, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := os.Stdout.Write(md2man.Render(page.Bytes())); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
