package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What killed temporary deployments left goes; what runs, is young, is somebody's link or is no such thing stays.
func TestRemoveStale(t *testing.T) {
	parent := t.TempDir()
	make := func(name string, age time.Duration, lock bool) string {
		dir := filepath.Join(parent, name)
		if err := os.MkdirAll(filepath.Join(dir, "asd-0"), 0o700); err != nil {
			t.Fatal(err)
		}
		if lock {
			if err := os.WriteFile(filepath.Join(dir, "lock"), []byte("1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(dir, then, then); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dead := make(temporaryPrefix+"dead", time.Hour, true)
	runs := make(temporaryPrefix+"runs", time.Hour, true)
	keep := []string{
		runs,
		make(temporaryPrefix+"young", 0, true),
		make(temporaryPrefix+"unlocked", time.Hour, false),
		make("something-else", time.Hour, true),
	}
	link := filepath.Join(parent, temporaryPrefix+"link")
	if err := os.Symlink(filepath.Join(parent, "something-else"), link); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(runs, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	removeStale(parent)
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Error("what a killed one left is still there")
	}
	for _, dir := range append(keep, link) {
		if _, err := os.Stat(filepath.Join(dir, "asd-0")); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// Where nothing has direct IO the sentence says what would be right; a parent that does not exist is no parent.
func TestTemporaryDir(t *testing.T) {
	if _, err := temporaryDir([]string{"", filepath.Join(t.TempDir(), "none"), "/proc"}); err == nil ||
		!strings.Contains(err.Error(), "--dir or TMPDIR") {
		t.Errorf("%v", err)
	}
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		if dir, err := temporaryDir([]string{"/dev/shm"}); err == nil {
			os.RemoveAll(dir)
			t.Error("memory is taken for a drive")
		}
		left, _ := filepath.Glob("/dev/shm/" + temporaryPrefix + "*")
		if len(left) > 0 {
			t.Errorf("%v is left", left)
		}
	}
}
