// Package lsm is what our Pebble databases have in common: how they take rot, and how they take a full
// file system. Pebble checks every block and log record, and then does one of three things that we cannot
// use: it ends the process with a stack (damage that it finds while it compacts, a manifest or log that it
// cannot write), it goes on as if the rest had never been written (a record of manifest or log that fails
// its checksum is the end of the log), or it tries again at once, for ever.
//
//	guard.go   Guard: stands between Pebble and its files, and between Pebble and its logger
//	files.go   the files it watches: log and manifest
//	space.go   the file system's free space, and a ballast to give up when it is gone
//	scan.go    Inspect: tells a torn tail from rot, before Pebble changes anything
package lsm
