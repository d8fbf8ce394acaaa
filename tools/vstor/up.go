package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
)

// deployment is a running system: what the API asks, and how it ends.
type deployment interface {
	api.System
	// Close makes everything acknowledged durable and stops. It need not drain the journal.
	Close() error
}

// starter builds a deployment from a complete, valid configuration, in a folder that this process
// holds. NBD is served when it returns. After an error nothing runs.
// fresh: the deployment must be made first. When ctx ends a start under way may give up.
type starter func(ctx context.Context, cfg config.Config, fresh bool, log *slog.Logger) (deployment, error)

func (a *app) upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "run a whole deployment on this machine, in the foreground",
		Long: "Run a whole deployment on this machine, in the foreground, until SIGTERM or SIGINT.\n\n" +
			"Settings come from " + config.SystemFile + ", then DIR/vstor.toml (what earlier starts were told), then\n" +
			"VSTOR_* in the environment (VSTOR_ASD_SIZE for --asd-size), then the flags. Those marked [fixed] stay as\n" +
			"they were at the first start.",
		Args: takes(),
	}
	keys := config.Keys()
	for _, k := range keys {
		addFlag(cmd, k)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		context.AfterFunc(ctx, stop) // a second signal ends the process at once
		return a.up(ctx, flagSource(cmd, keys))
	}
	return cmd
}

func addFlag(cmd *cobra.Command, k *config.Key) {
	def := config.Default()
	help := k.Help
	if v := k.Get(&def); v != nil && k.Shape == config.One {
		help += "; default: " + v[0]
	}
	if k.Fixed {
		help += " [fixed]"
	}
	w := &words{arg: k.Arg}
	f := cmd.Flags().VarPF(w, k.Name, "", help)
	if k.Shape == config.Bool {
		w.arg, f.NoOptDefVal = "bool", "true"
	}
}

// words is the value of a flag as it was given; config reads it, as it reads those of every source.
type words struct {
	arg   string
	given []string
}

func (w *words) String() string     { return strings.Join(w.given, " ") }
func (w *words) Type() string       { return w.arg }
func (w *words) Set(s string) error { w.given = append(w.given, s); return nil }

// flagSource collects the flags that were given.
func flagSource(cmd *cobra.Command, keys []*config.Key) config.Source {
	s := config.Source{Name: "the command line", Values: map[string][]string{}}
	for _, k := range keys {
		w := cmd.Flags().Lookup(k.Name).Value.(*words)
		switch {
		case len(w.given) == 0:
		case k.Shape == config.List:
			s.Values[k.Name] = w.given
		default:
			s.Values[k.Name] = w.given[len(w.given)-1:] // the last one wins, as with all commands
		}
	}
	return s
}

// up runs a deployment until ctx ends.
func (a *app) up(ctx context.Context, flags config.Source) error {
	d, err := config.OpenDir(a.dir)
	if err != nil {
		return err
	}
	defer d.Abandon() // after FinishCreate that only closes it
	cfg, keep, err := a.resolve(d, flags)
	if err != nil {
		return err
	}
	defer keepCrashes(d.Path)()
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	sys, err := a.start(ctx, cfg, d.Fresh(), log)
	if errs.Of(err) == errs.Canceled && ctx.Err() != nil {
		return nil // stopped before it was up
	}
	if err != nil {
		return err
	}
	err = a.serve(ctx, d, cfg, keep, sys, log)
	if cerr := sys.Close(); err == nil {
		err = cerr
	}
	return err
}

func (a *app) resolve(d *config.Dir, flags config.Source) (config.Config, map[string][]string, error) {
	system, err := config.FromFile(config.SystemFile)
	if err != nil {
		return config.Config{}, nil, err
	}
	m, err := config.ThisMachine(d.Path)
	if err != nil {
		return config.Config{}, nil, err
	}
	return d.Resolve(system, config.FromEnv(a.environ), flags, m)
}

// serve opens the API on a started deployment, says that it is ready, and returns when ctx ends. No
// vDisk can be made before the API listens, so the first start is finished before that.
func (a *app) serve(ctx context.Context, d *config.Dir, cfg config.Config, keep map[string][]string,
	sys deployment, log *slog.Logger) error {
	listeners, err := apiListeners(cfg)
	if err != nil {
		return err
	}
	if err = d.Keep(keep); err == nil {
		err = d.FinishCreate()
	}
	if err != nil {
		closeAll(listeners)
		return err
	}
	srv := api.NewServer(sys, log)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- srv.Serve(l) }()
	}
	a.printReady(cfg)
	select {
	case <-ctx.Done():
		log.Info("stopping: making everything durable")
	case err = <-failed:
	}
	config.RemoveSocket(filepath.Join(cfg.Dir, api.SocketName))
	if cerr := srv.Close(); cerr != nil {
		log.Warn("the API did not close in time", "error", cerr)
	}
	return err
}

func apiListeners(cfg config.Config) ([]net.Listener, error) {
	unix, err := config.ListenUnix(filepath.Join(cfg.Dir, api.SocketName))
	if err != nil {
		return nil, err
	}
	if cfg.APIListen == "" {
		return []net.Listener{unix}, nil
	}
	tcp, err := net.Listen("tcp", cfg.APIListen)
	if err != nil {
		unix.Close()
		return nil, errs.Wrap(errs.IO, err, "cannot serve the API on %s", cfg.APIListen)
	}
	return []net.Listener{unix, tcp}, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func (a *app) printReady(cfg config.Config) {
	uri := api.NBDURI(cfg.Dir, "")
	if a.asJSON {
		fmt.Fprintf(a.stdout, "{\"ready\": %q, \"pid\": %d}\n", uri, os.Getpid())
		return
	}
	var b strings.Builder
	b.WriteString("ready " + uri + "\n")
	if cfg.NBDListen != "" {
		b.WriteString("also  nbd://" + cfg.NBDListen + "/ (not encrypted, no password)\n")
	}
	io.WriteString(a.stdout, b.String())
}
