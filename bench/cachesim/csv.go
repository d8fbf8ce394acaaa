package cachesim

import (
	"bufio"
	"io"
	"strconv"
	"strings"

	"vstor/dataplane/errs"
)

// Format is how a public trace is written. All are lines of values between commas; a first line of names is left out.
//
//	msr      timestamp, host, disk, Read|Write, offset, size, response time            bytes
//	ali      device, R|W, offset, length, timestamp                                    bytes
//	tencent  timestamp, offset, size, 0|1 (read|write), volume                         sectors of 512 bytes
type Format string

// Formats are those that can be read.
var Formats = []Format{"msr", "ali", "tencent"}

// ReadCSV reads a trace, max requests at most (0: all).
func ReadCSV(name string, r io.Reader, f Format, max int) (*Trace, error) {
	parse, ok := map[Format]func(*reader, *Access) bool{"msr": msr, "ali": ali, "tencent": tencent}[f]
	if !ok {
		return nil, errs.New(errs.Invalid, "there is no trace format %q; msr, ali or tencent would be right", f)
	}
	c := &reader{lines: bufio.NewScanner(r), disks: map[string]uint32{}}
	c.lines.Buffer(make([]byte, 64<<10), 1<<20)
	n := 0
	t := NewTrace(name, func(a *Access) bool {
		for c.err == nil && (max == 0 || n < max) && c.next() {
			if parse(c, a) {
				n++
				return true
			}
			if c.line > 1 && c.err == nil {
				c.err = errs.New(errs.Invalid, "%s, line %d is no %s trace: %.80q", name, c.line, f, c.lines.Text())
			}
		}
		return false
	})
	if c.err == nil && c.lines.Err() != nil {
		c.err = errs.Wrap(errs.IO, c.lines.Err(), "cannot read %s", name)
	}
	if c.err == nil && t.Blocks == 0 {
		c.err = errs.New(errs.Invalid, "%s holds no read of a %s trace", name, f)
	}
	return t, c.err
}

// reader goes through the lines of a trace.
type reader struct {
	lines  *bufio.Scanner
	fields []string
	line   int
	disks  map[string]uint32
	err    error
}

func (c *reader) next() bool {
	if !c.lines.Scan() {
		return false
	}
	c.line++
	c.fields = strings.Split(strings.TrimSpace(c.lines.Text()), ",")
	return true
}

// disk numbers the disks as they come.
func (c *reader) disk(name string) uint32 {
	d, ok := c.disks[name]
	if !ok {
		d = uint32(len(c.disks))
		c.disks[name] = d
	}
	return d
}

// span sets what a byte range covers; false if it is none, or beyond 64 TiB, or of more than 1 GiB.
func (a *Access) span(off, size string, unit uint64) bool {
	o, err := strconv.ParseUint(off, 10, 64)
	n, err2 := strconv.ParseUint(size, 10, 64)
	if err != nil || err2 != nil || o > 64<<40/unit || n > 1<<30/unit {
		return false
	}
	o, n = o*unit, n*unit
	a.Addr = o >> 12
	a.Count = uint32((o+n+4095)>>12 - a.Addr)
	return true
}

func msr(c *reader, a *Access) bool {
	f := c.fields
	if len(f) != 7 || f[3] != "Read" && f[3] != "Write" {
		return false
	}
	a.Disk, a.Write = c.disk(f[1]+"."+f[2]), f[3] == "Write"
	return a.span(f[4], f[5], 1)
}

func ali(c *reader, a *Access) bool {
	f := c.fields
	if len(f) != 5 || f[1] != "R" && f[1] != "W" {
		return false
	}
	a.Disk, a.Write = c.disk(f[0]), f[1] == "W"
	return a.span(f[2], f[3], 1)
}

func tencent(c *reader, a *Access) bool {
	f := c.fields
	if len(f) != 5 || f[3] != "0" && f[3] != "1" {
		return false
	}
	a.Disk, a.Write = c.disk(f[4]), f[3] == "1"
	return a.span(f[1], f[2], 512)
}
