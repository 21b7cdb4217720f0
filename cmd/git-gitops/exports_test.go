package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestExports: every exported function is used by another package.
func TestExports(t *testing.T) {
	t.Parallel()
	const module = "github.com/git-gitops/git-gitops/"
	root := filepath.Join("..", "..")
	exported := map[string]token.Position{} // "path.Name"
	used := map[string]bool{}
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != root && d.Name() != ".." {
			if err == nil {
				err = fs.SkipDir
			}
			return err
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		dir = filepath.ToSlash(dir)
		// Of tests, only a package's own count: what others need for their tests belongs into a
		// package for tests.
		test := strings.HasSuffix(name, "_test.go")
		helps := dir == "internal/redistest" || dir == "internal/gittest" || strings.HasPrefix(dir, "scripts/")
		imports := map[string]string{}
		for _, i := range file.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			local := path.Base(p)
			if i.Name != nil {
				local = i.Name.Name
			}
			if rel, ours := strings.CutPrefix(p, module); ours {
				imports[local] = rel
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && test && imports["."] == dir {
				used[dir+"."+id.Name] = true
			}
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && imports[x.Name] != "" && (!test || imports[x.Name] == dir) {
					used[imports[x.Name]+"."+s.Sel.Name] = true
				}
			}
			return true
		})
		if test || helps || !strings.HasPrefix(dir, "internal/") && dir != "shim" && dir != "hooks" {
			return nil
		}
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.IsExported() {
				exported[dir+"."+d.Name.Name] = files.Position(d.Pos())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range exported {
		if !used[name] {
			t.Errorf("%s: nothing outside of its package uses %s", at, name)
		}
	}
}
