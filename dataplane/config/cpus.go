package config

import (
	"strconv"
	"strings"

	"vstor/dataplane/errs"
)

const maxCPU = 1023 // what an affinity mask holds

func cpusKey() *Key {
	const name = "loop-cpus"
	return &Key{Name: name, Arg: "CPUS",
		Help: "CPUs that the IO loops keep to, one each in turn, a router's from the last on, like 2,3 or 4-7; " +
			"default: the kernel decides",
		get: func(c *Config) []string {
			if len(c.LoopCPUs) == 0 {
				return nil
			}
			return []string{formatCPUs(c.LoopCPUs)}
		},
		set: func(c *Config, words []string) error {
			w, err := oneWord(name, words)
			if err != nil {
				return err
			}
			c.LoopCPUs, err = parseCPUs(w)
			return err
		}}
}

// parseCPUs reads a list of numbers and ranges; the empty list is none.
func parseCPUs(s string) (cpus []int, err error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	bad := errs.New(errs.Invalid, "loop-cpus is %q; it must name CPUs from 0 to %d, like 2,3 or 4-7", s, maxCPU)
	for part := range strings.SplitSeq(s, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 0 || b < a || b > maxCPU {
			return nil, bad
		}
		for c := a; c <= b; c++ {
			cpus = append(cpus, c)
		}
	}
	return cpus, nil
}

func formatCPUs(cpus []int) string {
	words := make([]string, len(cpus))
	for i, c := range cpus {
		words[i] = strconv.Itoa(c)
	}
	return strings.Join(words, ",")
}
