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

func (a *app) upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "run a whole deployment on this machine, in the foreground",
		Long: "Run a whole deployment on this machine, in the foreground, until SIGTERM or SIGINT.\n\n" +
			"Settings come from " + config.SystemFile + ", then DIR/vstor.toml (what earlier starts were told), then\n" +
			"VSTOR_* in the environment (VSTOR_ASD_SIZE for --asd-size), then the flags. Those marked [fixed] stay as\n" +
			"they were at the first start.\n\n" +
			"Sockets of a service manager (LISTEN_FDS) are served too, those named \"api\" with HTTP, and Type=notify is\n" +
			"told when it is ready. With --nbd-tls, SIGHUP has certificates and keys read again.",
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
	in, err := a.manager.sockets()
	if err != nil {
		return err
	}
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
	s := startup{cfg: cfg, fresh: d.Fresh(), listeners: in.NBD,
		log: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	sys, err := a.start(ctx, s)
	if errs.Of(err) == errs.Canceled && ctx.Err() != nil {
		return nil // stopped before it was up
	}
	if err != nil {
		return err
	}
	err = a.serve(ctx, d, s, keep, sys, in.API, func() { a.printReady(cfg, sys) })
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
// vDisk can be made before the API listens, so the first start is finished before that. keep nil: the settings
// that are kept stay as they are.
func (a *app) serve(ctx context.Context, d *config.Dir, s startup, keep map[string][]string, sys deployment,
	inherited []net.Listener, ready func()) error {
	listeners, own, err := apiListeners(s.cfg, inherited)
	if err != nil {
		return err
	}
	if keep != nil {
		err = d.Keep(keep)
	}
	if err == nil {
		err = d.FinishCreate()
	}
	if err != nil {
		closeAll(listeners)
		return err
	}
	srv := api.NewServer(sys, s.log)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- srv.Serve(l) }()
	}
	hup, end := hangups(s.cfg)
	defer end()
	ready()
	a.manager.say(s.log, "READY=1")
	for running := true; running; {
		select {
		case <-hup:
			a.manager.reload(ctx, sys, s.log)
		case <-ctx.Done():
			s.log.Info("stopping: making everything durable")
			running = false
		case err = <-failed:
			running = false
		}
	}
	a.manager.say(s.log, "STOPPING=1")
	if own {
		config.RemoveSocket(filepath.Join(s.cfg.Dir, api.SocketName))
	}
	if cerr := srv.Close(); cerr != nil {
		s.log.Warn("the API did not close in time", "error", cerr)
	}
	return err
}

// apiListeners are where the API is served: on sockets that the process was given, DIR/api.sock unless it is one of
// them (own tells), and --api-listen.
func apiListeners(cfg config.Config, inherited []net.Listener) (list []net.Listener, own bool, err error) {
	list = append(list, inherited...)
	path := filepath.Join(cfg.Dir, api.SocketName)
	if own = !config.Listens(inherited, path); own {
		unix, err := config.ListenUnix(path)
		if err != nil {
			closeAll(list)
			return nil, false, err
		}
		list = append(list, unix)
	}
	if cfg.APIListen != "" {
		tcp, err := net.Listen("tcp", cfg.APIListen)
		if err != nil {
			closeAll(list)
			return nil, own, errs.Wrap(errs.IO, err, "cannot serve the API on %s", cfg.APIListen)
		}
		list = append(list, tcp)
	}
	return list, own, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func (a *app) printReady(cfg config.Config, sys deployment) {
	uri := api.NBDURI(cfg.Dir, "")
	if a.asJSON {
		fmt.Fprintf(a.stdout, "{\"ready\": %q, \"pid\": %d}\n", uri, os.Getpid())
		return
	}
	var b strings.Builder
	b.WriteString("ready " + uri + "\n")
	for _, also := range sys.NBDURIs() {
		switch tcp := !strings.HasPrefix(also, "nbd+unix:"); {
		case also == uri:
			continue
		case tcp && !cfg.TLSOn():
			also += " (not encrypted, no password)"
		case tcp:
			also += " (TLS is " + cfg.NBDTLS + ")"
		}
		b.WriteString("also  " + also + "\n")
	}
	io.WriteString(a.stdout, b.String())
}
