package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// marker parts the summary: what stands above it is the command's, what stands below is people's and stays.
const marker = "<!-- vstor bench writes all that is above this line; below it, write by hand -->"

// handWritten is what a new file has below the marker.
const handWritten = "\n## Where the time goes\n\nNobody has written this yet.\n"

// writeMarkdown writes the summary and keeps what was written by hand. Errors: those of belowMarker, IO.
func (r *Report) writeMarkdown(path string) error {
	below, err := belowMarker(path)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	r.markdown(&b)
	fmt.Fprintf(&b, "%s\n%s", marker, below)
	return replaceFile(path, b.Bytes())
}

// belowMarker is what was written by hand into a summary. Errors: IO, Refused (the file has no marker: it is something
// else).
func belowMarker(path string) (string, error) {
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return handWritten, nil
	case err != nil:
		return "", errs.Wrap(errs.IO, err, "cannot read what the summary is to replace")
	}
	_, kept, ok := strings.Cut(string(old), marker+"\n")
	switch {
	case ok:
		return kept, nil
	case len(bytes.TrimSpace(old)) > 0:
		return "", errs.New(errs.Refused, "%s has no line %q, so `vstor bench` did not write it and does not replace it: "+
			"name another file, or put that line in front of what is to stay", path, marker)
	}
	return handWritten, nil
}

// replaceFile writes beside a file and renames: what was written by hand is in no second place.
func replaceFile(path string, b []byte) error {
	if err := writeFile(path+".new", b); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return errs.Wrap(errs.IO, err, "cannot write the results")
	}
	return nil
}

func (r *Report) markdown(b *bytes.Buffer) {
	fmt.Fprintf(b, "# Benchmarks\n\nMedians of %d rounds of one run. Ratios are to the figure of `%s` in the same round "+
		"unless the goal names another, and medians of the rounds' ratios: what a machine gives drifts within a run. The "+
		"spreads are that of our figure and that of the ratio. Jobs without a goal, and those of two minutes, ran once: "+
		"their spread is a dash.\n",
		r.Rounds, qemu)
	for _, s := range r.caveats() {
		fmt.Fprintf(b, "**%s**\n", s)
	}
	b.WriteString("\n| | |\n|---|---|\n")
	for _, f := range r.facts() {
		fmt.Fprintf(b, "| %s | %s |\n", f[0], cell(f[1]))
	}
	fmt.Fprintf(b, "\nTo repeat it, on a machine that does nothing else:\n\n```\n%s\n```\n", r.commands())
	fmt.Fprintf(b, "\n## The bar\n\n%s\n\n%s\n\n", r.tally(), barsSay)
	writeTable(b, barsHead, r.bars())
	b.WriteString("\n## In figures\n\n")
	writeTable(b, tableHead, r.table())
	fmt.Fprintf(b, "\n## Every target\n\n%s\n\n", everythingSay)
	head, rows := r.everything()
	writeTable(b, head, rows)
	for _, t := range r.tables() {
		if len(t.rows) > 0 {
			fmt.Fprintf(b, "\n## %s\n\n%s\n\n", t.title, t.say)
			writeTable(b, t.head, t.rows)
		}
	}
	b.WriteString("\n## Remarks\n\n")
	for _, line := range r.remarks() {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		fmt.Fprintf(b, "%s* %s\n", indent, strings.TrimSpace(line))
	}
	b.WriteString("\n")
}

// facts are where, when and of what a run was.
func (r *Report) facts() [][2]string {
	out := [][2]string{
		{"machine", fmt.Sprintf("%s, %d cores, %s", r.Machine.CPU, r.Machine.Cores, units.HumanSize(r.Machine.RAM))},
		{"kernel", "Linux " + r.Machine.Kernel},
		{"date", r.Started.UTC().Format(time.DateTime) + " UTC" + r.took()},
		{"vstor", r.Vstor},
		{"tools", r.Machine.Fio + ", " + r.Machine.Qemu},
		{"volume, journal", units.HumanSize(r.VolumeBytes) + ", " + units.HumanSize(r.JournalBytes)},
	}
	for _, f := range [][2]string{{"drive", r.Machine.Drive}, {"ASDs", r.drives()}} {
		if f[1] != "" {
			out = append(out, f)
		}
	}
	return out
}

// drives are the sizes of the ASDs; empty: not known.
func (r *Report) drives() string {
	if r.ASDBytes == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s; in processes of their own, where deleted space rests as long as leases may name it, of "+
		"%s", asdCount, units.HumanSize(r.ASDBytes), units.HumanSize(r.SpreadASDBytes))
}

// took says how long the run was, if it came to its end.
func (r *Report) took() string {
	if r.TookSeconds == 0 {
		return ""
	}
	return ", took " + minutes(time.Duration(r.TookSeconds*float64(time.Second)))
}

// commands repeat the run: from a clone, and just it.
func (r *Report) commands() string {
	from := "make bench"
	switch {
	case r.Quick:
		from = "make bench-quick"
	case strings.Contains(r.Command, " --peers"):
		from = "make bench-peers"
	}
	return from + "        # in a clone, or\n" + r.Command
}

// tally counts goals, the missed ones by name: where we look bad is said first.
func (r *Report) tally() string {
	met, slow, doubtful := 0, 0, 0
	var missed []string
	job := ""
	for _, v := range r.besideVitastor() {
		if v[0] != "" {
			job = v[0]
		}
		switch v[len(v)-1] {
		case "met":
			met++
			if strings.HasSuffix(v[4], slowMark) {
				slow++
			}
		case "MISSED":
			missed = append(missed, fmt.Sprintf("%s on %s (%s of Vitastor's)", job, v[1], v[4]))
		default:
			doubtful++
		}
	}
	for i := range r.Rows {
		switch row := &r.Rows[i]; {
		case row.Goal == 0:
		case row.Met:
			met++
			if row.Slow {
				slow++
			}
		case row.Disturbed || row.Ratio == 0:
			doubtful++
		default:
			missed = append(missed, fmt.Sprintf("%s on %s%s (%s)", row.Job, row.Target, row.what(), row.ratioText()))
		}
	}
	s := fmt.Sprintf("%d of %d goals are met", met, met+doubtful+len(missed))
	if slow > 0 {
		s += fmt.Sprintf(", %d of them against a slow `%s`", slow, qemu)
	}
	s += "."
	if doubtful > 0 {
		s += fmt.Sprintf(" %d have no ratio: disturbed, or not measured.", doubtful)
	}
	if len(missed) > 0 {
		s += " MISSED: " + strings.Join(missed, "; ") + "."
	}
	if say := r.slowSay(); say != "" {
		s += " " + say
	}
	return s
}

func writeTable(b *bytes.Buffer, head []string, rows [][]string) {
	writeRow(b, head)
	b.WriteString(strings.Repeat("|---", len(head)) + "|\n")
	for _, cells := range rows {
		for i, c := range cells {
			if isBad(c) {
				cells[i] = "**" + c + "**"
			}
		}
		writeRow(b, cells)
	}
}

// isBad is true of words in a table that must not be overlooked.
func isBad(s string) bool { return s == "MISSED" || s == "disturbed" }

func writeRow(b *bytes.Buffer, cells []string) {
	for _, c := range cells {
		fmt.Fprintf(b, "| %s ", cell(c))
	}
	b.WriteString("|\n")
}

// cell keeps a text inside its cell.
func cell(s string) string { return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s) }
