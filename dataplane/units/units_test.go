package units

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"vstor/dataplane/errs"
)

func TestParseSize(t *testing.T) {
	good := map[string]int64{
		"0": 0, "1": 1, "4096": 4096, "64k": 64 << 10, "64K": 64 << 10, "10G": 10 << 30, "10GiB": 10 << 30,
		"3m": 3 << 20, "64T": 64 << 40, "7b": 7, " 5k ": 5 << 10, "7P": 7 << 50,
	}
	for s, want := range good {
		if n, err := ParseSize(s); err != nil || n != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", s, n, err, want)
		}
	}
	for _, s := range []string{"", "G", "10X", "-1", "1.5G", "10 G", "10GB", "0x10", "99999999999999999999", "9000P"} {
		n, err := ParseSize(s)
		if errs.Of(err) != errs.Invalid {
			t.Errorf("ParseSize(%q) = %d, %v; want it refused as invalid", s, n, err)
		}
	}
}

func TestVDiskSize(t *testing.T) {
	for n, want := range map[int64]int64{1: 4096, 4096: 4096, 4097: 8192, 64 << 40: 64 << 40} {
		if got, err := CheckVDiskSize(n); err != nil || got != want {
			t.Errorf("CheckVDiskSize(%d) = %d, %v; want %d", n, got, err, want)
		}
	}
	for _, n := range []int64{0, -5, 64<<40 + 1} {
		if got, err := CheckVDiskSize(n); err == nil {
			t.Errorf("CheckVDiskSize(%d) = %d; want it refused", n, got)
		}
	}
}

func TestFormatReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<62).Draw(t, "n") &^ (1<<rapid.IntRange(0, 61).Draw(t, "shift") - 1)
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			t.Fatalf("%d is written %q, which reads %d, %v", n, FormatSize(n), got, err)
		}
	})
}

func TestHumanSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 10 << 30: "10.0 GiB", 1<<20 - 1: "1.00 MiB",
		100 << 20: "100 MiB", 1<<63 - 1: "8.00 EiB", -2048: "-2.00 KiB",
	} {
		if got := HumanSize(n); got != want {
			t.Errorf("HumanSize(%d) = %q; want %q", n, got, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, s := range []string{"a", "demo", "vm-1.disk_0", "0", strings.Repeat("x", 64)} {
		if err := CheckName(s); err != nil {
			t.Errorf("CheckName(%q) = %v", s, err)
		}
	}
	for _, s := range []string{"", "-a", ".a", "a/b", "a b", "ä", "a@b", strings.Repeat("x", 65), "a\x00"} {
		if errs.Of(CheckName(s)) != errs.Invalid {
			t.Errorf("CheckName(%q) = %v; want it refused as invalid", s, CheckName(s))
		}
	}
}
