package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// kernelPackage depends on the newest cloud kernel of the Debian release that runs here.
const kernelPackage = "linux-image-cloud-amd64"

// Kernel is an unpacked kernel package.
type Kernel struct {
	Image   string // path of the bootable image
	modules string // folder of the modules
}

// Find returns Debian's cloud kernel from the user's cache; the first time it downloads and unpacks it there,
// which needs apt-get, dpkg-deb and the network. Nothing is installed.
func Find(ctx context.Context) (Kernel, error) {
	if runtime.GOARCH != "amd64" {
		return Kernel{}, fmt.Errorf("guests run Debian's amd64 kernel; this machine is %s", runtime.GOARCH)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Kernel{}, fmt.Errorf("no folder to keep a kernel in: %w", err)
	}
	cache = filepath.Join(cache, "vstor", "guest")
	if k, err := newest(cache); err == nil {
		return k, nil
	}
	if err := download(ctx, cache); err != nil {
		return Kernel{}, err
	}
	return newest(cache)
}

// newest is the last of the kernels in cache.
func newest(cache string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(cache, "linux-image-*", "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return Kernel{}, fmt.Errorf("no kernel lies in %s", cache)
	}
	slices.Sort(images)
	image := images[len(images)-1]
	version := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	return Kernel{image, filepath.Join(image, "..", "..", "lib", "modules", version)}, nil
}

// download puts the kernel's package, unpacked, into cache. It appears there whole or not at all, so that two
// of us may do it at once.
func download(ctx context.Context, cache string) error {
	name, err := dependency(ctx, kernelPackage)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if _, err := output(ctx, work, "apt-get", "download", "-qq", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages, not one", name, len(debs))
	}
	tree := filepath.Join(work, "tree")
	if _, err := output(ctx, work, "dpkg-deb", "-x", debs[0], tree); err != nil {
		return err
	}
	if err := os.Rename(tree, filepath.Join(cache, name)); err != nil {
		if _, found := newest(cache); found != nil {
			return err
		}
	}
	return nil
}

// dependency is the kernel that a package which only points at one depends on.
func dependency(ctx context.Context, pointer string) (string, error) {
	out, err := output(ctx, "", "apt-cache", "depends", "--important", pointer)
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(out, "\n") {
		if _, name, ok := strings.Cut(line, "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return strings.TrimSpace(name), nil
		}
	}
	return "", fmt.Errorf("apt knows no package %s: run apt-get update, on Debian", pointer)
}

// output runs a program and returns what it printed; an error carries that too.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// unpackers are the programs for compressed modules, which newer releases have.
var unpackers = map[string]string{".xz": "xz", ".zst": "zstd"}

// find returns the path of a module, "" if it is built into the kernel. The package has no modules.dep, which
// is made at installation, so modules are found by name and say themselves what they need.
func (k Kernel) find(module string) (string, error) {
	want := strings.ReplaceAll(module, "-", "_") + ".ko"
	var path string
	err := filepath.WalkDir(filepath.Join(k.modules, "kernel"), func(p string, d os.DirEntry, err error) error {
		name := strings.ReplaceAll(d.Name(), "-", "_")
		if ext := filepath.Ext(name); unpackers[ext] != "" {
			name = strings.TrimSuffix(name, ext)
		}
		if err == nil && name == want {
			path = p
			return filepath.SkipAll
		}
		return err
	})
	if err != nil || path != "" {
		return path, err
	}
	builtin, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return "", err
	}
	for _, line := range strings.Fields(string(builtin)) {
		if strings.ReplaceAll(filepath.Base(line), "-", "_") == want {
			return "", nil
		}
	}
	return "", fmt.Errorf("the kernel %s has no module %s", filepath.Base(k.modules), module)
}

// read returns the module at path, unpacked.
func read(path string) ([]byte, error) {
	program := unpackers[filepath.Ext(path)]
	if program == "" {
		return os.ReadFile(path)
	}
	b, err := exec.Command(program, "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("%s -dc %s: %w", program, path, err)
	}
	return b, nil
}

// needs says which modules must be loaded before this one, of which path is where it was found.
func needs(module []byte, path string) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("%s has no .modinfo: it is no kernel module", path)
	}
	b, err := s.Data()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, field := range strings.Split(string(b), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			out = append(out, strings.Split(list, ",")...)
		}
	}
	return out, nil
}
