//go:build e2e

package e2e

import (
	"bytes"
	"context"
	bin "encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"vstor/bench/nbdc"
	"vstor/dataplane/api"
)

// Attacks on the NBD server, all on the vDisk and the loop of a bystander whose service must go on. What is
// counted is asserted exactly, memory with room to spare, time hardly: it is printed.

const (
	attackConns  = 12000 // --max-connections
	idleConns    = 10000
	mutes        = 10000    // that never finish a handshake
	slowConns    = 100      // readers, and writers
	floodLength  = 64 << 10 // requests
	attackedData = 96 << 20 // bytes: what slow readers ask for must be more than zeros, which take no memory
	ownBlocks    = 256      // of the bystander, behind that
	biggestIO    = 32 << 20
	attackSpan   = 3 * time.Second  // of each attack, if it has no end of its own
	slowSpan     = 14 * time.Second // beyond the ten after which silence is not borne any more
	plateau      = 128 << 20        // bytes that the process may grow by when attacks come again
	slowest      = 10 * time.Second // that a request of the bystander may take
)

// VSTOR_ATTACKS is how often the attacks that take most memory come again.
func TestLimitsUnderAttack(t *testing.T) {
	a := newAttack(t)
	a.run("none", nothing)
	a.run("10,000 idle", a.idle)
	a.run("10,000 idle, 10,000 mute", a.mutes)
	a.run("slow readers", a.slowReaders)
	a.run("slow writers", a.slowWriters)
	a.run("64k requests, no reader", a.flood)
	// By now every pool was used as far as an attack gets: what the same attacks take again is a leak.
	full := a.resident()
	a.slowFor = attackSpan
	for range number("VSTOR_ATTACKS", 1) {
		a.run("10,000 and 10,000 again", a.mutes)
		a.run("slow readers again", a.slowReaders)
		if now := a.resident(); now > full+plateau {
			t.Errorf("%d MiB resident, %d MiB after the same attacks again", full>>20, now>>20)
		}
	}
	a.print()
	a.verify()
	a.stop()
}

func TestPlainLimitsUnderAttack(t *testing.T) {
	a := newAttack(t, "--plain-io")
	a.run("none", nothing)
	a.run("10,000 idle", a.idle)
	a.print()
	a.verify()
	a.stop()
}

func nothing() int {
	time.Sleep(attackSpan)
	return 0
}

// newAttack is a deployment with a vDisk full of data.
func newAttack(t *testing.T, args ...string) *attack {
	t.Helper()
	raiseFiles(t)
	args = append(args, "--memory", "1G", "--max-connections", strconv.Itoa(attackConns))
	a := &attack{deployment: newDeployment(t, append(args, small...)...), slowFor: slowSpan}
	a.startWithFewFiles()
	a.vstor("vdisk", "create", "demo", "--size", "256M")
	a.fill()
	m, err := a.memory()
	if err != nil {
		t.Fatal(err)
	}
	a.bound = m.PoolBytes + m.AllowanceBytes
	return a
}

// attack is a deployment under attack, and what was seen of it.
type attack struct {
	*deployment
	bound   int64         // bytes that the process may have resident
	slowFor time.Duration // how long the slow go on
	rows    []attackRow
}

type attackRow struct {
	name                  string
	held                  int
	before, during, after int64 // bytes resident
	reads, writes         []time.Duration
}

// raiseFiles lets this process hold idleConns and what the handshakes need beside them.
func raiseFiles(t *testing.T) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	const need = attackConns + 2000
	l.Cur, l.Max = max(l.Cur, need), max(l.Max, need)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Skipf("SKIPPED: %d descriptors are needed in a process, which this user may not have: %v", need, err)
	}
}

// startWithFewFiles starts vstor with the soft limit that a login shell or systemd gives, which is too low: vstor
// has to raise its own.
func (a *attack) startWithFewFiles() {
	a.t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		a.t.Fatal(err)
	}
	few := l
	few.Cur = 1024
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		a.t.Fatal(err)
	}
	a.start()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		a.t.Fatal(err)
	}
}

func (a *attack) memory() (api.Memory, error) {
	c := api.NewClient(a.dir)
	defer c.Close()
	return c.Memory(context.Background())
}

// resident is what the kernel counts for vstor now, in bytes; 0 if it has ended.
func (a *attack) resident() int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "VmRSS:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// metric is a figure of the deployment.
func (a *attack) metric(name string) int {
	a.t.Helper()
	for _, l := range strings.Split(a.get("/metrics"), "\n") {
		if v, ok := strings.CutPrefix(l, name+" "); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				a.t.Fatal(err)
			}
			return int(n)
		}
	}
	a.t.Fatalf("there is no metric %s", name)
	return 0
}

// until waits for a metric to become want.
func (a *attack) until(name string, want int) {
	a.t.Helper()
	for end := time.Now().Add(time.Minute); a.metric(name) != want; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			a.t.Fatalf("%s is %d after a minute, not %d", name, a.metric(name), want)
		}
	}
}

// fill writes what slow readers ask for.
func (a *attack) fill() {
	a.t.Helper()
	c, err := a.dial("demo")()
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 1<<20)
	for off := int64(0); off < attackedData; off += int64(len(p)) {
		attackData(p, off)
		if err := c.Write(p, off, 0); err != nil {
			a.t.Fatal(err)
		}
	}
}

// verify: the attacks changed nothing.
func (a *attack) verify() {
	a.t.Helper()
	c, err := a.dial("demo")()
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close()
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < attackedData; off += int64(len(got)) {
		attackData(want, off)
		if err := c.Read(got, off); err != nil || !bytes.Equal(got, want) {
			a.t.Fatalf("the MiB at %d is not what was written before the attacks, or %v", off, err)
		}
	}
}

// attackData is what stands at off, a multiple of 8, in the first attackedData bytes.
func attackData(p []byte, off int64) {
	for i := 0; i < len(p); i += 8 {
		bin.LittleEndian.PutUint64(p[i:], uint64(off+int64(i))*0x9e3779b97f4a7c15+1)
	}
}

// run does one attack, which returns how many connections it held, next to a bystander.
func (a *attack) run(name string, do func() int) {
	a.t.Helper()
	a.until("vstor_nbd_connections", 0)
	row := attackRow{name: name, before: a.resident()}
	watch := a.watch()
	stop := make(chan struct{})
	var b bystander
	var wg sync.WaitGroup
	c, err := a.dial("demo")()
	if err != nil {
		a.t.Fatal(err)
	}
	wg.Go(func() { b.run(c, stop) })
	row.held = do()
	close(stop)
	wg.Wait()
	row.during = watch()
	if err := c.Close(); err != nil {
		a.t.Error(err)
	}
	a.until("vstor_nbd_connections", 0)
	row.after = a.resident()
	row.reads, row.writes = b.reads, b.writes
	a.rows = append(a.rows, row)
	if b.err != nil || len(b.reads) == 0 {
		a.t.Errorf("%s: the bystander: %v after %d requests", name, b.err, 2*len(b.reads))
	}
	if worst := max(percentile(b.reads, 100), percentile(b.writes, 100)); worst > slowest {
		a.t.Errorf("%s: a request of the bystander took %v", name, worst)
	}
	if row.during > a.bound || row.after > a.bound {
		a.t.Errorf("%s: %d MiB resident, %d MiB afterwards; all pools and the allowance are %d MiB", name,
			row.during>>20, row.after>>20, a.bound>>20)
	}
}

// watch looks at the resident memory until the function that it returns is called, which says what the most was.
func (a *attack) watch() func() int64 {
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		n := a.resident()
		for {
			select {
			case <-stop:
				most <- n
				return
			case <-time.After(100 * time.Millisecond):
				n = max(n, a.resident())
			}
		}
	}()
	return func() int64 { close(stop); return <-most }
}

// bystander does one 4 KiB request at a time and trusts nobody.
type bystander struct {
	reads, writes []time.Duration
	err           error
}

func (b *bystander) run(c *nbdc.Conn, stop chan struct{}) {
	got, want := make([]byte, 4096), make([]byte, 4096)
	rnd := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for n := uint64(0); b.err == nil; n++ {
		select {
		case <-stop:
			return
		default:
		}
		off := attackedData + rnd.Int64N(ownBlocks)*4096
		bin.LittleEndian.PutUint64(want, rnd.Uint64())
		bin.LittleEndian.PutUint64(want[4088:], n)
		start := time.Now()
		b.err = c.Write(want, off, 0)
		b.writes = append(b.writes, time.Since(start))
		if b.err != nil {
			return
		}
		start = time.Now()
		b.err = c.Read(got, off)
		b.reads = append(b.reads, time.Since(start))
		if b.err == nil && !bytes.Equal(got, want) {
			b.err = fmt.Errorf("at %d stands %x instead of %x", off, got[:16], want[:16])
		}
	}
}

// percentile is what p of 100 do not exceed. It sorts d.
func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[(len(d)-1)*p/100].Round(time.Microsecond)
}

// print says what was seen.
func (a *attack) print() {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "attack\theld\tMiB before\tduring\tafter\tread p50\tp99\tmax\twrite p50\tp99\tmax\trequests\t")
	for _, r := range a.rows {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t", r.name, r.held, r.before>>20, r.during>>20, r.after>>20)
		for _, d := range [][]time.Duration{r.reads, r.writes} {
			fmt.Fprintf(w, "%v\t%v\t%v\t", percentile(d, 50), percentile(d, 99), percentile(d, 100))
		}
		fmt.Fprintf(w, "%d\t\n", len(r.reads)+len(r.writes))
	}
	w.Flush()
	a.t.Logf("pools and allowance are %d MiB; a bystander's latency, one 4 KiB request at a time:\n%s", a.bound>>20, &b)
	for _, name := range []string{"stalled", "overloaded", "memory_waits", "bad_peers"} {
		a.t.Logf("%s: %d", name, a.metric("vstor_nbd_"+name+"_total"))
	}
}
