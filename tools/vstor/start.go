package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"vstor/dataplane/config"
	"vstor/dataplane/node"
)

// startEmbedded runs everything in this process. A folder whose first start has not finished has no
// format file.
func startEmbedded(_ context.Context, cfg config.Config, log *slog.Logger) (deployment, error) {
	_, err := os.Stat(filepath.Join(cfg.Dir, "format"))
	n, err := node.Start(node.Options{Config: cfg, Log: log, Fresh: os.IsNotExist(err)})
	if err != nil {
		return nil, err
	}
	return n, nil
}
