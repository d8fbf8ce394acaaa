package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What `asd run` and `asd format` refuse, and what they say: the flag or key, what was wrong, what would be right.
// Nothing is opened or made before that.
func TestASDInput(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir) // what is made by mistake would be made here
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tomls := t.TempDir()
	toml := func(text string) string {
		path := filepath.Join(tomls, strconv.Itoa(len(text)), "a.toml")
		os.Mkdir(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "--config=" + path
	}
	short, open := file("short", "abc\n", 0o600), file("open", strings.Repeat("ab", 32)+"\n", 0o644)
	const run = "asd run --data=d --index=i --secret=s --deployment=00112233445566778899aabbccddeeff "
	const listen = run + "--listen=unix:/nowhere/s "
	const format = "asd format --data=d --index=i --deployment=00112233445566778899aabbccddeeff "
	for _, c := range []struct {
		args, env string
		code      int
		says      string
	}{
		{listen + "--id=-1", "", 2, `"-1" for "--id" flag: an ASD's id is a whole number from 0`},
		{listen + "--id=x", "", 2, "an ASD's id is a whole number from 0"},
		{listen + "--id=4294967296", "", 2, "from 0 to 4294967295"},
		{listen, "VSTOR_ASD_ID=-1", 1, "VSTOR_ASD_ID=-1: "},
		{format + "--id=-1", "", 2, "an ASD's id is a whole number"},
		{run + "--listen=unix:", "", 1, `--listen is "unix:", which names no socket; it must be unix:PATH`},
		{run + "--listen=unix:/run/", "", 1, "which names no socket"},
		{run + "--listen=unix:/x --listen=unix:", "", 1, "which names no socket"},
		{run + "--listen=10.0.0.5", "", 1, "which has no port"},
		{run + "--listen=10.0.0.5:", "", 1, "no number from 1"},
		{run + "--listen=10.0.0.5:70000", "", 1, "no number from 1"},
		{run + "--listen=10.0.0.5:0", "", 1, "no number from 1"},
		{listen + "--control=unix:", "", 1, `--control is "unix:"`},
		{run, "", 2, "--secret and --listen are needed"},
		{listen + "--memory=0", "", 1, "--memory is 0; it must be a size above that"},
		{listen + "--memory=-1", "", 1, `--memory: "-1" is not a size`},
		{listen + "--fragment-size=0", "", 1, "--fragment-size is 0"},
		{listen + "--fragment-size=-4M", "", 1, `--fragment-size: "-4M" is not a size`},
		{listen + "--max-connections=0", "", 1, "--max-connections is 0; it must be a whole number from 1"},
		{listen + "--max-connections=-5", "", 1, "--max-connections is -5"},
		{format + "--size=0", "", 1, "--size is 0"},
		{format + "--size=-1", "", 1, `--size: "-1" is not a size`},
		{listen, "", 1, `cannot read the deployment's secret`},
		{listen + "--secret=" + short, "", 1, `of 64 hexadecimal digits: it must be a copy of the file "secret"`},
		{listen + "--secret=" + open, "", 1, `chmod 600 it, or it must be a copy`},
		{listen + toml("id = -1"), "", 1, "a.toml, line 1: id has a value of the wrong kind; write it like id = 7"},
		{listen + toml("\nlisten = 3"), "", 1, `line 2: listen has a value of the wrong kind; write it like listen = ["`},
		{listen + toml("memory = 800"), "", 1, `memory has a value of the wrong kind; write it like memory = "80M"`},
		{listen + toml("allow-faults = \"yes\""), "", 1, "write it like allow-faults = true"},
		{listen + toml("memroy = \"80M\""), "", 1, `line 1: there is no setting "memroy"; there are id, uuid,`},
		{listen + toml("id = "), "", 1, "is not TOML"},
	} {
		code, stdout, stderr := runVstor([]string{c.env}, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.says) || stdout != "" || strings.Contains(stderr, "asdSettings") {
			t.Errorf("%s %s: %d %q; want %d and %q", c.env, c.args, code, stderr, c.code, c.says)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}
