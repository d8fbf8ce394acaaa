package config

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"vstor/dataplane/errs"
)

// SystemFile is where the machine's own settings are looked for.
const SystemFile = "/etc/vstor/vstor.toml"

// Source is a set of values that somebody gave, key name -> words.
type Source struct {
	Name   string // how an error calls it: "--flag", a path
	Values map[string][]string
}

// Apply sets what the source says.
func (c *Config) Apply(s Source) error {
	keys := Keys()
	for _, name := range sortedKeys(s.Values) {
		k := KeyNamed(keys, name)
		if k == nil {
			return unknownKey(s.Name, name, keys)
		}
		if err := k.set(c, s.Values[name]); err != nil {
			return errs.New(errs.Of(err), "%s: %v", s.Name, err)
		}
	}
	return nil
}

// Differences names each fixed setting that the source wants other than c has it.
func (c *Config) Differences(s Source) ([]string, error) {
	want := *c
	if err := want.Apply(s); err != nil {
		return nil, err
	}
	want.round()
	var out []string
	for _, k := range Keys() {
		if _, said := s.Values[k.Name]; !said || !k.Fixed {
			continue
		}
		was, is := k.get(c), k.get(&want)
		if !slices.Equal(was, is) {
			out = append(out, fmt.Sprintf("%s is %s and cannot become %s", k.Name, strings.Join(was, " "),
				strings.Join(is, " ")))
		}
	}
	return out, nil
}

// FromEnv collects the VSTOR_* variables that name a setting. Others (VSTOR_DIR) are not its business.
func FromEnv(environ []string) Source {
	s := Source{Name: "the environment", Values: map[string][]string{}}
	for _, k := range Keys() {
		for _, e := range environ {
			v, ok := strings.CutPrefix(e, k.Env()+"=")
			if !ok || v == "" {
				continue
			}
			if k.Shape == List {
				s.Values[k.Name] = strings.Fields(v)
			} else {
				s.Values[k.Name] = []string{v}
			}
		}
	}
	return s
}

// FromFile reads a TOML file; a file that does not exist says nothing.
func FromFile(path string) (Source, error) {
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return Source{Name: path}, nil
	}
	if err != nil {
		return Source{}, errs.Wrap(errs.IO, err, "cannot read the settings")
	}
	return ParseTOML(path, b)
}

// ParseTOML reads settings from TOML: one key per setting at the top level, a word, number or truth
// value each, or an array of words for a list.
func ParseTOML(name string, b []byte) (Source, error) {
	var doc map[string]any
	if err := toml.Unmarshal(b, &doc); err != nil {
		return Source{}, errs.New(errs.Invalid, "%s is not TOML: %v", name, err)
	}
	s := Source{Name: name, Values: make(map[string][]string, len(doc))}
	keys := Keys()
	for _, key := range sortedKeys(doc) {
		k := KeyNamed(keys, key)
		if k == nil {
			return Source{}, unknownKey(name, key, keys)
		}
		words, ok := wordsOf(doc[key])
		if !ok {
			return Source{}, errs.New(errs.Invalid, "%s: %s is neither a word nor a number; write it like %s", name,
				key, tomlExample(k))
		}
		s.Values[key] = words
	}
	return s, nil
}

func wordsOf(v any) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case int64, bool:
		return []string{fmt.Sprint(v)}, true
	case []any:
		words := []string{}
		for _, e := range v {
			w, ok := e.(string)
			if !ok {
				return nil, false
			}
			words = append(words, w)
		}
		return words, true
	}
	return nil, false
}

func tomlExample(k *Key) string {
	switch k.Shape {
	case List:
		return k.Name + ` = ["4,2,5,1", "2,2,3,1"]`
	case Bool:
		return k.Name + " = true"
	}
	return k.Name + ` = "..."`
}

// FormatTOML writes values so that ParseTOML reads them back.
func FormatTOML(comment string, values map[string][]string) ([]byte, error) {
	var out bytes.Buffer
	for _, l := range strings.Split(comment, "\n") {
		fmt.Fprintf(&out, "# %s\n", l)
	}
	for _, k := range Keys() {
		words, ok := values[k.Name]
		if !ok {
			continue
		}
		var v any = words
		if k.Shape != List {
			v = words[0]
		}
		b, err := toml.Marshal(map[string]any{k.Name: v})
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "cannot write the setting %s", k.Name)
		}
		out.Write(b)
	}
	return out.Bytes(), nil
}

func unknownKey(where, name string, keys []*Key) error {
	best, dist := "", len(name)/2+1
	for _, k := range keys {
		if d := editDistance(name, k.Name); d < dist {
			best, dist = k.Name, d
		}
	}
	if best != "" {
		return errs.New(errs.Invalid, "%s: there is no setting %q; the nearest is %q", where, name, best)
	}
	var all []string
	for _, k := range keys {
		all = append(all, k.Name)
	}
	return errs.New(errs.Invalid, "%s: there is no setting %q; there are %s", where, name, strings.Join(all, ", "))
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diag, row[j] = row[j], min(diag+cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
