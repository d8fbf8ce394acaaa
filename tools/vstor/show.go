package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

var errNoSize = errors.New("a vDisk needs a size: --size 10G")

func (a *app) asdCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "asd", Short: "list, show and run ASDs, the stores of the drives",
		Args: cobra.ArbitraryArgs, RunE: group}
	ls := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "list ASDs", Args: takes()}
	ls.RunE = func(*cobra.Command, []string) error {
		return a.call(func(ctx context.Context, c *api.Client) error {
			list, err := c.ListASDs(ctx)
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				t.row("ID", "NODE", "STATE", "SIZE", "USED", "FREE", "FRAGMENTS", "PROBLEM")
				for _, d := range list {
					t.row(d.ID, d.Node, d.State, units.HumanSize(d.SizeBytes), units.HumanSize(d.UsedBytes),
						units.HumanSize(d.FreeBytes),
						d.Fragments, orDash(d.Problem))
				}
			})
		})
	}
	show := &cobra.Command{Use: "show ID", Short: "show an ASD", Args: takes("ID")}
	show.RunE = func(_ *cobra.Command, args []string) error {
		id, err := asdID(args[0])
		if err != nil {
			return err
		}
		return a.call(func(ctx context.Context, c *api.Client) error {
			d, err := c.ShowASD(ctx, id)
			if err != nil {
				return err
			}
			return a.print(d, func(t *table) { asdTable(t, d) })
		})
	}
	cmd.AddCommand(ls, show, a.asdRunCommand(), a.asdFormatCommand(), a.asdFaultCommand(), a.asdRebuildIndexCommand())
	return cmd
}

// asdID reads the number of an ASD.
func asdID(word string) (uint32, error) {
	id, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return 0, errs.New(errs.Invalid, "%.40q is no ASD: an ASD's id is a number from 0; `vstor asd ls` lists them", word)
	}
	return uint32(id), nil
}

func asdTable(t *table, d api.ASD) {
	t.row("id", d.ID)
	t.row("uuid", d.UUID)
	t.row("node", d.Node)
	t.row("state", d.State)
	t.row("path", d.Path)
	t.row("size", units.HumanSize(d.SizeBytes))
	t.row("used", units.HumanSize(d.UsedBytes))
	t.row("free", units.HumanSize(d.FreeBytes))
	t.row("quarantined", units.HumanSize(d.DeferredBytes)+" deleted, not to be reused yet")
	t.row("fragments", d.Fragments)
	t.row("reads", d.ReadOps, units.HumanSize(int64(d.ReadBytes)))
	if d.PID != 0 {
		t.row("", d.SocketReads, units.HumanSize(int64(d.SocketBytes))+" over its socket")
		t.row("", d.ShortReads, units.HumanSize(int64(d.ShortBytes))+" of its drive itself, short-circuit; "+
			fmt.Sprintf("%d too late, %d leases dropped", d.LateReads, d.LeasesDropped))
		t.row("", d.ExtentMisses, fmt.Sprintf("did not know where; %d fragments known, %s", d.Extents,
			units.HumanSize(d.ExtentBytes)))
	}
	t.row("writes", d.WriteOps, units.HumanSize(int64(d.WriteBytes)))
	t.row("corrupt", d.Corrupt, "pieces found corrupt")
	if d.PID != 0 || d.Restarts != 0 {
		t.row("process", d.PID, fmt.Sprintf("started again %d times", d.Restarts))
	}
	if d.Problem != "" {
		t.row("problem", d.Problem)
	}
}

func (a *app) statusCommand() *cobra.Command {
	var memory bool
	cmd := &cobra.Command{Use: "status", Short: "how the deployment is doing", Args: takes()}
	cmd.Flags().BoolVar(&memory, "memory", false, "where its memory is, pool by pool")
	cmd.RunE = func(*cobra.Command, []string) error {
		return a.call(func(ctx context.Context, c *api.Client) error {
			if memory {
				m, err := c.Memory(ctx)
				if err != nil {
					return err
				}
				return a.print(m, func(t *table) { memoryTable(t, m) })
			}
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			return a.print(s, func(t *table) { statusTable(t, s) })
		})
	}
	return cmd
}

func statusTable(t *table, s api.Status) {
	t.row("state", s.State)
	for _, r := range s.Reasons {
		t.row("", r)
	}
	t.row("version", s.Version)
	t.row("folder", s.Dir)
	t.row("process", fmt.Sprintf("%d, up for %s", s.PID, seconds(s.UptimeSeconds)))
	for _, u := range s.NBD {
		t.row("nbd", u)
	}
	if s.TLS != nil {
		t.row("tls", tlsWords(s.TLS))
	}
	t.row("connections", fmt.Sprintf("%d of at most %d", s.Connections, s.MaxConnections))
	usable := s.UsablePolicy
	if usable == "" {
		usable = "none can be kept now"
	}
	t.row("policies", strings.Join(s.Policies, " then ")+"; new data gets "+usable)
	t.row("vDisks", s.VDisks)
	t.row("ASDs", fmt.Sprintf("%d of %d up", s.ASDsUp, s.ASDs))
	t.row("space", fmt.Sprintf("%s of %s used, %s of it garbage", units.HumanSize(s.UsedBytes),
		units.HumanSize(s.CapacityBytes), units.HumanSize(s.GarbageBytes)))
	t.row("journal", fmt.Sprintf("%s of %s used", units.HumanSize(s.JournalUsed), units.HumanSize(s.JournalBytes)))
	t.row("corrupt", corrupt(s))
	for _, w := range s.Warnings {
		t.row("warning", w)
	}
	for _, u := range s.Unprotected {
		t.row("unprotected", u)
	}
}

func tlsWords(t *api.TLS) string {
	out := t.Mode
	if t.Mode == config.TLSRequired {
		out += " over TCP"
	}
	if t.VerifyPeer {
		out += ", clients need a certificate or a key"
	}
	if !t.CertificateEnds.IsZero() {
		out += ", certificate until " + t.CertificateEnds.Local().Format(time.DateTime)
	}
	return out + ", from " + t.Dir
}

// corrupt says how often damage was met, and where.
func corrupt(s api.Status) string {
	out := fmt.Sprintf("%d pieces found corrupt", s.CorruptBlocks)
	for _, place := range slices.Sorted(maps.Keys(s.CorruptPlaces)) {
		if n := s.CorruptPlaces[place]; n > 0 {
			out += fmt.Sprintf(", %s %d", place, n)
		}
	}
	return out
}

func memoryTable(t *table, m api.Memory) {
	t.row("POOL", "AT MOST", "NOW", "USED BY")
	for _, p := range m.Pools {
		t.row(p.Name, units.HumanSize(p.BoundBytes), units.HumanSize(p.UsedBytes), p.User)
	}
	t.row("sum", units.HumanSize(m.PoolBytes), "", "all pools")
	t.row("rest", units.HumanSize(m.AllowanceBytes), "", "code, stacks, the Go heap")
	t.row("process", units.HumanSize(m.PoolBytes+m.AllowanceBytes), units.HumanSize(m.ResidentBytes), "resident")
}
