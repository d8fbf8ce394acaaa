package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
)

// ident is what makes a deployment this one and no other. It is written once, before anything else.
type ident struct {
	UUID    uuid `json:"uuid"`
	Journal uuid `json:"journal"`
}

type uuid [16]byte

func (u uuid) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(u[:])), nil }

func (u *uuid) UnmarshalText(b []byte) error {
	if len(b) != 32 {
		return errs.New(errs.Corrupt, "%q is no uuid: 32 hexadecimal digits would be one", b)
	}
	_, err := hex.Decode(u[:], b)
	return err
}

func (u uuid) String() string { return hex.EncodeToString(u[:]) }

// asdUUID is the identity of ASD i: derived, so that a folder swapped with another's is noticed even if
// all else is lost.
func (d ident) asdUUID(i int) [16]byte {
	b := binary.LittleEndian.AppendUint32(append([]byte("asd"), d.UUID[:]...), uint32(i))
	h := sha256.Sum256(b)
	return [16]byte(h[:16])
}

const identFile = "deployment.json"

func makeIdent(fs vfs.FS, dir string) (ident, error) {
	var d ident
	rand.Read(d.UUID[:])
	rand.Read(d.Journal[:])
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return d, err
	}
	f, err := fs.Create(filepath.Join(dir, identFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return d, errs.Wrap(errs.IO, err, "cannot write the deployment's identity")
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return d, errs.Wrap(errs.IO, err, "cannot write the deployment's identity")
	}
	return d, syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot open %s", dir)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot sync %s", dir)
	}
	return nil
}

func readIdent(fs vfs.FS, dir string) (ident, error) {
	var d ident
	path := filepath.Join(dir, identFile)
	f, err := fs.Open(path)
	if err != nil {
		return d, errs.Wrap(errs.Absent, err, "this deployment has lost its identity; restore %s from a backup of it", path)
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, _ := f.Read(b)
	if err := json.Unmarshal(b[:n], &d); err != nil {
		return d, errs.Wrap(errs.Corrupt, err, "%s is damaged", path)
	}
	return d, nil
}
