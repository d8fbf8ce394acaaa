package stat

import (
	"bytes"
	"strings"
)

// Merge adds what another process shows, a page in the text format, with a label that says which one it is. What of it
// is no such page is left out: a metric that is missing is found out, one that is wrong is not.
func (p *Page) Merge(text []byte, name, value string) {
	helps := map[string]string{}
	var f *family
	for line := range bytes.Lines(text) {
		s := strings.TrimSpace(string(line))
		switch {
		case strings.HasPrefix(s, "# HELP "):
			metric, help, _ := strings.Cut(s[len("# HELP "):], " ")
			helps[metric] = strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(help)
		case strings.HasPrefix(s, "# TYPE "):
			metric, kind, _ := strings.Cut(s[len("# TYPE "):], " ")
			if f = p.families[metric]; f != nil && f.kind != kind || !goodName(metric) {
				f = nil
				continue
			}
			f = p.family(metric, helps[metric], kind)
		case f == nil || s == "" || s[0] == '#' || !strings.HasPrefix(s, f.name):
		default:
			f.body = labeled(f.body, s, name, value)
		}
	}
}

// labeled appends a sample line with one label more.
func labeled(b []byte, line, name, value string) []byte {
	end := strings.IndexAny(line, "{ ")
	if end < 0 {
		return b
	}
	b = append(append(b, line[:end]...), '{')
	b = label(b, name, value)
	if line[end] == '{' {
		b = append(b, line[end+1:]...)
	} else {
		b[len(b)-1] = '}'
		b = append(b, line[end:]...)
	}
	return append(b, '\n')
}
