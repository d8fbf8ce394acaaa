package main

import (
	"context"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"vstor/bench"
)

// benchBareCommand is what `vstor bench` starts to know what NBD, a loop and a log cost without storage. It writes over
// the file, so help does not tell of it.
func (a *app) benchBareCommand() *cobra.Command {
	var b bench.BareServer
	cmd := &cobra.Command{Use: "bare", Hidden: true, Args: takes(),
		Short: "serve a file over NBD as vstor bench needs it: what is written cannot be read"}
	f := cmd.Flags()
	f.StringVar(&b.Socket, "socket", "", "where to listen")
	f.StringVar(&b.File, "file", "", "what is written over")
	f.IntVar(&b.CPU, "cpu", -1, "that the loop keeps to")
	cmd.RunE = func(*cobra.Command, []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		b.Log = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		return bench.RunBareServer(ctx, b, a.stdout)
	}
	return cmd
}
