package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	toml "github.com/pelletier/go-toml/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/node"
	"vstor/dataplane/units"
)

// asdNumber is the value of --id.
type asdNumber uint32

func (n *asdNumber) String() string { return strconv.FormatUint(uint64(*n), 10) }
func (n *asdNumber) Type() string   { return "N" }
func (n *asdNumber) Set(word string) error {
	v, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return fmt.Errorf("an ASD's id is a whole number from 0 to %d", uint32(1<<32-1))
	}
	*n = asdNumber(v)
	return nil
}

// checkNumbers reads the sizes and looks at what is no word, before anything is opened.
func (s *asdSettings) checkNumbers(o *node.ASDOptions) (err error) {
	if o.Memory, err = flagSize("memory", s.Memory); err != nil {
		return err
	}
	if o.Fragment, err = flagSize("fragment-size", s.Fragment); err != nil {
		return err
	}
	if s.MaxConns < 1 {
		return errs.New(errs.Invalid, "--max-connections is %d; it must be a whole number from 1", s.MaxConns)
	}
	for _, addr := range s.Listen {
		if err := checkListen("listen", addr); err != nil {
			return err
		}
	}
	if s.Control != "" {
		return checkListen("control", s.Control)
	}
	return nil
}

// flagSize reads a size that must be something.
func flagSize(flag, word string) (int64, error) {
	n, err := units.ParseSize(word)
	if err != nil {
		return 0, errs.New(errs.Invalid, "--%s: %v", flag, err)
	}
	if n == 0 {
		return 0, errs.New(errs.Invalid, "--%s is 0; it must be a size above that, like 64M", flag)
	}
	return n, nil
}

func checkListen(flag, addr string) error {
	bad := func(why string) error {
		return errs.New(errs.Invalid, "--%s is %.100q, %s; it must be unix:PATH, like unix:/run/asd-7.sock, or HOST:PORT, "+
			"like 10.0.0.5:7007", flag, addr, why)
	}
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		if strings.TrimSpace(path) == "" || strings.HasSuffix(path, "/") {
			return bad("which names no socket")
		}
		return nil
	}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(addr, "tcp:"))
	if err != nil {
		return bad("which has no port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad("whose port is no number from 1 to 65535")
	}
	return nil
}

// tomlSentence names the key that is wrong; the library names our structs.
func tomlSentence(file string, err error, names []string) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		e := &unknown.Errors[0]
		row, _ := e.Position()
		return errs.New(errs.Invalid, "%s, line %d: there is no setting %q; there are %s", file, row,
			strings.Join(e.Key(), "."), strings.Join(names, ", "))
	}
	var wrong *toml.DecodeError
	if !errors.As(err, &wrong) {
		return errs.New(errs.Invalid, "%s cannot be read: %v", file, err)
	}
	row, column := wrong.Position()
	if key := strings.Join(wrong.Key(), "."); key != "" {
		return errs.New(errs.Invalid, "%s, line %d: %s has a value of the wrong kind; write it like %s", file, row, key,
			asdExample(key))
	}
	return errs.New(errs.Invalid, "%s, line %d, column %d is not TOML: %v", file, row, column, wrong)
}

// asdExample is how a setting is written in TOML.
func asdExample(key string) string {
	switch key {
	case "id", "max-connections":
		return key + " = 7"
	case "listen":
		return key + ` = ["unix:/run/asd-7.sock"]`
	case "allow-faults", "force":
		return key + " = true"
	case "memory", "fragment-size", "size":
		return key + ` = "80M"`
	}
	return key + ` = "..."`
}
