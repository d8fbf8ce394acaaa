package node

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
)

func TestSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), secretFile)
	if err := os.WriteFile(path+".new", []byte("left by a crash"), 0o644); err != nil {
		t.Fatal(err)
	}
	made, err := haveSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := haveSecret(path)
	if err != nil || !bytes.Equal(made, again) {
		t.Fatal("another secret", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st, err)
	}
	// What cannot be looked at is not absent.
	if _, err := haveSecret(filepath.Join(path, "x")); errs.Of(err) != errs.IO {
		t.Fatal(err)
	}
}

// With a damaged identity a check goes on with the one that the drives tell, says so and writes nothing.
func TestFsckFindsIdentity(t *testing.T) {
	v, _ := twoDisks(t)
	v.down(true, false)
	path := "/d/" + identFile
	f, err := v.host.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.Write([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err = f.Close(); err != nil {
		t.Fatal(err)
	}
	if r := v.fsck(FsckOptions{Data: true}); r.Found != 1 || !strings.Contains(r.Findings[0], "the next start") {
		t.Fatalf("%+v", r)
	}
	if _, err := RebuildIndex(context.Background(), v.config(), v.host, 1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := readIdent(v.host.fs, "/d"); errs.Of(err) != errs.Corrupt {
		t.Fatal("a check wrote the identity", err)
	}
	v.start(false)
	v.check()
	v.down(true, false)
	v.mustBeWhole("after a start wrote the identity")
}
