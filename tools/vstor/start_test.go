package main

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// impatient is a listener whose client ends us when it closes, as those do that have started us.
type impatient struct {
	net.Listener
	end context.CancelFunc
}

func (l impatient) Close() error {
	l.end()
	return l.Listener.Close()
}

// What was wrong with a start is said, though the client that waits has us stopped once its socket closes.
func TestStartSaysWhatWasWrong(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cfg := config.Config{Dir: t.TempDir(), ASDs: 1, ASDSize: 64 << 20, Nodes: 1,
		Policies: []layout.Policy{{K: 1, C: 1, X: 1}}, SCOSize: 1 << 20, FragmentSize: 1 << 20,
		Memory: 384 << 20, Journal: 64 << 20, MaxConnections: 16, Loops: 1}
	_, err = startEmbedded(ctx, startup{cfg: cfg, fresh: true, log: slog.New(slog.DiscardHandler), only: "nope",
		listeners: []net.Listener{impatient{l, cancel}}, onlyListeners: true})
	if errs.Of(err) != errs.Absent || !strings.Contains(err.Error(), "no vDisk named nope") {
		t.Errorf("%v (%v)", err, errs.Of(err))
	}
	if ctx.Err() == nil {
		t.Error("the socket was not closed")
	}
}
