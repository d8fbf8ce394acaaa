package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"vstor/dataplane/node"
)

// bugReport turns a panic into a sentence. People get no stack: it goes to a file, and the sentence
// says where that is.
func bugReport(v any) string {
	f, err := os.CreateTemp("", "vstor-bug-*.txt")
	if err != nil {
		return fmt.Sprintf("%v (this is a bug in vstor; its stack could not be kept: %v)", v, err)
	}
	defer f.Close()
	fmt.Fprintf(f, "vstor %s, %s\n%v\n\n%s", node.Version, time.Now().UTC().Format(time.RFC3339), v, debug.Stack())
	return fmt.Sprintf("%v (this is a bug in vstor; the stack is in %s)", v, f.Name())
}

// keepCrashes has the Go runtime write the stacks of an assertion that fails on any goroutine to
// DIR/crash.txt, beside what it prints: recovering there would leave a process that runs on with a
// broken invariant. The function it returns ends that, and removes the file if nothing came of it.
func keepCrashes(dir string) (end func()) {
	path := filepath.Join(dir, "crash.txt")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return func() {} // a convenience: the deployment runs without
	}
	defer f.Close() // the runtime keeps a descriptor of its own
	debug.SetCrashOutput(f, debug.CrashOptions{})
	return func() {
		debug.SetCrashOutput(nil, debug.CrashOptions{})
		if st, err := os.Stat(path); err == nil && st.Size() == 0 {
			os.Remove(path)
		}
	}
}

// fatal ends the process over what a database cannot survive, a manifest that cannot be written say. It is
// called with locks held and on any goroutine: there is nothing to clean up that a restart does not, since
// what was acknowledged is durable. One sentence, no stack: it is no bug.
func fatal(err error) {
	fmt.Fprintln(os.Stderr, "vstor: "+sentence(err))
	os.Exit(exitError)
}
