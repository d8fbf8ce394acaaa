// Package units reads and writes sizes and names the way people type them, in one place, so that the
// command, the HTTP API and the configuration agree on what is good and on what they say when it is
// not. Sizes are powers of 1024.
package units

import (
	"strconv"
	"strings"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// MaxVDiskSize is the largest size of a vDisk, in bytes.
const MaxVDiskSize = 64 << 40

// MaxNameLen is the longest name of a vDisk, in bytes.
const MaxNameLen = 64

const sizeForm = "a size is a whole number of bytes, or one followed by k, M, G or T (powers of 1024), like 64k or 10G"

// ParseSize reads a size in bytes: "4096", "64k", "10G", "10GiB". The letter's case does not matter.
// Fractions are refused: they hide what they round to.
func ParseSize(s string) (int64, error) {
	t := strings.TrimSpace(s)
	end := 0
	for end < len(t) && t[end] >= '0' && t[end] <= '9' {
		end++
	}
	if end == 0 {
		return 0, errs.New(errs.Invalid, "%q is not a size: %s", s, sizeForm)
	}
	shift, ok := unitShift(t[end:])
	if !ok {
		return 0, errs.New(errs.Invalid, "%q is not a size: %s", s, sizeForm)
	}
	n, err := strconv.ParseInt(t[:end], 10, 64)
	if err != nil || n > (1<<63-1)>>shift {
		return 0, errs.New(errs.Invalid, "the size %q is too large: sizes end below 8E (2^63 bytes)", s)
	}
	return n << shift, nil
}

func unitShift(unit string) (uint, bool) {
	switch strings.ToLower(unit) {
	case "", "b":
		return 0, true
	case "k", "kib":
		return 10, true
	case "m", "mib":
		return 20, true
	case "g", "gib":
		return 30, true
	case "t", "tib":
		return 40, true
	case "p", "pib":
		return 50, true
	}
	return 0, false
}

// ParseVDiskSize reads the size of a vDisk and checks it as CheckVDiskSize does.
func ParseVDiskSize(s string) (int64, error) {
	n, err := ParseSize(s)
	if err != nil {
		return 0, err
	}
	return CheckVDiskSize(n)
}

// CheckVDiskSize rounds n bytes up to whole blocks of 4 KiB; a vDisk has at least one block and at most
// MaxVDiskSize bytes.
func CheckVDiskSize(n int64) (int64, error) {
	if n <= 0 {
		return 0, errs.New(errs.Invalid, "a vDisk of %d bytes holds nothing: give it a size of at least 4k", n)
	}
	if n > MaxVDiskSize {
		return 0, errs.New(errs.Invalid, "a vDisk holds at most 64T; %s is more", HumanSize(n))
	}
	return ids.Blocks(n) * ids.BlockSize, nil
}

// FormatSize writes n so that ParseSize reads the same number back: "10G", "64k", "4097".
func FormatSize(n int64) string {
	const letters = "kMGTP"
	i := -1
	for n != 0 && n%1024 == 0 && i+1 < len(letters) {
		n /= 1024
		i++
	}
	if i < 0 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n, 10) + letters[i:i+1]
}

// HumanSize writes n for a table: three digits and a unit, rounded, "1.50 GiB".
func HumanSize(n int64) string {
	if n < 1024 && n > -1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	names := [...]string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f := float64(n) / 1024
	i := 0
	for (f >= 1023.5 || f <= -1023.5) && i < len(names)-1 {
		f /= 1024
		i++
	}
	digits := 0
	switch a := max(f, -f); {
	case a < 9.995:
		digits = 2
	case a < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + names[i]
}

// CheckName says whether s may name a vDisk: 1 to 64 letters, digits, dots, underscores and dashes,
// the first neither a dot (it may become a file) nor a dash (it would look like a flag).
func CheckName(s string) error {
	const form = "a name has 1 to 64 letters, digits, '.', '_' or '-', and begins with neither '-' nor '.'"
	if s == "" {
		return errs.New(errs.Invalid, "the name is empty: %s", form)
	}
	if len(s) > MaxNameLen {
		return errs.New(errs.Invalid, "the name %.20q... has %d bytes: %s", s, len(s), form)
	}
	if s[0] == '-' || s[0] == '.' {
		return errs.New(errs.Invalid, "the name %q begins with %q: %s", s, s[:1], form)
	}
	for _, r := range s {
		good := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
		if !good {
			return errs.New(errs.Invalid, "the name %q holds %q: %s", s, r, form)
		}
	}
	return nil
}
