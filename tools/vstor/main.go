// Command vstor is distributed block storage: it runs a deployment and talks to running ones.
// `vstor help` lists what it does.
package main

import (
	"os"

	"vstor/dataplane/config"
)

func main() {
	a := &app{stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(), start: startAny,
		manager: manager{inherit: config.Inherit, tell: config.NewNotifier()}}
	os.Exit(a.run(os.Args[1:]))
}
