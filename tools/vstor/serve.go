package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// temporaryName is what a temporary vDisk is called that was given no name.
const temporaryName = "temporary"

func (a *app) serveCommand() *cobra.Command {
	var size string
	cmd := &cobra.Command{
		Use:   "serve NAME",
		Short: "serve one vDisk of a deployment that does not run, for one client or for a while",
		Long: "Serve one vDisk of a deployment that does not run, in the foreground, until SIGTERM or SIGINT. It is the\n" +
			"default export, and has its name too; the others are not there. NBD is served on the sockets that the process\n" +
			"was started with (LISTEN_FDS), so NBD clients can run it themselves, and else on DIR/nbd.sock:\n\n" +
			"  nbdinfo -- [ vstor serve db --dir /srv/vstor ]     (-- or else nbdinfo takes --dir for its own)\n" +
			"  nbdcopy -- [ vstor serve db --dir /srv/vstor ] backup.img\n" +
			"  nbdinfo [ vstor serve temporary:1G ]\n\n" +
			"Started with such sockets, it also ends when the process that started it does.\n\n" +
			"--temporary SIZE, or temporary:SIZE for NAME, makes a deployment of one drive, without parity, to be thrown\n" +
			"away: in a folder beside --dir (or VSTOR_DIR) if that was given, else in TMPDIR, /var/tmp or /tmp, whichever\n" +
			"has direct IO first. It is removed at the end; what a kill -9 leaves of it, the next one removes.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && size != "" {
				return nil
			}
			return takes("NAME")(cmd, args)
		},
	}
	cmd.Flags().StringVar(&size, "temporary", "", "make a vDisk of that size, to be thrown away")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer func() {
			if err == nil { // else the client's signal, once its socket closes, would end us before we say why
				stop()
			}
		}()
		name := temporaryName
		if len(args) > 0 {
			name = args[0]
		}
		if word, ok := strings.CutPrefix(name, temporaryName+":"); ok && size == "" {
			name, size = temporaryName, word
		}
		if err := units.CheckName(name); err != nil {
			return err
		}
		in, err := a.manager.sockets()
		if err != nil {
			return err
		}
		if in.Any() {
			var end context.CancelFunc
			ctx, end = whileParent(ctx)
			defer end()
		}
		if size == "" {
			err = a.serveStopped(ctx, name, in)
		} else {
			err = a.serveTemporary(ctx, name, size, in, cmd.Flags().Changed("dir") || a.env("VSTOR_DIR") != "")
		}
		if err != nil {
			in.Close() // a client that waits for an answer learns that there will be none
		}
		return err
	}
	return cmd
}

// serveStopped serves a vDisk of a deployment that does not run.
func (a *app) serveStopped(ctx context.Context, name string, in config.Inherited) error {
	d, cfg, err := a.stopped()
	if errs.Of(err) == errs.Busy {
		return a.servedBy(err, name)
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return a.serveOne(ctx, d, startup{cfg: cfg, only: name}, in)
}

// servedBy says where a vDisk can be had while somebody else runs its deployment.
func (a *app) servedBy(running error, name string) error {
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return running
	}
	if st, err := os.Stat(filepath.Join(dir, "nbd.sock")); err != nil || st.Mode()&os.ModeSocket == 0 {
		return running
	}
	return errs.New(errs.Busy, "%v; or use %s, where that process serves it", running, api.NBDURI(dir, name))
}

// serveOne serves s.only until ctx ends. What it has to say goes to stderr: stdout belongs to the client that ran it.
func (a *app) serveOne(ctx context.Context, d *config.Dir, s startup, in config.Inherited) error {
	s.cfg.NBDListen, s.cfg.APIListen, s.cfg.Processes = "", "", false
	s.fresh, s.listeners, s.onlyListeners = d.Fresh(), in.NBD, in.Any()
	s.log = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	sys, err := a.start(ctx, s)
	if errs.Of(err) == errs.Canceled && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	err = a.serve(ctx, d, s, nil, sys, in.API, func() {
		if !in.Any() {
			fmt.Fprintf(a.stdout, "ready %s\n", api.NBDURI(s.cfg.Dir, s.only))
		}
	})
	if cerr := sys.Close(); err == nil {
		err = cerr
	}
	return err
}

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "have certificates and keys for NBD read again, as SIGHUP does", Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			return a.call(func(ctx context.Context, c *api.Client) error {
				err := c.Reload(ctx)
				if err != nil {
					return err
				}
				s, err := c.Status(ctx)
				if err != nil || s.TLS == nil {
					return errors.Join(err)
				}
				return a.print(s.TLS, func(t *table) { t.row("read again", tlsWords(s.TLS)) })
			})
		},
	}
}
