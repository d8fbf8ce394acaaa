package bench

import (
	"fmt"
	"slices"
)

// barsHead names the columns of the table of bars.
var barsHead = []string{"job", "of", embedded, local, processes, single}

const barsSay = "The ratios in one place, each with the bar it should reach; cached reads stand under the deployment " +
	"that has the cache."

// bars is a line for each job, figure and yardstick that has a bar, with a column for each deployment.
func (r *Report) bars() (rows [][]string) {
	var lines []string
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Goal == 0 {
			continue
		}
		line := []string{row.Job + row.what(), row.yardstick(), "-", "-", "-", "-"}
		at := slices.Index(lines, line[0]+line[1])
		if at < 0 {
			at = len(lines)
			lines, rows = append(lines, line[0]+line[1]), append(rows, line)
		}
		rows[at][barColumn(row.Target)] = row.barText()
	}
	for _, v := range r.besideVitastor() {
		if v[0] != "" {
			rows = append(rows, []string{v[0], "Vitastor", "-", "-", "-", "-"})
		}
		rows[len(rows)-1][barColumn(v[1])] = marked(v[4]+" ("+v[5]+")", v[6])
	}
	return rows
}

// barColumn is that of a target's deployment.
func barColumn(target string) int {
	switch target {
	case local:
		return 3
	case processes, cachedASDs:
		return 4
	case single:
		return 5
	}
	return 2
}

// barText is a ratio, its bar, and what is to be said of the two.
func (row *Row) barText() string {
	sign := ">="
	if row.Figure.less() {
		sign = "<="
	}
	_, verdict := row.verdict()
	return marked(fmt.Sprintf("%s (%s %.2f)", row.ratioText(), sign, row.Goal), verdict)
}

// marked sets off what is not met.
func marked(text, verdict string) string {
	if verdict == "met" {
		return text
	}
	return text + " **" + verdict + "**"
}
