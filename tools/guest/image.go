package guest

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript []byte

// busybox is the only program that must be linked statically: it runs before anything else is there.
const busybox = "/bin/busybox"

// Image is an initramfs in the making. Not for use by more than one goroutine.
type Image struct {
	entries map[string]entry // by path in the guest, without the leading slash
	load    []string         // modules, in the order of loading
}

// entry is a file, a folder, a link or a device of the image.
type entry struct {
	mode    uint32 // as in stat
	content []byte // a link's is where it points
	device  uint32 // major and minor, a byte each
}

const (
	modeDir  = 0o040755
	modeFile = 0o100755
	modeLink = 0o120777
	modeChar = 0o020600
)

// NewImage returns an image that boots: busybox, the first program, and what it needs.
func NewImage() (*Image, error) {
	im := &Image{entries: map[string]entry{}}
	b, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("guests need the package busybox-static: %w", err)
	}
	if libs, err := libraries(busybox); err != nil || len(libs) > 0 {
		return nil, fmt.Errorf("%s is not statically linked (%v, %v): install busybox-static", busybox, libs, err)
	}
	im.File("bin/busybox", b)
	im.File("init", initScript)
	im.Dir("dev", "proc", "sys", "run", "tmp", "etc", "mnt", "usr/sbin", "root")
	// The kernel opens this before /dev is mounted.
	im.entries["dev/console"] = entry{mode: modeChar, device: 5<<8 | 1}
	// Scripts run in dash: Debian's busybox prefers its own mke2fs, fstrim and so on, whatever PATH says.
	return im, im.Programs("dash")
}

// Dir adds folders and those above them.
func (im *Image) Dir(names ...string) {
	for _, name := range names {
		for p := path.Clean(strings.TrimPrefix(name, "/")); p != "."; p = path.Dir(p) {
			if _, ok := im.entries[p]; !ok {
				im.entries[p] = entry{mode: modeDir}
			}
		}
	}
}

// File adds an executable file. The image keeps content.
func (im *Image) File(name string, content []byte) {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	im.Dir(path.Dir(name))
	im.entries[name] = entry{mode: modeFile, content: content}
}

// Programs adds programs of this machine, found as a shell of root would, with the libraries they are linked to.
func (im *Image) Programs(names ...string) error {
	for _, name := range names {
		file, err := lookup(name)
		if err != nil {
			return err
		}
		libs, err := libraries(file)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		im.File("usr/sbin/"+filepath.Base(name), b)
		for _, lib := range libs {
			b, err := os.ReadFile(lib)
			if err != nil {
				return err
			}
			im.File(lib, b)
		}
	}
	return nil
}

// lookup finds a program also where only root's PATH leads.
func lookup(name string) (string, error) {
	if file, err := exec.LookPath(name); err == nil {
		return file, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: run `make deps`", name)
}

// libraries lists the shared objects that a program loads, its loader among them; none if it is linked statically.
func libraries(file string) ([]string, error) {
	out, err := exec.Command("ldd", file).CombinedOutput()
	if err != nil {
		if bytes.Contains(out, []byte("not a dynamic executable")) {
			return nil, nil
		}
		return nil, fmt.Errorf("ldd %s: %w: %s", file, err, out)
	}
	var libs []string
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("ldd %s: %s", file, strings.TrimSpace(line))
		}
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				libs = append(libs, word)
			}
		}
	}
	return libs, nil
}

// Modules adds kernel modules and those they need; the guest loads them in this order when it boots.
func (im *Image) Modules(k Kernel, names ...string) error {
	for _, name := range names {
		if err := im.module(k, name, 0); err != nil {
			return err
		}
	}
	im.File("modules", []byte(strings.Join(im.load, "\n")+"\n"))
	return nil
}

func (im *Image) module(k Kernel, name string, depth int) error {
	if depth > 16 {
		return fmt.Errorf("modules need each other in a circle, at %s", name)
	}
	file, err := k.find(name)
	if err != nil || file == "" {
		return err
	}
	target := path.Join("lib/modules", strings.ReplaceAll(name, "-", "_")+".ko")
	if slices.Contains(im.load, "/"+target) {
		return nil
	}
	b, err := read(file)
	if err != nil {
		return err
	}
	deps, err := needs(b, file)
	if err != nil {
		return err
	}
	for _, d := range deps {
		if err := im.module(k, d, depth+1); err != nil {
			return err
		}
	}
	im.File(target, b)
	im.load = append(im.load, "/"+target)
	return nil
}
