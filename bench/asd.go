package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"vstor/asd/client"
	"vstor/asd/proto"
	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// oneASD is an ASD without a deployment around it: the bench is its client.
type oneASD struct {
	opt              *Options
	dir              string
	uuid, deployment [16]byte
	secret           [proto.SecretSize]byte
	p                *process
	client           *client.ASD
	sums             []uint32 // low half of the XXH64 of each block that reads may meet
	fills            int      // how often they were put
	puts             uint32   // keys of puts that were used up
	starts           int
	began            time.Time // of the last start
}

// restBehind is how long an ASD that was started again lets deleted space rest, as readers of the process before may
// have leases on it. Puts before that would measure how soon the drive is full.
const restBehind = 26 * time.Second

func newOneASD(opt *Options) *oneASD {
	a := &oneASD{opt: opt, dir: filepath.Join(opt.Work, "a")}
	rand.Read(a.uuid[:])
	rand.Read(a.deployment[:])
	rand.Read(a.secret[:])
	return a
}

func (a *oneASD) name() string { return single }
func (a *oneASD) file() string { return filepath.Join(a.opt.Work, "asd.img") }

func (a *oneASD) identity() []string {
	return []string{"--uuid", hex.EncodeToString(a.uuid[:]), "--deployment", hex.EncodeToString(a.deployment[:]),
		"--data", a.file(), "--index", filepath.Join(a.dir, "index")}
}

// keepSecret makes the folder, with the secret in it.
func (a *oneASD) keepSecret() error {
	err := os.MkdirAll(a.dir, 0o700)
	if err == nil {
		err = os.WriteFile(a.secretFile(), []byte(hex.EncodeToString(a.secret[:])+"\n"), 0o600)
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot prepare an ASD")
	}
	return nil
}

// format makes an empty store on the file.
func (a *oneASD) format(ctx context.Context) error {
	if err := a.keepSecret(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, a.opt.Vstor, append([]string{"asd", "format"}, a.identity()...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errs.Wrap(errs.IO, err, "`vstor asd format` failed: %s", lastLine(string(out)))
	}
	return nil
}

func (a *oneASD) secretFile() string { return filepath.Join(a.dir, "secret") }

func (a *oneASD) start(ctx context.Context) error {
	return onFreePort(func(addr string) error { return a.startOn(ctx, addr) })
}

func (a *oneASD) startOn(ctx context.Context, addr string) error {
	memory := config.Default().ASDMemory // what a deployment gives each of its ASD processes
	p, out, err := launch(a.dir+".log", append([]string{a.opt.Vstor, "asd", "run", "--secret", a.secretFile(),
		"--listen", addr, "--debug", a.debugSock(), "--memory", units.FormatSize(memory)}, a.identity()...)...)
	if err != nil {
		return err
	}
	a.p, a.began = p, time.Now()
	a.starts++
	go func() {
		io.Copy(io.Discard, out)
		p.reap()
	}()
	err = a.connect(ctx, addr, p.done)
	if errs.Of(err) == errs.Closed {
		a.stop()
		return errs.New(errs.IO, "`vstor asd run` ended: %s", tail(p.log.Name()))
	}
	return err
}

// connect waits until the ASD at addr answers. Closed: gone told that it has ended.
func (a *oneASD) connect(ctx context.Context, addr string, gone <-chan struct{}) (err error) {
	a.client, err = client.New(client.Options{UUID: a.uuid, Deployment: a.deployment, Secret: a.secret[:],
		Network: "tcp", Addr: addr, Name: "bench"})
	if err != nil {
		return err
	}
	for end := time.Now().Add(startTimeout); time.Now().Before(end); {
		if a.client.Up() {
			return nil
		}
		select {
		case <-gone:
			return errs.New(errs.Closed, "the ASD has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return errs.New(errs.IO, "`vstor asd run` does not answer after %v: %v", startTimeout, a.client.Err())
}

func (a *oneASD) debugSock() string { return filepath.Join(a.dir, "debug") }

// faces is its process.
func (a *oneASD) faces(Job) []face { return []face{{"asd", api.NewProcessClient(a.debugSock())}} }

func (a *oneASD) stop() error {
	if a.client != nil {
		a.client.Close()
		a.client = nil
	}
	if a.p == nil {
		return nil
	}
	err := a.p.stop()
	a.p = nil
	return err
}

// begin restarts it for a cold job: it keeps what it read in no cache, but it is to be as the others are.
func (a *oneASD) begin(ctx context.Context, j Job) error {
	if !j.Cold {
		return nil
	}
	if err := a.stop(); err != nil {
		return err
	}
	if err := a.start(ctx); err != nil {
		return err
	}
	return a.rest(ctx, a.opt.Settle)
}

func (a *oneASD) end(context.Context) error { return nil }

func (a *oneASD) pids() []int { return []int{a.p.cmd.Process.Pid} }

func (a *oneASD) rest(ctx context.Context, d time.Duration) error { return quiesce(ctx, a.pids(), d) }

func (a *oneASD) run(ctx context.Context, j Job, d time.Duration) (result, error) {
	switch j.RW {
	case put:
		if a.starts > 1 {
			select {
			case <-time.After(time.Until(a.began.Add(restBehind))):
			case <-ctx.Done():
			}
		}
		return a.runPuts(ctx, j.Depth, d)
	case "randread":
		return a.runReads(ctx, j.Depth, d)
	}
	return result{}, errs.New(errs.Unsupported, "one ASD cannot do %s", j.RW)
}
