package bench

import (
	"context"
	"path/filepath"
	"time"
)

// tcp is the embedded deployment over TCP, with TLS or without. It is started, restarted and stopped as what it
// belongs to.
type tcp struct {
	*ours
	secure bool
}

func (t tcp) name() string {
	if t.secure {
		return overTLS
	}
	return overTCP
}

func (t tcp) start(context.Context) error { return nil }
func (t tcp) stop() error                 { return nil }

func (t tcp) run(ctx context.Context, j Job, d time.Duration) (result, error) {
	at := nbdArgs("nbd://" + t.addr + "/" + volume)
	if t.secure {
		at = nbdArgs("nbds://" + t.addr + "/" + volume)
		at.env = []string{"HOME=" + tlsDir(t.opt)}
	}
	return runFio(ctx, at, j, t.opt.Size, d)
}

// tlsDir has the server's certificate and key, and is the client's home.
func tlsDir(opt *Options) string { return filepath.Join(opt.Work, "tls") }
