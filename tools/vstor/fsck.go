package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/node"
	"vstor/dataplane/units"
)

// stopped takes the folder of a deployment that does not run, as `up` does, so that nobody starts it
// meanwhile, and reads its settings.
func (a *app) stopped() (*config.Dir, config.Config, error) {
	if !config.IsDeployment(a.dir) {
		return nil, config.Config{}, errs.New(errs.Absent,
			"%s is no deployment's folder; --dir or VSTOR_DIR says which one is meant", a.dir)
	}
	d, err := config.OpenDir(a.dir)
	if err != nil {
		return nil, config.Config{}, err
	}
	cfg, _, err := a.resolve(d, config.Source{Name: "the command line"})
	if err == nil && d.Fresh() {
		err = errs.New(errs.Absent, "the first start of %s has not finished; there is nothing in it", d.Path)
	}
	if err != nil {
		d.Close()
		return nil, config.Config{}, err
	}
	return d, cfg, nil
}

func (a *app) fsckCommand() *cobra.Command {
	var o node.FsckOptions
	cmd := &cobra.Command{
		Use: "fsck", Short: "check a deployment that does not run, and repair it",
		Long: "Check a deployment that does not run: each ASD's index against itself; with --data every fragment against\n" +
			"its checksums; with --manifests what the metadata store says against what the ASDs have. With --repair,\n" +
			"manifests, numbers and names that are lost are made again from the ASDs and DIR/vdisks.json, if need be all\n" +
			"of them (what is left of the metadata store is kept as DIR/meta.old), and fragments that are lost or damaged\n" +
			"are marked, so that the next start writes them again. Without --repair nothing is changed.",
		Args: takes(),
	}
	cmd.Flags().BoolVar(&o.Manifests, "manifests", false, "compare manifests with what the ASDs have")
	cmd.Flags().BoolVar(&o.Data, "data", false, "read and verify every fragment")
	cmd.Flags().BoolVar(&o.Repair, "repair", false, "set right what can be")
	cmd.RunE = func(*cobra.Command, []string) error { return a.fsck(o) }
	return cmd
}

func (a *app) fsck(o node.FsckOptions) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d, cfg, err := a.stopped()
	if err != nil {
		return err
	}
	defer d.Close()
	o.Config, o.Progress = cfg, func(s string) { fmt.Fprintln(a.stderr, "fsck: "+s) }
	r, err := node.Fsck(ctx, o)
	if len(r.ASDs) > 0 {
		if perr := a.print(r, func(t *table) { fsckTable(t, r) }); err == nil {
			err = perr
		}
	}
	if err != nil {
		return err
	}
	left := r.Found - r.Repaired
	switch {
	case left == 0:
		return nil
	case o.Repair:
		return errs.New(errs.Corrupt, "%d of %d faults could not be repaired", left, r.Found)
	case !o.Manifests:
		return errs.New(errs.Corrupt, "%d faults were found; `vstor fsck --manifests --repair` repairs what can be", left)
	}
	return errs.New(errs.Corrupt, "%d faults were found; with --repair those that can be are repaired", left)
}

// findingsShown bounds the findings that the table lists; JSON has more.
const findingsShown = 50

func fsckTable(t *table, r *node.FsckReport) {
	t.row("ASD", "FRAGMENTS", "BYTES", "CORRUPT", "LACKING", "PROBLEM")
	for _, d := range r.ASDs {
		t.row(d.ID, d.Fragments, units.HumanSize(d.Bytes), d.Corrupt, d.Lacking, orDash(d.Problem))
	}
	if len(r.VDisks) > 0 {
		t.row()
		t.row("VDISK", "MANIFESTS", "MADE AGAIN", "LOST", "FRAGMENTS MISSING", "LEFT OVER")
		for _, v := range r.VDisks {
			t.row(v.Name, v.Objects, v.Rebuilt, v.Lost, v.Missing, v.Leftover)
		}
	}
	t.row()
	for i, f := range r.Findings {
		if i == findingsShown {
			t.row(fmt.Sprintf("and %d more; --json lists up to 1000", r.Found-i))
			break
		}
		t.row(f)
	}
	t.row(fmt.Sprintf("%d faults found, %d repaired", r.Found, r.Repaired))
}

func (a *app) asdRebuildIndexCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rebuild-index ID", Short: "make an ASD's index again from the drive, while nothing runs", Args: takes("ID"),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := asdID(args[0])
			if err != nil {
				return err
			}
			return a.rebuildIndex(int(id))
		},
	}
}

func (a *app) rebuildIndex(id int) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d, cfg, err := a.stopped()
	if err != nil {
		return err
	}
	defer d.Close()
	told := -1
	r, err := node.RebuildIndex(ctx, cfg, nil, id, func(done, total int64) {
		if percent := int(done * 100 / max(total, 1)); percent/5 > told {
			told = percent / 5
			fmt.Fprintf(a.stderr, "rebuild-index: %d %%, %s of %s\n", percent, units.HumanSize(done), units.HumanSize(total))
		}
	})
	if err != nil {
		return err
	}
	return a.print(r, func(t *table) {
		s := fmt.Sprintf("the index of ASD %d has %d fragments with %s again", id, r.Fragments, units.HumanSize(r.Bytes))
		if r.DamagedCount > 0 {
			s += fmt.Sprintf("; %d damaged ones were left out", r.DamagedCount)
		}
		if r.Unreadable > 0 {
			s += fmt.Sprintf("; %s of the drive could not be read", units.HumanSize(r.Unreadable))
		}
		t.row(s + "; what it lacks is written again from the other ASDs after the next start")
	})
}
