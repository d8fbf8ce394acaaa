package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vstor/dataplane/api"
	"vstor/dataplane/units"
)

func (a *app) vdiskCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "vdisk", Short: "make, list, show, watch, set and remove vDisks", Args: cobra.ArbitraryArgs,
		RunE: group}
	cmd.AddCommand(a.vdiskCreate(), a.vdiskList(), a.vdiskShow(), a.vdiskStats(), a.vdiskSet(), a.vdiskRemove())
	return cmd
}

func (a *app) vdiskCreate() *cobra.Command {
	var size string
	cmd := &cobra.Command{Use: "create NAME --size SIZE", Short: "make a vDisk", Args: takes("NAME")}
	cmd.Flags().StringVar(&size, "size", "", "size like 10G, at most 64T; space is taken only as data is written")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if size == "" {
			return usageError{errNoSize}
		}
		if err := units.CheckName(args[0]); err != nil {
			return err
		}
		n, err := units.ParseVDiskSize(size)
		if err != nil {
			return err
		}
		return a.call(func(ctx context.Context, c *api.Client) error {
			v, err := c.CreateVDisk(ctx, args[0], n)
			if err != nil {
				return err
			}
			return a.print(v, func(t *table) { t.row("created", v.Name, units.HumanSize(v.SizeBytes), v.URI) })
		})
	}
	return cmd
}

func (a *app) vdiskList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "list vDisks", Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			return a.call(func(ctx context.Context, c *api.Client) error {
				list, err := c.ListVDisks(ctx)
				if err != nil {
					return err
				}
				return a.print(list, func(t *table) {
					t.row("NAME", "SIZE", "MAPPED", "STORED", "JOURNAL", "CONNECTIONS", "MODE", "ALLOW", "PROBLEM")
					for _, v := range list {
						t.row(v.Name, units.HumanSize(v.SizeBytes), units.HumanSize(v.MappedBytes), units.HumanSize(v.StoredBytes),
							units.HumanSize(v.JournalBytes), v.Connections, mode(v), allowed(v, allowShown), orDash(v.Problem))
					}
				})
			})
		},
	}
}

func (a *app) vdiskShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "show a vDisk", Args: takes("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.call(func(ctx context.Context, c *api.Client) error {
				v, err := c.ShowVDisk(ctx, args[0])
				if err != nil {
					return err
				}
				return a.print(v, func(t *table) { vdiskTable(t, v) })
			})
		},
	}
}

func mode(v api.VDisk) string {
	if v.ReadOnly {
		return "read-only"
	}
	return "writable"
}

// cached says whether and how much a vDisk is cached.
func cached(v api.VDisk) string {
	if v.NoCache {
		return "off"
	}
	s := "on"
	if v.BlockCacheQuota > 0 {
		s += ", at most " + units.HumanSize(v.BlockCacheQuota) + " of each tier of blocks"
	}
	if v.FragCacheQuota > 0 {
		s += ", at most " + units.HumanSize(v.FragCacheQuota) + " of fragments"
	}
	return s
}

// allowShown is how many words of an access list a list of vDisks has room for.
const allowShown = 3

func allowed(v api.VDisk, most int) string {
	if len(v.Allow) <= most {
		return orDash(strings.Join(v.Allow, " "))
	}
	return fmt.Sprintf("%s and %d more", strings.Join(v.Allow[:most], " "), len(v.Allow)-most)
}

func (a *app) vdiskSet() *cobra.Command {
	var readOnly bool
	var allow []string
	var cache string
	cmd := &cobra.Command{Use: "set NAME", Args: takes("NAME"),
		Short: "say what a vDisk is: read-only, open to whom, cached how much",
		Long: "Change the settings of a vDisk; those that are not named stay. They count for connections made from now\n" +
			"on, and outlive a restart.\n\n" +
			"--read-only (--read-only=false to end it) is refused while the vDisk is in use.\n\n" +
			"--allow replaces the access list; give it once for each word. One that fits is enough:\n" +
			"  10.0.0.0/8  2001:db8::/32   clients of that network; 0.0.0.0/0 is all of IPv4, ::/0 all of IPv6\n" +
			"  10.0.0.7    fe80::1%eth0    that client\n" +
			"  unix                        clients of a unix socket, whose file's mode says who they are\n" +
			"  cert:NAME                   TLS clients whose certificate bears that name (--nbd-tls)\n" +
			"  psk:NAME                    TLS clients that know the key of that name\n" +
			"  all                         alone: no list, open to whoever reaches the socket\n" +
			"Whom the new list does not admit is disconnected at once. Exports that a client may not open are not\n" +
			"listed to it.\n\n" +
			"--cache and the quotas count at once, also while clients are connected. The sum of quotas may be\n" +
			"more than there is: then each has a share in proportion. `vstor cache ls` shows it all."}
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "connections can only read")
	cmd.Flags().StringArrayVar(&allow, "allow", nil, "whom it is open to; again for more")
	cmd.Flags().StringVar(&cache, "cache", "", "on or off: whether blocks that were read are kept")
	cmd.Flags().String("block-cache-quota", "",
		"what it may have of each tier of the block cache: a size, or default")
	cmd.Flags().String("fragment-cache-quota", "",
		"what it may have of the fragment cache: a size, or default")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var s api.VDiskSettings
		if cmd.Flags().Changed("cache") {
			on, err := parseOnOff("cache", cache)
			if err != nil {
				return err
			}
			s.Cache = &on
		}
		var err error
		if s.BlockCacheQuota, err = quotaFlag(cmd, "block-cache-quota"); err != nil {
			return err
		}
		if s.FragCacheQuota, err = quotaFlag(cmd, "fragment-cache-quota"); err != nil {
			return err
		}
		if cmd.Flags().Changed("read-only") {
			s.ReadOnly = &readOnly
		}
		s.Allow = allow
		if s.None() {
			return usageError{errors.New("there is nothing to set: --read-only, --read-only=false, --allow WHO, " +
				"--cache on|off, --block-cache-quota SIZE or --fragment-cache-quota SIZE")}
		}
		return a.call(func(ctx context.Context, c *api.Client) error {
			v, err := c.SetVDisk(ctx, args[0], s)
			if err != nil {
				return err
			}
			return a.print(v, func(t *table) {
				t.row("set", v.Name, mode(v.VDisk), "open to", allowed(v.VDisk, len(v.Allow)), "cache", cached(v.VDisk))
				if v.Disconnected > 0 {
					t.row("closed", fmt.Sprintf("%d connections that the list does not admit", v.Disconnected))
				}
			})
		})
	}
	return cmd
}

func vdiskTable(t *table, v api.VDisk) {
	t.row("name", v.Name)
	t.row("id", v.ID)
	t.row("uri", v.URI)
	t.row("size", units.HumanSize(v.SizeBytes))
	if !v.Created.IsZero() {
		t.row("created", v.Created.Local().Format(time.DateTime))
	}
	t.row("connections", v.Connections)
	t.row("mode", mode(v))
	t.row("allow", allowed(v, len(v.Allow)))
	t.row("cache", cached(v))
	t.row("mapped", units.HumanSize(v.MappedBytes)+" of the address space holds data on the drives")
	t.row("journal", units.HumanSize(v.JournalBytes)+" acknowledged and not on the drives yet")
	t.row("stored", units.HumanSize(v.StoredBytes)+" on the drives, parity and garbage included")
	t.row("garbage", units.HumanSize(v.GarbageBytes)+" replaced by newer writes, to be cleaned")
	t.row("SCOs", v.SCOs)
	t.row("reads", v.ReadOps, units.HumanSize(int64(v.ReadBytes)))
	t.row("writes", v.WriteOps, units.HumanSize(int64(v.WriteBytes)))
	if v.Problem != "" {
		t.row("problem", v.Problem)
	}
}

func (a *app) vdiskRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Aliases: []string{"remove"}, Short: "remove a vDisk and its data; refused while in use",
		Args: takes("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.call(func(ctx context.Context, c *api.Client) error {
				if err := c.RemoveVDisk(ctx, args[0]); err != nil {
					return err
				}
				return a.print(map[string]string{"removed": args[0]}, func(t *table) { t.row("removed", args[0]) })
			})
		},
	}
}
