package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

func (a *app) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cache", Short: "show what vDisks have of the caches", Args: cobra.ArbitraryArgs,
		RunE: group}
	ls := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "size, quota, use and hit ratio, by vDisk and tier",
		Args: takes()}
	ls.RunE = func(*cobra.Command, []string) error {
		return a.call(func(ctx context.Context, c *api.Client) error {
			list, err := c.ListCaches(ctx)
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				t.row("VDISK", "CACHE", "SIZE", "QUOTA", "SHARE", "USED", "HITS", "MISSES", "HIT RATIO")
				for _, s := range list {
					t.row(s.VDisk, s.Cache, units.HumanSize(s.SizeBytes), quota(s.QuotaBytes), units.HumanSize(s.ShareBytes),
						units.HumanSize(s.UsedBytes), s.Hits, s.Misses, fmt.Sprintf("%.1f %%", 100*s.HitRatio()))
				}
			})
		})
	}
	cmd.AddCommand(ls)
	return cmd
}

func quota(n int64) string {
	switch {
	case n < 0:
		return "none"
	case n == 0:
		return "off"
	}
	return units.HumanSize(n)
}

// parseQuota reads a quota: a size, or `default`, which is 0.
func parseQuota(flag, word string) (int64, error) {
	if word == "default" {
		return 0, nil
	}
	n, err := units.ParseSize(word)
	if err != nil || n == 0 {
		return 0, errs.New(errs.Invalid, "--%s is %q; it must be a size like 2G, or default (--cache off is none at all)",
			flag, word)
	}
	return n, nil
}

// quotaFlag is the quota that a flag gives; nil if it is not there.
func quotaFlag(cmd *cobra.Command, flag string) (*int64, error) {
	if !cmd.Flags().Changed(flag) {
		return nil, nil
	}
	word, _ := cmd.Flags().GetString(flag)
	n, err := parseQuota(flag, word)
	return &n, err
}

// parseOnOff reads on or off.
func parseOnOff(flag, word string) (bool, error) {
	switch word {
	case "on", "off":
		return word == "on", nil
	}
	return false, errs.New(errs.Invalid, "--%s is %q; it must be on or off", flag, word)
}
