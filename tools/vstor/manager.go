package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
)

// manager is whoever started the process, as far as it takes part: a service manager that opened sockets and is
// told of our state, or a client that runs its server itself.
type manager struct {
	inherit func() (config.Inherited, error) // nil: nothing is inherited
	tell    config.Notifier
}

func (m manager) sockets() (config.Inherited, error) {
	if m.inherit == nil {
		return config.Inherited{}, nil
	}
	return m.inherit()
}

// say tells the service manager; that it does not listen is no reason to stop.
func (m manager) say(log *slog.Logger, lines ...string) {
	if err := m.tell.Tell(lines...); err != nil {
		log.Warn("sd_notify", "error", err)
	}
}

// hangups are the SIGHUPs that ask for certificates to be read again. Where there are none to read, the signal
// keeps its usual meaning, that the terminal is gone.
func hangups(cfg config.Config) (<-chan os.Signal, func()) {
	if !cfg.TLSOn() {
		return nil, func() {}
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// reload has the certificates read again; what goes wrong is in the log, and the old ones go on.
func (m manager) reload(ctx context.Context, sys api.System, log *slog.Logger) {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
		m.say(log, "RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
	}
	sys.Reload(ctx)
	m.say(log, "READY=1")
}

// parentLook is how often a server that a client runs looks for its client.
const parentLook = 500 * time.Millisecond

// whileParent ends with the process that started this one. A client that is killed cannot end its server, which
// would hold the folder for ever; prctl's signal would come when the *thread* that forked ends, as clients' threads do.
func whileParent(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	go func() {
		tick := time.NewTicker(parentLook)
		defer tick.Stop()
		for os.Getppid() == parent {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		cancel()
	}()
	return ctx, cancel
}
