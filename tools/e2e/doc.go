// Package e2e holds the tests that run the real command with real clients: kill -9 under load, fio with
// verification, lost drives. They need the tag e2e and VSTOR, the path of the binary; `make e2e` gives both.
package e2e
