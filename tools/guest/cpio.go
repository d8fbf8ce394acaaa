package guest

import (
	"bufio"
	"fmt"
	"os"
	"slices"
)

// WriteFile writes the image as the kernel reads it, a cpio archive of the form "newc": per entry a header of
// ASCII hex fields, the name and the content, each padded to four bytes,
//
//	"070701" inode mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize check
//	   6       8    8    8   8    8     8    8      8        8         8         8        8       8
//	name \0 pad   content pad
//
// and at the end an entry named TRAILER!!!. It is not compressed: that would cost more time than it saves.
func (im *Image) WriteFile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := &archive{w: bufio.NewWriterSize(f, 1<<20)}
	names := make([]string, 0, len(im.entries))
	for n := range im.entries {
		names = append(names, n)
	}
	slices.Sort(names) // a folder comes before what is in it
	for i, n := range names {
		w.entry(n, i+1, im.entries[n])
	}
	w.entry("TRAILER!!!", 0, entry{})
	if err := w.w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// archive writes entries; its writer keeps the first error.
type archive struct {
	w   *bufio.Writer
	off int64
}

func (a *archive) entry(name string, inode int, e entry) {
	a.put([]byte(fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		inode, e.mode, 0, 0, 1, 0, len(e.content), 0, 0, e.device>>8, e.device&0xff, len(name)+1, 0)))
	a.put(append([]byte(name), 0))
	a.pad()
	a.put(e.content)
	a.pad()
}

func (a *archive) put(b []byte) {
	a.off += int64(len(b))
	a.w.Write(b)
}

func (a *archive) pad() {
	for a.off%4 != 0 {
		a.put([]byte{0})
	}
}
