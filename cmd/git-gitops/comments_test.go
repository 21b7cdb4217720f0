package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestComments: a line of comment is at most 100 columns wide, a tab being four of them. What is
// indented, as tables are, may be wider.
func TestComments(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	seen := 0
	look := func(name string, n int, line, mark string) {
		prose := strings.TrimPrefix(strings.TrimSpace(line), mark)
		if !strings.HasPrefix(prose, " ") || strings.HasPrefix(prose, "  ") {
			return
		}
		seen++
		if width := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")); width > 100 {
			t.Errorf("%s:%d: %d columns", name, n, width)
		}
	}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "testdata" || d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != root:
			return fs.SkipDir
		}
		ext := filepath.Ext(name)
		if ext != ".go" && ext != ".lua" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		lines := strings.Split(string(text), "\n")
		if ext == ".lua" {
			for i, line := range lines {
				if strings.HasPrefix(strings.TrimSpace(line), "--") {
					look(name, i+1, line, "--")
				}
			}
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, group := range file.Comments {
			for _, c := range group.List {
				n := files.Position(c.Pos()).Line
				if strings.TrimSpace(lines[n-1]) == c.Text { // nothing but the comment
					look(name, n, lines[n-1], "//")
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 1000 {
		t.Errorf("only %d lines were looked at", seen)
	}
}
