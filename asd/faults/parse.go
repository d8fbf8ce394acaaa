// Package faults breaks an ASD on purpose, for tests: its drive (the rules of dio.Faulty) and its links, by
// text that people and scripts can write.
package faults

import (
	"strconv"
	"strings"
	"time"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// Help explains the text that Parse reads.
const Help = `Rules are separated by ";". A rule is "drive" or "link", a fault, and conditions:

  drive fail | torn | misdirect | flip | lose | stall | delay
  link  delay | drop | hang | short | flip

  on=reads|writes|syncs   drive: only these; several are joined by "+"
  off=SIZE len=SIZE       drive: only accesses that touch this range
  nth=N                   the N-th that fits, once; times=N as often from then on
  chance=P                each that fits, with probability P
  time=DURATION           how long a delay takes

"fail" is an IO error, "torn" writes a part and fails, "misdirect" goes to another place, "lose" reports a
write or sync that never was, "stall" and "hang" hold everything until the rules are replaced, "short" moves a
part of what was sent and closes, "drop" closes. No rules take all faults back. Examples:

  drive delay time=50ms on=reads chance=0.1; link flip chance=0.001
  drive fail on=writes`

// Plan is what shall go wrong.
type Plan struct {
	Drive []dio.Rule
	Link  []LinkRule
}

var driveFaults = map[string]dio.Fault{"fail": dio.FailIO, "torn": dio.TornWrite, "misdirect": dio.Misdirect,
	"flip": dio.FlipBit, "lose": dio.LostWrite, "stall": dio.Stall, "delay": dio.Delay}

var linkFaults = map[string]LinkFault{"delay": LinkDelay, "drop": LinkDrop, "hang": LinkHang, "short": LinkShort,
	"flip": LinkFlip}

// Parse reads rules. Errors: Invalid, with what would be right.
func Parse(text string) (Plan, error) {
	var p Plan
	for _, rule := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		words := strings.Fields(rule)
		if len(words) == 0 {
			continue
		}
		if len(words) < 2 {
			return p, errs.New(errs.Invalid, "the rule %q names no fault; \"drive fail\" would be one", rule)
		}
		c, err := parseConditions(words[2:])
		if err != nil {
			return p, err
		}
		drive, isDrive := driveFaults[words[1]]
		link, isLink := linkFaults[words[1]]
		switch {
		case words[0] == "drive" && isDrive:
			p.Drive = append(p.Drive, dio.Rule{Do: drive, On: c.on, Nth: c.nth, Times: c.times, Chance: c.chance,
				Off: c.off, Len: c.len, Delay: c.time})
		case words[0] == "link" && isLink:
			if c.on != 0 || c.len != 0 || c.off != 0 {
				return p, errs.New(errs.Invalid, "the rule %q: on, off and len are for drives", rule)
			}
			p.Link = append(p.Link, LinkRule{Do: link, Nth: c.nth, Times: c.times, Chance: c.chance, Delay: c.time})
		default:
			return p, errs.New(errs.Invalid, "the rule %q: there is no fault %q of a %q; drives have fail, torn, misdirect, "+
				"flip, lose, stall and delay, links have delay, drop, hang, short and flip", rule, words[1], words[0])
		}
	}
	return p, nil
}

type conditions struct {
	on         uint8
	nth, times int
	chance     float64
	off, len   int64
	time       time.Duration
}

func parseConditions(words []string) (conditions, error) {
	var c conditions
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		var err error
		switch key {
		case "on":
			c.on, err = parseOn(value)
		case "nth":
			c.nth, err = strconv.Atoi(value)
		case "times":
			c.times, err = strconv.Atoi(value)
		case "chance":
			c.chance, err = strconv.ParseFloat(value, 64)
		case "off":
			c.off, err = units.ParseSize(value)
		case "len":
			c.len, err = units.ParseSize(value)
		case "time":
			c.time, err = time.ParseDuration(value)
		default:
			return c, errs.New(errs.Invalid, "there is no condition %q; there are on, off, len, nth, times, chance and time", w)
		}
		if err != nil {
			return c, errs.New(errs.Invalid, "the condition %q does not read: %v", w, err)
		}
	}
	if c.nth < 0 || c.times < 0 || !(c.chance >= 0 && c.chance <= 1) || c.time < 0 || c.time > time.Hour {
		return c, errs.New(errs.Invalid, "nth and times count from 0, a chance is from 0 to 1, a time from 0 to 1h")
	}
	if c.nth == 0 && c.chance == 0 {
		c.chance = 1
	}
	return c, nil
}

func parseOn(value string) (on uint8, err error) {
	for _, w := range strings.Split(value, "+") {
		switch w {
		case "reads":
			on |= dio.Reads
		case "writes":
			on |= dio.Writes
		case "syncs":
			on |= dio.Syncs
		default:
			return 0, errs.New(errs.Invalid, "%q is none of reads, writes and syncs", w)
		}
	}
	return on, nil
}
