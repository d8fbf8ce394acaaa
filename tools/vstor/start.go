package main

import (
	"context"
	"log/slog"

	"vstor/dataplane/config"
	"vstor/dataplane/node"
)

// startEmbedded runs everything in this process.
func startEmbedded(_ context.Context, cfg config.Config, fresh bool, log *slog.Logger) (deployment, error) {
	n, err := node.Start(node.Options{Config: cfg, Log: log, Fresh: fresh, Fatal: fatal})
	if err != nil {
		return nil, err
	}
	return n, nil
}
