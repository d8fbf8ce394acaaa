package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"vstor/dataplane/errs"
	"vstor/dataplane/node"
)

// format is that of stored runs. It changes when a figure comes to mean something else, for then two runs must not
// be compared; a figure more is no change.
const format = 1

// checkFiles says before an hour's work, and not behind it, that what was asked for cannot be written.
func checkFiles(opt *Options) error {
	for _, path := range []string{opt.JSON, opt.HTML, opt.Markdown} {
		if path == "" {
			continue
		}
		probe, err := os.CreateTemp(filepath.Dir(path), ".vstor-bench-")
		if err != nil {
			return errs.Wrap(errs.IO, err, "cannot write %s", path)
		}
		probe.Close()
		os.Remove(probe.Name())
	}
	if opt.Markdown == "" {
		return nil
	}
	_, err := belowMarker(opt.Markdown)
	return err
}

// publish ends a run: it writes the files that were asked for and prints what came out.
func (r *Report) publish(opt *Options, out io.Writer) error {
	r.Format, r.Quick, r.Profiled, r.MinJournals = format, opt.Quick, opt.Profile != "", opt.MinJournals
	r.Vstor, r.Command = version(), commandLine(os.Args)
	r.summarize()
	var all []error
	if opt.JSON != "" {
		all = append(all, r.save(opt.JSON))
	}
	all = append(all, r.Write(opt.HTML, opt.Markdown))
	if err := r.Print(out); err != nil { // last: what is printed can be had from the file again
		all = append(all, errs.Wrap(errs.IO, err, "cannot print the results"))
	}
	return errors.Join(all...)
}

// salvage keeps what a run had measured when it was broken off, an hour's work perhaps. Its files go beside those that
// were asked for: those may hold a whole run, which is worth more. The summary, which is what others are shown, is not
// written at all.
func (r *Report) salvage(opt *Options, out io.Writer) error {
	if len(r.Cells) == 0 {
		return nil
	}
	beside := *opt
	beside.JSON, beside.HTML, beside.Markdown = cutName(opt.JSON), cutName(opt.HTML), ""
	if err := r.publish(&beside, out); err != nil {
		return err
	}
	for _, path := range []string{beside.JSON, beside.HTML} {
		if path != "" {
			fmt.Fprintf(out, "what was measured is in %s\n", path)
		}
	}
	return nil
}

// cutName is run-cut.json for run.json.
func cutName(path string) string {
	if path == "" {
		return ""
	}
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "-cut" + ext
}

// Write writes the page and the summary; an empty name: not that one.
func (r *Report) Write(html, markdown string) error {
	var all []error
	if html != "" {
		all = append(all, writeFile(html, r.HTML()))
	}
	if markdown != "" {
		all = append(all, r.writeMarkdown(markdown))
	}
	return errors.Join(all...)
}

func writeFile(path string, b []byte) error {
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return errs.Wrap(errs.IO, err, "cannot write the results")
	}
	return nil
}

// version is vstor's, with the commit where the build knows it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return node.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return node.Version + " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return node.Version
}

// commandLine is a command line as others would type it: folders of this machine mean nothing to them.
func commandLine(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		name, value, isFlag := strings.Cut(a, "=")
		switch {
		case i == 0 || filepath.IsAbs(a):
			out[i] = filepath.Base(a)
		case isFlag && filepath.IsAbs(value):
			out[i] = name + "=" + filepath.Base(value)
		default:
			out[i] = a
		}
	}
	for i, a := range out {
		if strings.ContainsAny(a, " |&;()<>$`\\\"'*?[]{}!#~") {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

func (r *Report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot write the results")
	}
	return writeFile(path, append(b, '\n'))
}

// Load reads a stored run. Errors: IO, Invalid (it is none), Version (it is one of another format).
func Load(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot read the run")
	}
	var probe struct {
		Format *int            `json:"vstor_bench_format"`
		Cells  json.RawMessage `json:"cells"`
	}
	if json.Unmarshal(b, &probe) != nil || probe.Cells == nil {
		return nil, errs.New(errs.Invalid, "%s is no run of `vstor bench`: it takes what `vstor bench --out FILE` wrote",
			path)
	}
	if probe.Format == nil {
		return nil, errs.New(errs.Version, "%s was written by a vstor that gave its runs no format number; this one reads "+
			"format %d: measure again", path, format)
	}
	if *probe.Format != format {
		return nil, errs.New(errs.Version, "%s is a run of format %d, and this vstor reads format %d: take the vstor that "+
			"wrote it, or measure again", path, *probe.Format, format)
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "%s is a run that was damaged", path)
	}
	if len(r.Cells) == 0 {
		return nil, errs.New(errs.Invalid, "%s is a run in which nothing was measured", path)
	}
	r.summarize() // what is made of the cells is made as this version does it
	return r, nil
}
