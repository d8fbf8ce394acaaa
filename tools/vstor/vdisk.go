package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"vstor/dataplane/api"
	"vstor/dataplane/units"
)

func (a *app) vdiskCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "vdisk", Short: "make, list, show and remove vDisks", Args: cobra.ArbitraryArgs,
		RunE: group}
	cmd.AddCommand(a.vdiskCreate(), a.vdiskList(), a.vdiskShow(), a.vdiskRemove())
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
					t.row("NAME", "SIZE", "MAPPED", "STORED", "JOURNAL", "CONNECTIONS", "PROBLEM")
					for _, v := range list {
						t.row(v.Name, units.HumanSize(v.SizeBytes), units.HumanSize(v.MappedBytes), units.HumanSize(v.StoredBytes),
							units.HumanSize(v.JournalBytes), v.Connections, orDash(v.Problem))
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

func vdiskTable(t *table, v api.VDisk) {
	t.row("name", v.Name)
	t.row("id", v.ID)
	t.row("uri", v.URI)
	t.row("size", units.HumanSize(v.SizeBytes))
	if !v.Created.IsZero() {
		t.row("created", v.Created.Local().Format(time.DateTime))
	}
	t.row("connections", v.Connections)
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
