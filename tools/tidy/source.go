package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// module is the prefix of our own import paths.
const module = "vstor/"

// file is a Go file of the tree.
type file struct {
	path    string // from the root of the tree, with slashes
	dir     string
	pkg     string // short name as the law has it: "volume/journal", "asd/store"
	test    bool
	text    []string // lines
	ast     *ast.File
	set     *token.FileSet
	imports []string
}

// load parses every Go file below root.
func load(root string) ([]*file, error) {
	var files []*file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "var") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parse(root, p)
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	return files, err
}

func parse(root, p string) (*file, error) {
	b, err := os.ReadFile(p)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(root, p)
	if err != nil {
		return nil, err
	}
	f := &file{path: filepath.ToSlash(rel), set: token.NewFileSet(), test: strings.HasSuffix(p, "_test.go")}
	f.dir = path.Dir(f.path)
	f.pkg = shortName(f.dir)
	f.text = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if f.ast, err = parser.ParseFile(f.set, f.path, b, parser.ParseComments); err != nil {
		return nil, err
	}
	for _, i := range f.ast.Imports {
		s, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, err
		}
		f.imports = append(f.imports, s)
	}
	return f, nil
}

func (f *file) line(p token.Pos) int { return f.set.Position(p).Line }

// shortName is how the law calls the package in dir.
func shortName(dir string) string { return strings.TrimPrefix(dir, "dataplane/") }

// room is the part of a short name that the law speaks of: its first word.
func room(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}
