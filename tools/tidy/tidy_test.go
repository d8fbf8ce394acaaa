package tidy

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func tree(t *testing.T) []*file {
	t.Helper()
	files, err := load("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found %d Go files only: is the tree not two folders up?", len(files))
	}
	return files
}

// law is importLaw parsed: what each room may import.
type law struct {
	may, not map[string]map[string]bool
}

func parseLaw(text string) (law, error) {
	l := law{map[string]map[string]bool{}, map[string]map[string]bool{}}
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		op := slices.IndexFunc(words, func(w string) bool { return w == "<" || w == "!" })
		if op < 1 || op == len(words)-1 {
			return l, fmt.Errorf("the law says %q, which is neither \"a < b\" nor \"a ! b\"", line)
		}
		left, right := words[:op], words[op+1:]
		if words[op] == "!" {
			for _, a := range left {
				add(l.not, a, right...)
			}
			continue
		}
		for _, b := range right {
			add(l.may, b)
			for _, a := range left {
				if a == "-" {
					continue
				}
				if l.may[a] == nil {
					return l, fmt.Errorf("the law uses %s before it says what %s may import", a, a)
				}
				add(l.may, b, a)
				for c := range l.may[a] {
					add(l.may, b, c)
				}
			}
		}
	}
	return l, nil
}

func add(m map[string]map[string]bool, key string, values ...string) {
	if m[key] == nil {
		m[key] = map[string]bool{}
	}
	for _, v := range values {
		m[key][v] = true
	}
}

func (l law) allows(from, to string) bool {
	return from == to || l.may[from][to] && !l.not[from][to]
}

func TestImportLaw(t *testing.T) {
	l, err := parseLaw(importLaw)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tree(t) {
		from := room(f.pkg)
		if from == "." || from == "dataplane" {
			continue
		}
		if l.may[from] == nil {
			t.Errorf("%s: the import law in tools/tidy/law.go does not know %s: add it, with what it may import", f.path, from)
			continue
		}
		if want := folders[from]; want == "" && !strings.HasPrefix(f.dir, "dataplane/") {
			t.Errorf("%s: %s belongs below dataplane/, or into the list of folders in tools/tidy/law.go", f.path, f.pkg)
		}
		for _, imp := range f.imports {
			own, ok := strings.CutPrefix(imp, module)
			if !ok {
				continue
			}
			// A test may use anything but what would close a circle; the compiler sees to that.
			if to := room(shortName(own)); !f.test && !l.allows(from, to) {
				t.Errorf("%s: %s may not import %s: declare the small interface you need and let node join the two",
					f.path, from, to)
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || !slices.Contains(pure, room(f.pkg)) {
			continue
		}
		for _, imp := range f.imports {
			if slices.Contains(pureForbids, imp) {
				t.Errorf("%s: %s is pure and may not import %s: take bytes and give structs, the caller does the IO",
					f.path, f.pkg, imp)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s:%d: %s is pure and may not start goroutines: let the caller do that", f.path, f.line(g.Pos()), f.pkg)
			}
			return true
		})
	}
}

func TestPackageComments(t *testing.T) {
	comments := map[string][]*file{}
	for _, f := range tree(t) {
		if f.test || f.ast.Name.Name == "main" && f.dir == "." {
			continue
		}
		comments[f.dir] = append(comments[f.dir], nil...) // counts the package even if no file has one
		if f.ast.Doc == nil {
			continue
		}
		comments[f.dir] = append(comments[f.dir], f)
		text := strings.TrimSpace(f.ast.Doc.Text())
		if !strings.HasPrefix(text, "Package "+f.ast.Name.Name) && !strings.HasPrefix(text, "Command ") {
			t.Errorf("%s: the package comment should begin with \"Package %s\" (or \"Command ...\")", f.path, f.ast.Name.Name)
		}
		lines := f.line(f.ast.Doc.End()) - f.line(f.ast.Doc.Pos()) + 1
		if lines > maxDocLines && !strings.HasSuffix(f.path, "/doc.go") {
			t.Errorf("%s: the package comment has %d lines: move it to doc.go", f.path, lines)
		}
	}
	for dir, list := range comments {
		if len(list) != 1 {
			t.Errorf("%s: %d files have a package comment: write exactly one, which says what the package is for", dir,
				len(list))
		}
	}
}

func TestUnsafeAndKernel(t *testing.T) {
	for _, f := range tree(t) {
		for _, imp := range f.imports {
			if imp == "unsafe" && !strings.HasSuffix(strings.TrimSuffix(f.path, "_test.go"), "_unsafe") &&
				!strings.HasSuffix(f.path, "_unsafe.go") {
				t.Errorf("%s: unsafe belongs in files named *_unsafe.go: move what needs it there", f.path)
			}
			if imp == "golang.org/x/sys/unix" && !f.test && !slices.Contains(kernelPackages, room(f.pkg)) {
				t.Errorf("%s: only %s talk to the kernel: let one of them do it for you", f.path,
					strings.Join(kernelPackages, ", "))
			}
		}
	}
}

func TestLengths(t *testing.T) {
	long := map[string]bool{}
	for _, f := range tree(t) {
		limit := maxFileLines
		if f.test {
			limit = maxTestLines
		}
		if n := len(f.text); n > limit {
			long[f.path] = true
			if longFiles[f.path] == "" {
				t.Errorf("%s: %d lines; the limit is %d: split it by idea", f.path, n, limit)
			}
		}
		for i, l := range f.text {
			if n := utf8.RuneCountInString(l); n > maxColumns {
				t.Errorf("%s:%d: %d characters; the limit is %d: break the line", f.path, i+1, n, maxColumns)
			}
		}
		if f.test {
			continue // a table of cases is as long as it is
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := f.pkg + "." + fn.Name.Name
			n := f.line(fn.End()) - f.line(fn.Pos()) + 1
			if n <= maxFuncLines {
				continue
			}
			long[name] = true
			if longFuncs[name] == "" {
				t.Errorf("%s:%d: %s has %d lines; the limit is %d: split it by step", f.path, f.line(fn.Pos()),
					fn.Name.Name, n, maxFuncLines)
			}
		}
	}
	for name := range longFuncs {
		if !long[name] {
			t.Errorf("%s is short enough now: take it off longFuncs in tools/tidy/law.go", name)
		}
	}
	for name := range longFiles {
		if !long[name] {
			t.Errorf("%s is short enough now: take it off longFiles in tools/tidy/law.go", name)
		}
	}
}

// marks are notes to oneself; they are split here so that this file does not find itself.
var marks = []string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"}

func TestNothingLeftUndone(t *testing.T) {
	for _, f := range tree(t) {
		for _, g := range f.ast.Comments {
			for _, m := range marks {
				if slices.Contains(strings.FieldsFunc(g.Text(), func(r rune) bool { return r < 'A' || r > 'Z' }), m) {
					t.Errorf("%s:%d: %s: do it now, or write an issue and say here how it is", f.path, f.line(g.Pos()), m)
				}
			}
		}
	}
}

// A panic is for bugs of ours and says so: people who see one must know whom to tell.
func TestPanicsAreBugs(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || f.pkg == "invariants" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); !ok || id.Name != "panic" || len(call.Args) != 1 {
				return true
			}
			if _, again := call.Args[0].(*ast.Ident); again {
				return true // what was recovered goes on
			}
			if s := firstString(call.Args[0]); !strings.HasPrefix(s, "BUG: ") && !strings.HasPrefix(s, "FATAL: ") {
				t.Errorf("%s:%d: a panic is for a bug of ours and its text begins with \"BUG: \" (or use invariants.Assert), "+
					"or with \"FATAL: \" where a library must not go on; return an error for all else", f.path, f.line(call.Pos()))
			}
			return true
		})
	}
}

// firstString is the first string literal in an expression.
func firstString(e ast.Expr) string {
	found := ""
	ast.Inspect(e, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && found == "" {
			found, _ = strconv.Unquote(lit.Value)
		}
		return found == ""
	})
	return found
}

func TestLawReadsAsWritten(t *testing.T) {
	l, err := parseLaw(importLaw)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"buf", "errs", true}, {"errs", "buf", false}, {"dio", "ring", true}, {"asd", "wire", true}, {"asd", "block", false},
		{"volume", "proxy", false}, {"edge", "volume", false}, {"node", "volume", true}, {"bench", "node", true},
		{"node", "bench", false}, {"layout", "buf", false}, {"tools", "api", true}, {"proxy", "meta", true},
	} {
		if l.allows(c.from, c.to) != c.ok {
			t.Errorf("%s imports %s: allowed is %v", c.from, c.to, !c.ok)
		}
	}
	for _, bad := range []string{"a b", "< a", "a <", "nobody < a"} {
		if _, err := parseLaw(bad); err == nil {
			t.Errorf("%q passes for a law", bad)
		}
	}
}
