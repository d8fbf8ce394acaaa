// Command vstor-dump prints what a file of vstor's holds, format by format, for people. It only reads.
//
//	vstor-dump TYPE FILE [OFFSET]    FILE may be "-"; OFFSET is where the thing begins, in bytes
//
// Values out of a database are given as a file of their own. A TYPE it cannot decode it prints in hex.
package main

import (
	"fmt"
	"io"
	"os"

	"vstor/dataplane/units"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) < 2 || len(args) > 3 {
		usage(stderr)
		return 2
	}
	f := formatNamed(args[0])
	if f == nil {
		fmt.Fprintf(stderr, "vstor-dump: there is no type %q\n", args[0])
		usage(stderr)
		return 2
	}
	var off int64
	if len(args) == 3 {
		var err error
		if off, err = units.ParseSize(args[2]); err != nil {
			fmt.Fprintf(stderr, "vstor-dump: the offset: %v\n", err)
			return 2
		}
	}
	if err := f.dump(source{args[1], off, stdin}, stdout); err != nil {
		fmt.Fprintf(stderr, "vstor-dump: %v\n", err)
		return 1
	}
	return 0
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: vstor-dump TYPE FILE [OFFSET]\ntypes:")
	for _, f := range formats() {
		fmt.Fprintf(w, "  %-12s %s\n", f.name, f.help)
	}
}
