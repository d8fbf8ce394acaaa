package bench

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
)

// Profiles of our processes, taken while jobs run. A file each, for `go tool pprof`, and a text with the heads of all:
//
//	DIR/4K-random-read-QD32-cold.vstor-ASDs.asd-3.cpu.pb.gz    job, target, process; in rounds behind the first .2, .3
//	DIR/profiles.txt
//
// Allocations are told of from before to after, so of what happened meanwhile and nothing else. Time that nobody
// computes is told of by the wall clock: of all goroutines, where each is, a hundred times a second.

// profiles are the kinds, by the part of a file's name.
var profiles = map[string]api.Profile{"cpu": api.ProfileCPU, "allocs": api.ProfileAllocs, "wall": api.ProfileWall}

// profilesText is the file with their heads.
const profilesText = "profiles.txt"

// face is a process that tells of itself.
type face struct {
	name   string
	client *api.Client
}

// faced is a target of which processes tell where their time goes: those that answer during a job.
type faced interface{ faces(j Job) []face }

// profileMost is the longest profile that is taken.
const profileMost = time.Minute

// profile takes profiles of a target's processes, from now for about as long as the job; what it returns waits for
// their end and keeps them. One that fails is missing, which is said.
func (b *bench) profile(ctx context.Context, s step, t target, d time.Duration) (keep func() error) {
	of, ok := t.(faced)
	if !ok || b.opt.Profile == "" {
		return func() error { return nil }
	}
	d = min(max(d-time.Second, time.Second), profileMost) // whole seconds, and the end not among them
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed []error
	took, faces := map[string][]byte{}, of.faces(s.job)
	for _, f := range faces {
		for kind, p := range profiles {
			wg.Go(func() {
				content, err := f.client.Profile(ctx, p, d)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = append(failed, err)
					return
				}
				took[profileName(s, f.name, kind)] = content
			})
		}
	}
	return func() error {
		wg.Wait()
		for _, f := range faces {
			f.client.Close()
		}
		for _, err := range failed {
			b.progress.say("  %v", err)
		}
		return keepProfiles(b.opt.Profile, took)
	}
}

// beginProfiles makes the folder, and its text anew.
func beginProfiles(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the folder for profiles")
	}
	return writeFile(filepath.Join(dir, profilesText), nil)
}

// profileName is that of a profile's file.
func profileName(s step, process, kind string) string {
	name := strings.Join([]string{slug(s.job.Name), slug(s.target), process, kind}, ".")
	if s.round > 0 {
		name += fmt.Sprintf(".%d", s.round+1)
	}
	return name + ".pb.gz"
}

// slug is a name as part of a file's.
func slug(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	}), "-")
}

// keepProfiles writes them, and their heads behind those that are there. A job that is done again, since others
// disturbed it, leaves the profiles of its last try, and the heads of both.
func keepProfiles(dir string, took map[string][]byte) error {
	var text bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(took)) {
		p, err := profile.ParseData(took[name])
		if err != nil {
			return errs.Wrap(errs.Corrupt, err, "the profile %s cannot be read", name)
		}
		if err := writeFile(filepath.Join(dir, name), took[name]); err != nil {
			return err
		}
		head(&text, name, p)
	}
	f, err := os.OpenFile(filepath.Join(dir, profilesText), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err == nil {
		_, err = f.Write(text.Bytes())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot write the heads of the profiles")
	}
	return nil
}

// headLen is how many functions a head names.
const headLen = 12

// head writes the functions in which most was counted: in themselves, and with what they called.
func head(w *bytes.Buffer, name string, p *profile.Profile) {
	last := len(p.SampleType) - 1 // time, or bytes; what comes before counts samples
	if last < 0 {
		return
	}
	if i := slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool { return t.Type == "alloc_space" }); i >= 0 {
		last = i
	}
	own, all := map[string]int64{}, map[string]int64{}
	var total int64
	for _, s := range p.Sample {
		v := s.Value[last]
		total += v
		seen := map[string]bool{}
		for i, f := range frames(s) {
			if i == 0 {
				own[f] += v
			}
			if !seen[f] {
				seen[f] = true
				all[f] += v
			}
		}
	}
	fmt.Fprintf(w, "%s: %d %s\n", name, total, p.SampleType[last].Unit)
	most := slices.SortedFunc(maps.Keys(own), func(a, b string) int {
		return cmp.Or(cmp.Compare(own[b], own[a]), strings.Compare(a, b))
	})
	for _, f := range most[:min(headLen, len(most))] {
		share := func(v int64) float64 { return 100 * float64(v) / float64(max(total, 1)) }
		fmt.Fprintf(w, "  %5.1f %%  with callees %5.1f %%  %s\n", share(own[f]), share(all[f]), f)
	}
	w.WriteString("\n")
}

// frames are the functions of a sample, the innermost first.
func frames(s *profile.Sample) (names []string) {
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function != nil {
				names = append(names, line.Function.Name)
			}
		}
	}
	return names
}
