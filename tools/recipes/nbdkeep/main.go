// Command nbdkeep keeps a block device of the kernel's NBD client alive while its server is away.
//
//	nbd-client -N db -C 4 -timeout 10 10.0.0.5 10809 /dev/nbd0
//	nbdkeep -connections 4 /dev/nbd0 10.0.0.5:10809 db
//
// The kernel can hold requests while a device has no connection, and take new connections for those that died.
// nbd-client before 3.27 asks for neither: with it, a device whose server restarts fails all requests for good.
// This command asks for both, and runs until it is stopped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// retryEvery is how long it waits between attempts to reach the server.
const retryEvery = 500 * time.Millisecond

// keeper is what it keeps: a device, and where its connections lead.
type keeper struct {
	index       uint32 // of /dev/nbdN
	size        uint64 // bytes
	addr        string // a path, or host:port
	export      string
	connections int
	dead        time.Duration
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("nbdkeep: ")
	var k keeper
	flag.IntVar(&k.connections, "connections", 1, "how many the device has: what nbd-client was told by -C")
	flag.DurationVar(&k.dead, "dead", 10*time.Minute, "how long requests wait for the server before they fail")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: nbdkeep [-connections N] [-dead DURATION] /dev/nbdN HOST:PORT|SOCKET EXPORT")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 3 || k.connections < 1 || k.dead < time.Second {
		flag.Usage()
		os.Exit(2)
	}
	k.addr, k.export = flag.Arg(1), flag.Arg(2)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := k.run(ctx, flag.Arg(0)); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// run keeps the device until ctx ends.
func (k *keeper) run(ctx context.Context, device string) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(device), "nbd"), 10, 31)
	if err != nil {
		return fmt.Errorf("%s is no device of the kernel's NBD client; /dev/nbd0 would be one", device)
	}
	k.index = uint32(n)
	b, err := os.ReadFile(fmt.Sprintf("/sys/block/nbd%d/size", n))
	if err != nil {
		return fmt.Errorf("%s: %w (is the module nbd loaded?)", device, err)
	}
	sectors, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 54)
	if err != nil || sectors == 0 {
		return fmt.Errorf("%s is not connected: run nbd-client first", device)
	}
	k.size = sectors * 512
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	go func() { <-ctx.Done(); nl.wake() }()
	if err := nl.reconfigure(k.index, k.dead, nil); err != nil {
		return fmt.Errorf("%s: %w (only a device that nbd-client connected without -nonetlink can be kept)", device, err)
	}
	log.Printf("%s: requests wait up to %v for %s", device, k.dead, k.addr)
	// What died before this point was told to nobody: the first round is for that.
	for {
		if err := k.renew(ctx, nl); err != nil {
			return err
		}
		if err := nl.linkDied(ctx, k.index); err != nil {
			return err
		}
		log.Printf("%s: a connection died", device)
	}
}

// renew offers the kernel as many connections as can be dead; it takes those it lacks and closes the others.
// To count the dead instead would go wrong with the first message that is lost.
func (k *keeper) renew(ctx context.Context, nl *netlink) error {
	for ; ; pause(ctx, retryEvery) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		files, err := k.connect(ctx)
		if err == nil {
			err = nl.reconfigure(k.index, k.dead, files)
			for _, f := range files {
				f.Close()
			}
			return err
		}
		if errors.Is(err, errRefused) {
			return err
		}
	}
}

// connect makes all the connections. They are handed over together, so that one that fails costs nothing.
func (k *keeper) connect(ctx context.Context) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}()
	for range k.connections {
		f, err := k.dial(ctx)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

func (k *keeper) dial(ctx context.Context) (*os.File, error) {
	network := "tcp"
	if strings.Contains(k.addr, "/") {
		network = "unix"
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, network, k.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close() // the copy below stays
	c.SetDeadline(time.Now().Add(10 * time.Second))
	size, err := negotiate(c, k.export)
	if err != nil {
		return nil, err
	}
	if size != k.size {
		return nil, fmt.Errorf("%w: %s has %d bytes now and the device %d", errRefused, k.export, size, k.size)
	}
	return c.(interface{ File() (*os.File, error) }).File()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
