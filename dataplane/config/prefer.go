package config

import (
	"strconv"
	"strings"

	"vstor/dataplane/errs"
)

// What --read-preference may be, beside a list of ASDs.
const (
	ReadQuick = "quick"
	ReadLocal = "local"
)

// preferKey is a word, or ASDs in the order in which they are to be read.
func preferKey() *Key {
	const name = "read-preference"
	return &Key{Name: name, Arg: "quick|local|ASDS",
		Help: "which ASDs are read where several would do, as replicas: the quickest, those whose drives are read here, " +
			"or those first that are named, nearest first, like 4,5,0",
		get: func(c *Config) []string { return []string{c.ReadPreference} },
		set: func(c *Config, words []string) error {
			w, err := oneWord(name, words)
			if err == nil {
				_, err = parseNear(w)
			}
			if err == nil {
				c.ReadPreference = w
			}
			return err
		}}
}

// Near lists the ASDs that are to be read first, the nearest first; none for ReadQuick and ReadLocal.
func (c *Config) Near() []int {
	list, _ := parseNear(c.ReadPreference)
	return list
}

func parseNear(s string) (list []int, err error) {
	if s == ReadQuick || s == ReadLocal {
		return nil, nil
	}
	for word := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 0 || n >= maxASDs {
			return nil, errs.New(errs.Invalid, "read-preference is %.60q; it must be %s, %s, or numbers of ASDs like 4,5,0", s,
				ReadQuick, ReadLocal)
		}
		list = append(list, n)
	}
	return list, nil
}
