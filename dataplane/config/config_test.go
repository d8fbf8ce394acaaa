package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

var machine = Machine{FreeSpace: 400 << 30, RAM: 24 << 30, Cores: 4}

func complete(t *testing.T, values map[string][]string) (Config, error) {
	t.Helper()
	c := Default()
	c.Dir = "/d"
	if err := c.Apply(Source{Name: "flags", Values: values}); err != nil {
		return c, err
	}
	if err := c.Complete(machine); err != nil {
		return c, err
	}
	return c, c.Validate()
}

func TestDefaults(t *testing.T) {
	c, err := complete(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.ASDs != 6 || c.Nodes != 6 || c.Loops != 2 || c.Memory != 1<<30 || c.Journal != 1<<30 {
		t.Errorf("defaults are %+v", c)
	}
	if want := int64(400<<30) / 4 / 6 / (1 << 20) * (1 << 20); c.ASDSize != want {
		t.Errorf("an ASD takes %d of 400 GiB free, want %d", c.ASDSize, want)
	}
	if !reflect.DeepEqual(c.Policies, DefaultPolicies()) {
		t.Errorf("policies are %v", c.Policies)
	}
	c = Default()
	c.Complete(Machine{FreeSpace: 1 << 50, RAM: 1 << 30, Cores: 1})
	if c.ASDSize != 64<<30 || c.Memory != 128<<20 || c.Loops != 1 {
		t.Errorf("on a large disk and a small machine: %+v", c)
	}
}

// Bad settings are refused with a sentence that names the setting and what would be right.
func TestRefusals(t *testing.T) {
	cases := []struct {
		key, word string
		says      string
	}{
		{"asds", "0", "whole number from 1"},
		{"asds", "six", "whole number"},
		{"asds", "5000", "from 1 to 1024"},
		{"asds", "3", "no default policy fits 3 ASDs"},
		{"asd-size", "10X", "powers of 1024"},
		{"asd-size", "1M", "from 64M"},
		{"nodes", "7", "number of ASDs, 6"},
		{"nodes", "2", "no default policy fits"},
		{"policy", "8,2,9,1", "10 fragments with at most 1 on a node; 6 ASDs on 6 nodes have room for 6"},
		{"policy", "4,2,3,1", "from k to k+m"},
		{"policy", "4,2,7,1", "from k to k+m"},
		{"policy", "0,2,2,1", "no data fragment"},
		{"policy", "4,2,5,0", "no fragment on a node"},
		{"policy", "4,2", "k,m,c,x"},
		{"policy", "a,b,c,d", "k,m,c,x"},
		{"policy", "200,100,250,1", "255 fragments"},
		{"memory", "1k", "from 64M"},
		{"journal", "4k", "from 64M"},
		{"sco-size", "1G", "to 256M"},
		{"block-cache", "1k", "0 (none), or from 2M to 512M"},
		{"block-cache", "100G", "0 (none), or from 2M"},
		{"block-cache-ssd", "1M", "0 (none), or from 128M"},
		{"block-cache-block", "48k", "32k, 64k, 128k or 256k"},
		{"block-cache-quota", "some", "block-cache-quota"},
		{"sco-size", "5000001", "multiple of 4k"},
		{"loops", "1000", "from 1 to 256"},
		{"stall-timeout", "soon", "like 60s"},
		{"stall-timeout", "-5s", "0 (wait for ever)"},
		{"nbd-listen", "10809", "address with a port"},
		{"processes", "perhaps", "true or false"},
		{"asd-sise", "8G", `nearest is "asd-size"`},
		{"frobnication", "8G", "there are asds, asd-size"},
	}
	for _, c := range cases {
		_, err := complete(t, map[string][]string{c.key: {c.word}})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s=%s: %v; want a sentence with %q", c.key, c.word, err, c.says)
		}
	}
	c := Default()
	if err := c.Complete(Machine{FreeSpace: 1 << 30}); errs.Of(err) != errs.Full {
		t.Errorf("1 GiB free: %v", err)
	}
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct{ x, asds, nodes, want int }{
		{1, 6, 6, 6}, {1, 6, 3, 3}, {2, 6, 3, 6}, {2, 7, 3, 6}, {3, 7, 3, 7}, {4, 1, 1, 1}, {9, 10, 2, 10},
	} {
		if got := places(layout.Policy{K: 1, X: uint8(c.x)}, c.asds, c.nodes); got != c.want {
			t.Errorf("x=%d %d ASDs %d nodes: %d places, want %d", c.x, c.asds, c.nodes, got, c.want)
		}
	}
}

// Every key reads back what it writes, through TOML, and has a flag, an argument and a help text.
func TestKeysRoundTrip(t *testing.T) {
	given := map[string][]string{
		"asds": {"12"}, "asd-size": {"300M"}, "nodes": {"4"}, "policy": {"4,2,5,2", "2,2,3,1"}, "sco-size": {"16M"},
		"fragment-size": {"1M"}, "memory": {"100M"}, "journal": {"64M"}, "nbd-listen": {"127.0.0.1:1"},
		"api-listen": {"[::]:2"}, "max-connections": {"9"}, "loops": {"3"}, "stall-timeout": {"1m0s"}, "processes": {"true"},
		"block-cache": {"64M"}, "block-cache-ssd": {"1G"}, "block-cache-block": {"32k"},
		"block-cache-quota": {"0"},
		"asd-memory":        {"96M"}, "no-restart": {"true"}, "allow-faults": {"true"}, "plain-io": {"true"},
		"short-circuit": {"off"}, "read-preference": {"4,5,0"},
		"nbd-tls": {"optional"}, "nbd-tls-dir": {"/etc/vstor/tls"}, "nbd-tls-verify-peer": {"true"},
		"loop-cpus": {"1,2"}, "loop-spin": {"off"},
		"fragment-cache": {"10G"}, "fragment-cache-on-read": {"true"}, "fragment-cache-quota": {"1G"},
		"edge-memory": {"300M"}, "location-cache": {"8M"},
	}
	for _, k := range Keys() {
		if given[k.Name] == nil || k.Help == "" || (k.Arg == "" && k.Shape != Bool) {
			t.Errorf("the key %s lacks a help text, or a value in this test", k.Name)
		}
	}
	b, err := FormatTOML("a\nb", given)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseTOML("x", b)
	if err != nil || !reflect.DeepEqual(s.Values, given) {
		t.Fatalf("%v\n%s\nreads %v", err, b, s.Values)
	}
	c := Default()
	if err := c.Apply(s); err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		if !reflect.DeepEqual(k.Get(&c), given[k.Name]) {
			t.Errorf("%s was set to %v and is %v", k.Name, given[k.Name], k.Get(&c))
		}
	}
}

func TestSources(t *testing.T) {
	env := FromEnv([]string{"VSTOR_ASDS=8", "VSTOR_DIR=/x", "VSTOR_POLICY=4,2,5,1 2,2,3,1", "VSTOR_MEMORY=", "HOME=/root"})
	want := map[string][]string{"asds": {"8"}, "policy": {"4,2,5,1", "2,2,3,1"}}
	if !reflect.DeepEqual(env.Values, want) {
		t.Errorf("the environment gives %v", env.Values)
	}
	s, err := ParseTOML("x", []byte("asds = 8\nprocesses = false\nmemory = \"1G\"\n"))
	if err != nil || s.Values["asds"][0] != "8" || s.Values["memory"][0] != "1G" {
		t.Errorf("%v %v", s, err)
	}
	for text, says := range map[string]string{
		"asds = ":        "not TOML",
		"azds = 3":       `nearest is "asds"`,
		"asds = 1.5":     "neither a word nor a number",
		"policy = [1]":   `policy = ["4,2,5,1"`,
		"[asds]\nx = 1":  "neither a word nor a number",
		"[router]\nx= 1": "no setting",
	} {
		if _, err := ParseTOML("x.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v; want %q", text, err, says)
		}
	}
	if s, err := FromFile(filepath.Join(t.TempDir(), "none")); err != nil || len(s.Values) != 0 {
		t.Errorf("a missing file: %v %v", s, err)
	}
	path := filepath.Join(t.TempDir(), "a.toml")
	os.WriteFile(path, []byte("journal = \"2G\""), 0o600)
	if s, err := FromFile(path); err != nil || s.Values["journal"][0] != "2G" {
		t.Errorf("%v %v", s, err)
	}
}

func FuzzParseTOML(f *testing.F) {
	f.Add([]byte("asds = 8\npolicy = [\"4,2,5,1\"]"))
	f.Add([]byte("stall-timeout = \"5m\""))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseTOML("x", b)
		if err != nil {
			return
		}
		c := Default()
		if c.Apply(s) != nil || c.Complete(machine) != nil {
			return
		}
		c.Validate()
	})
}
