package config

import (
	"slices"
	"testing"
)

func TestCPUs(t *testing.T) {
	for in, want := range map[string]string{"": "", "3": "3", "2,3": "2,3", "4-6": "4,5,6",
		" 1 , 5-5": "1,5", "0-1,0": "0,1,0"} {
		cpus, err := parseCPUs(in)
		if err != nil || formatCPUs(cpus) != want {
			t.Errorf("%q: %v, %v", in, cpus, err)
		}
	}
	for _, in := range []string{"x", "-1", "1-", "3-2", "1024", "1,,2", "0-99999999999", "1;2"} {
		if cpus, err := parseCPUs(in); err == nil {
			t.Errorf("%q: %v", in, cpus)
		}
	}
}

func TestReadPreference(t *testing.T) {
	for _, c := range []struct {
		word string
		near []int
		ok   bool
	}{{"quick", nil, true}, {"local", nil, true}, {"3", []int{3}, true}, {"4, 5,0", []int{4, 5, 0}, true},
		{"", nil, false},
		{"near", nil, false}, {"1,,2", nil, false}, {"-1", nil, false}, {"99999", nil, false}} {
		var cfg Config
		err := KeyNamed(Keys(), "read-preference").set(&cfg, []string{c.word})
		if (err == nil) != c.ok || c.ok && !slices.Equal(cfg.Near(), c.near) {
			t.Errorf("%q: %v, %v", c.word, cfg.Near(), err)
		}
	}
}
