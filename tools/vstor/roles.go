package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	toml "github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vstor/dataplane/config"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/node"
	"vstor/dataplane/supervise"
)

// roleHelp is what both commands say of where settings come from.
const roleHelp = "Settings come from the flags, then VSTOR_* in the environment (VSTOR_%s_* for those of the role\n" +
	"alone), then the file of --config, whose keys are the flags' names. `vstor up --processes` writes such files to\n" +
	"DIR/run."

// role adds the deployment's settings to a role's command.
func role(cmd *cobra.Command) *string {
	for _, k := range config.Keys() {
		addFlag(cmd, k)
	}
	return cmd.Flags().String("config", "", "TOML file with these settings")
}

// fillRole takes what no flag said from the environment and the file, and completes the deployment's settings.
func (a *app) fillRole(cmd *cobra.Command, name, file string, adjust func(*config.Config)) (config.Config, error) {
	given := map[string]bool{}
	cmd.Flags().Visit(func(f *pflag.Flag) { given[f.Name] = true })
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		word := strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		variable := "VSTOR_" + name + "_" + word
		if config.KeyNamed(config.Keys(), f.Name) != nil {
			variable = "VSTOR_" + word
		}
		if v := a.env(variable); v != "" && !given[f.Name] && f.Name != "dir" && err == nil {
			for _, word := range wordsOf(f, v) {
				if serr := f.Value.Set(word); serr != nil {
					err = errs.New(errs.Invalid, "%s=%s: %v", variable, v, serr)
				}
			}
			given[f.Name] = true
		}
	})
	if err == nil && file != "" {
		err = roleFile(cmd, file, given)
	}
	if err != nil {
		return config.Config{}, err
	}
	keys := config.Keys()
	cfg := config.Default()
	cfg.Dir = a.dir
	if err := cfg.Apply(flagSource(cmd, keys)); err != nil {
		return cfg, err
	}
	adjust(&cfg)
	m, err := config.ThisMachine(cfg.Dir)
	if err == nil {
		err = cfg.Complete(m)
	}
	if err == nil {
		err = cfg.Validate()
	}
	return cfg, err
}

// wordsOf are the words of a variable: those of a list are parted by spaces.
func wordsOf(f *pflag.Flag, v string) []string {
	if k := config.KeyNamed(config.Keys(), f.Name); k != nil && k.Shape == config.List {
		return strings.Fields(v)
	}
	return []string{v}
}

// roleFile reads the file of --config.
func roleFile(cmd *cobra.Command, file string, given map[string]bool) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return errs.Wrap(errs.Absent, err, "cannot read the settings")
	}
	var values map[string]any
	if err := toml.Unmarshal(b, &values); err != nil {
		return errs.New(errs.Invalid, "%s is no TOML: %v", file, err)
	}
	for name, v := range values {
		f := cmd.Flags().Lookup(name)
		if f == nil || name == "config" || name == "json" {
			return errs.New(errs.Invalid, "%s: there is no setting %q; `%s --help` lists those there are", file, name,
				cmd.CommandPath())
		}
		if given[name] {
			continue
		}
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, word := range list {
			if err := f.Value.Set(fmt.Sprint(word)); err != nil {
				return errs.New(errs.Invalid, "%s: %s = %v: %v", file, name, word, err)
			}
		}
		f.Changed = true
	}
	return nil
}

// untilStopped ends with SIGTERM, SIGINT or the process that started this one.
func untilStopped() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancel(ctx)
	gone := supervise.Lifeline()
	go func() {
		select {
		case <-gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); stop() }
}

func (a *app) routerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "router", Short: "run a storage router", Args: cobra.ArbitraryArgs, RunE: group}
	cmd.AddCommand(a.routerRunCommand())
	return cmd
}

func (a *app) routerRunCommand() *cobra.Command {
	var o node.RouterRole
	cmd := &cobra.Command{Use: "run", Short: "serve the vDisks of a deployment to edges, in the foreground", Args: takes(),
		Long: "Serve the vDisks of the deployment in --dir to edges, in the foreground, until SIGTERM or SIGINT. Its ASDs\n" +
			"must run (`vstor asd run`) with their sockets in DIR/run.\n\n" + fmt.Sprintf(roleHelp, "ROUTER")}
	file := role(cmd)
	f := cmd.Flags()
	f.StringVar(&o.SecretFile, "secret", "", "file with the deployment's secret, 64 hexadecimal digits, mode 0600")
	f.StringSliceVar(&o.Listen, "listen", nil, "where edges connect, unix:PATH or HOST:PORT; again for more")
	f.StringVar(&o.API, "api", "", "folder to make api.sock in; empty: none")
	f.BoolVar(&o.Fresh, "fresh", false, "the deployment was just made and has no metadata yet")
	var t asdSettings
	f.StringVar(&t.TLSCert, "tls-cert", "", "certificate for TLS over TCP, PEM; edges must have one of the same authority")
	f.StringVar(&t.TLSKey, "tls-key", "", "its key, PEM")
	f.StringVar(&t.TLSCA, "tls-ca", "", "certificates of the authority, PEM")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Config, err = a.fillRole(cmd, "ROUTER", *file, func(*config.Config) {}); err != nil {
			return err
		}
		if o.SecretFile == "" || len(o.Listen) == 0 {
			return usageError{fmt.Errorf("--secret and --listen are needed")}
		}
		if o.TLS, err = t.tls(); err != nil {
			return err
		}
		ctx, stop := untilStopped()
		defer stop()
		o.Log, o.Fatal = slog.New(slog.NewTextHandler(a.stderr, nil)).With("role", "router"), fatal
		return node.RunRouter(ctx, o, func() { o.Log.Info("serving", "listen", strings.Join(o.Listen, " ")) })
	}
	return cmd
}

func (a *app) edgeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "edge", Short: "run an edge", Args: cobra.ArbitraryArgs, RunE: group}
	cmd.AddCommand(a.edgeRunCommand())
	return cmd
}

// edgeWords are the edge's own settings as they are written.
type edgeWords struct {
	opener, deployment, api string
	asds                    []string
	inherit                 int
}

func (a *app) edgeRunCommand() *cobra.Command {
	var o node.EdgeRole
	var w edgeWords
	cmd := &cobra.Command{Use: "run", Short: "serve vDisks over NBD, in the foreground", Args: takes(),
		Long: "Serve the vDisks of a router over NBD, on DIR/nbd.sock and --nbd-listen, in the foreground, until SIGTERM\n" +
			"or SIGINT. A vDisk is opened exclusively when its first client comes, and given back when its last one goes;\n" +
			"one that another edge has is refused, unless --takeover fences that one. With --passive it is opened without\n" +
			"that, for reading, and the first write asks the other edge to yield: a live migration.\n\n" +
			fmt.Sprintf(roleHelp, "EDGE")}
	file := role(cmd)
	host, _ := os.Hostname()
	f := cmd.Flags()
	f.StringVar(&o.Name, "name", "edge on "+host, "what logs call it")
	f.StringVar(&o.SecretFile, "secret", "", "file with the deployment's secret, 64 hexadecimal digits, mode 0600")
	f.StringVar(&o.Router, "router", "", "where the router listens, unix:PATH or HOST:PORT")
	f.StringVar(&o.RouterAPI, "router-api", "", "folder of the router's api.sock, which tells which vDisks there are")
	f.StringVar(&w.api, "api", "", "folder to make api.sock in; empty: none")
	f.StringVar(&w.deployment, "deployment", "", "UUID of the deployment, 32 hexadecimal digits")
	f.StringSliceVar(&w.asds, "asd", nil, "an ASD, by number from 0: UUID@unix:PATH or UUID@HOST:PORT; again for each")
	f.StringVar(&w.opener, "opener", "", "what tells this edge from others, 32 hexadecimal digits; two that live at the "+
		"same time must not share it; default: random")
	f.BoolVar(&o.Takeover, "takeover", false, "fence the edge that has a vDisk")
	f.BoolVar(&o.Passive, "passive", false, "open vDisks passive; the first write makes them exclusive")
	f.IntVar(&w.inherit, "inherit", 0, "serve NBD on so many sockets, from descriptor 4 on, as a parent hands them over")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		o.Config, err = a.fillRole(cmd, "EDGE", *file, func(c *config.Config) {
			if c.ASDs = len(w.asds); c.ASDs == 0 {
				c.ASDs = 6 // fill says what is missing
			}
			// An edge stores nothing: any policy will do that fits its ASDs, of which there may be fewer than the
			// default ones need.
			c.ASDSize, c.Nodes, c.Policies = max(c.ASDSize, 1<<30), 0, []layout.Policy{{K: 1, C: 1, X: 1}}
		})
		if err == nil {
			err = w.fill(&o)
		}
		if err != nil {
			return err
		}
		ctx, stop := untilStopped()
		defer stop()
		o.Log = slog.New(slog.NewTextHandler(a.stderr, nil)).With("role", "edge")
		return node.RunEdge(ctx, o, w.api, func() { o.Log.Info("serving") })
	}
	return cmd
}

// fill reads the words.
func (w *edgeWords) fill(o *node.EdgeRole) (err error) {
	for flag, v := range map[string]string{"secret": o.SecretFile, "router": o.Router, "router-api": o.RouterAPI,
		"deployment": w.deployment} {
		if v == "" {
			return usageError{fmt.Errorf("--%s is missing", flag)}
		}
	}
	if len(w.asds) == 0 {
		return usageError{fmt.Errorf("--asd is missing: name each ASD")}
	}
	if o.Deployment, err = parseUUID("deployment", w.deployment); err != nil {
		return err
	}
	o.Opener = proto.NewOpener()
	if w.opener != "" {
		id, err := parseUUID("opener", w.opener)
		if err != nil {
			return err
		}
		o.Opener = id
	}
	for _, word := range w.asds {
		id, addr, ok := strings.Cut(word, "@")
		if !ok {
			return errs.New(errs.Invalid, "--asd is %.60q; UUID@unix:PATH or UUID@HOST:PORT would be right", word)
		}
		u, err := parseUUID("asd", id)
		if err != nil {
			return err
		}
		o.ASDs = append(o.ASDs, node.ASDAddr{UUID: u, Addr: addr})
	}
	for i := range w.inherit {
		file := os.NewFile(uintptr(supervise.FilesFD+i), "inherited")
		l, err := net.FileListener(file)
		file.Close()
		if err != nil {
			return errs.Wrap(errs.Invalid, err, "descriptor %d is no socket that listens", supervise.FilesFD+i)
		}
		o.Listeners = append(o.Listeners, l)
	}
	return nil
}
