package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

// cluster is a Ceph cluster made by hand on loopback, without authentication: a monitor, a manager and six OSDs with
// bluestore on files. In it is a volume in a pool that replicates, and one whose data are erasure coded.
type cluster struct {
	opt     *Options
	dir     string
	daemons []*process
	frozen  bool
	failed  error // why it does not run
}

// cephVolume is one of its volumes. The cluster starts and stops with the first.
type cephVolume struct {
	*cluster
	as, image string
}

const (
	cephPool  = "rep"   // of three copies; the images themselves are in it
	cephEmpty = 1 << 30 // what an OSD keeps beside data; half of that was not enough for an hour
	cephBusy  = 50      // percent of the rest that the volumes may fill
)

func newCeph(opt *Options) (replicated, coded cephVolume) {
	c := &cluster{opt: opt, dir: filepath.Join(opt.Work, "c")}
	return cephVolume{c, cephRep, "bench3"}, cephVolume{c, cephEC, "bench42"}
}

// heavyPeers are those that have to be asked for.
func heavyPeers(opt *Options) []target {
	replicated, coded := newCeph(opt)
	return []target{guest{newTgt(opt)}, guest{replicated}, guest{coded}}
}

// cephSize is that of a volume: cells on Ceph write little, and what it holds takes space three times and half as much
// again.
func (o *Options) cephSize() int64 { return min(o.Size, 1<<30) }

func (o *Options) cephOSD() int64 { return cephEmpty + o.cephSize()*9/2/asdCount*100/cephBusy }

func (o *Options) cephSpace() int64 { return asdCount * o.cephOSD() }

func (v cephVolume) name() string { return v.as }

func (v cephVolume) start(ctx context.Context) error {
	if v.daemons == nil && v.failed == nil {
		v.failed = v.cluster.start(ctx)
	}
	if v.failed != nil {
		return v.failed
	}
	err := v.create(ctx)
	if err != nil && v.as == cephRep {
		v.failed = err // it is stopped for that, and is the other's cluster too
	}
	return err
}

// create makes the volume and fills it.
func (v cephVolume) create(ctx context.Context) error {
	size := strconv.FormatInt(v.opt.cephSize()>>20, 10)
	args := []string{"rbd", "-c", v.conf(), "create", cephPool + "/" + v.image, "--size", size}
	if v.as == cephEC {
		args = append(args, "--data-pool", "ec")
	}
	if err := command(ctx, args...); err != nil {
		return err
	}
	_, err := v.run(ctx, fillJob, 0)
	return err
}

func (v cephVolume) begin(context.Context, Job) error { return v.failed }
func (v cephVolume) end(context.Context) error        { return nil }

// stop stops the cluster, for the one that is stopped last.
func (v cephVolume) stop() error {
	if v.as != cephRep && v.failed == nil {
		return nil
	}
	return v.cluster.stop()
}

// freeze stops all daemons while others are measured, or has them go on. Of eight processes of which nothing is asked
// some wake up all the time, and take up to a twentieth of a core.
func (c *cluster) freeze(on bool) {
	if on == c.frozen {
		return
	}
	c.frozen = on
	sig := syscall.SIGCONT
	if on {
		sig = syscall.SIGSTOP
	}
	for _, p := range c.daemons {
		p.cmd.Process.Signal(sig)
	}
}

// lost: a daemon died, so neither volume can be measured any more.
func (c *cluster) lost(why error) { c.failed = why }

// cephRest is how long a job's aftermath is waited for at most. A cluster is never at rest: its daemons talk to one
// another and trim their logs whatever anybody asks of them.
const cephRest = 8 * time.Second

func (v cephVolume) rest(ctx context.Context, d time.Duration) error {
	return quiesce(ctx, v.pids(), min(d, cephRest))
}

func (v cephVolume) run(ctx context.Context, j Job, d time.Duration) (result, error) {
	at := aim{flags: []string{"--ioengine=rbd", "--clientname=admin", "--pool=" + cephPool, "--rbdname=" + v.image},
		env: []string{"CEPH_CONF=" + v.conf()}}
	return runFio(ctx, at, j, v.opt.cephSize(), d)
}

func (c *cluster) conf() string { return filepath.Join(c.dir, "ceph.conf") }

func (c *cluster) pids() (pids []int) {
	for _, p := range c.daemons {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return pids
}

// settings of all daemons and clients; no network but loopback, no memory beyond what an OSD asks for at least, and
// nobody takes the others for dead after they were frozen.
func (c *cluster) settings(fsid, mon string) string {
	return fmt.Sprintf(`[global]
fsid = %[1]s
mon_host = [v2:%[2]s]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = %[3]s
admin_socket = %[3]s/$name.asok
log_file = %[3]s/$name.log
crash_dir = %[3]s
mon_data = %[3]s/mon
mgr_data = %[3]s/mgr
osd_data = %[3]s/osd-$id
osd_objectstore = bluestore
bluestore_block_size = %[4]d
osd_memory_target = 939524096
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 3
osd_heartbeat_grace = 86400
osd_op_thread_timeout = 86400
osd_op_thread_suicide_timeout = 86400
mon_osd_report_timeout = 86400
mon_mgr_beacon_grace = 86400
osd_pool_default_pg_autoscale_mode = off
rbd_default_features = 1
rbd_cache = false
`, fsid, mon, c.dir, c.opt.cephOSD())
}

func (c *cluster) start(ctx context.Context) error {
	for tool, pkg := range map[string]string{"ceph": "ceph-common", "rbd": "ceph-common", "ceph-mon": "ceph-mon",
		"ceph-mgr": "ceph-mgr", "ceph-osd": "ceph-osd", "monmaptool": "ceph-common"} {
		if _, err := exec.LookPath(tool); err != nil {
			return errs.New(errs.Unsupported, "%s is not installed (package %s)", tool, pkg)
		}
	}
	if help, _ := exec.Command("fio", "--enghelp").CombinedOutput(); !strings.Contains(string(help), "\trbd\n") {
		return errs.New(errs.Unsupported, "this fio has no rbd engine")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	if err := os.MkdirAll(filepath.Join(c.dir, "mgr"), 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the folder of a Ceph cluster")
	}
	if err := c.startMonitor(ctx); err != nil {
		return err
	}
	if err := c.launch("ceph-mgr", "x"); err != nil {
		return err
	}
	for i := range asdCount {
		if err := c.startOSD(ctx, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return c.makePools(ctx)
}

func (c *cluster) startMonitor(ctx context.Context) error {
	addr, err := freePort()
	if err != nil {
		return err
	}
	fsid, monmap := newUUID(), filepath.Join(c.dir, "monmap")
	if err := os.WriteFile(c.conf(), []byte(c.settings(fsid, addr)), 0o600); err != nil {
		return errs.Wrap(errs.IO, err, "cannot write Ceph's settings")
	}
	if err := command(ctx, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", "[v2:"+addr+"]", monmap); err != nil {
		return err
	}
	if err := command(ctx, "ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "-c", c.conf()); err != nil {
		return err
	}
	return c.launch("ceph-mon", "a")
}

func (c *cluster) startOSD(ctx context.Context, id string) error {
	uuid := newUUID()
	if err := c.ceph(ctx, "osd", "new", uuid, id); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "osd-"+id), 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make an OSD's folder")
	}
	if err := command(ctx, "ceph-osd", "--mkfs", "-i", id, "--osd-uuid", uuid, "-c", c.conf()); err != nil {
		return err
	}
	return c.launch("ceph-osd", id)
}

func (c *cluster) launch(daemon, id string) error {
	log := filepath.Join(c.dir, daemon+"-"+id+".out")
	p, out, err := launch(log, daemon, "-f", "-i", id, "-c", c.conf())
	if err != nil {
		return err
	}
	c.daemons = append(c.daemons, p)
	go func() {
		io.Copy(io.Discard, out)
		p.reap()
	}()
	return nil
}

func (c *cluster) ceph(ctx context.Context, args ...string) error {
	return command(ctx, append([]string{"ceph", "-c", c.conf(), "--connect-timeout", "30"}, args...)...)
}

func (c *cluster) makePools(ctx context.Context) error {
	for _, words := range []string{
		"osd erasure-code-profile set p42 k=4 m=2 crush-failure-domain=osd",
		"osd pool create rep 32 32 replicated",
		"osd pool application enable rep rbd",
		"osd pool create ec 32 32 erasure p42",
		"osd pool set ec allow_ec_overwrites true",
		"osd pool application enable ec rbd",
	} {
		if err := c.ceph(ctx, strings.Fields(words)...); err != nil {
			return err
		}
	}
	return nil
}

// stop ends all daemons, the OSDs first.
func (c *cluster) stop() (err error) {
	c.freeze(false)
	for i := len(c.daemons) - 1; i >= 0; i-- {
		if e := c.daemons[i].stop(); e != nil {
			err = e
		}
	}
	c.daemons = nil
	return err
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
