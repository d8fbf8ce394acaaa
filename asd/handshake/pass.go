package handshake

import (
	"net"

	"golang.org/x/sys/unix"

	"vstor/asd/proto"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
)

// The last step of a handshake in which both sides announced CapShortCircuit: the drive's descriptor, as SCM_RIGHTS
// beside the bytes of a Drive frame. Nowhere else does anybody ask the kernel for descriptors, so it drops those that
// a peer sends with other bytes.

// Drive is the descriptor that an ASD handed over; whoever has it closes it, or has dio.Adopt do so.
type Drive struct {
	FD int
	Is dio.Shared
}

// Close closes a descriptor that nobody adopts. On nil it does nothing.
func (d *Drive) Close() {
	if d != nil {
		unix.Close(d.FD)
	}
}

// Sharer gives the drive's descriptor, which is then the caller's; dio.Disk.Share is one.
type Sharer func() (fd int, is dio.Shared, err error)

// sendDrive hands the drive over, or says that it cannot.
func sendDrive(nc net.Conn, share Sharer) error {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return errs.New(errs.Unsupported, "a %T carries no descriptors", nc)
	}
	fd, is, err := share()
	var rights []byte
	if err == nil {
		defer unix.Close(fd)
		rights = unix.UnixRights(fd)
	}
	m := proto.Drive{Size: is.Size, Device: is.Device, Inode: is.Inode}
	b := link.Sealed(proto.TDrive, errs.OK, m.Append(nil))
	n, _, err := uc.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = nc.Write(b[n:]) // the descriptor went with the first byte
	}
	if err != nil {
		return errs.Wrap(errs.Unreachable, err, "handshake")
	}
	return nil
}

// rightsMax is for how many descriptors there is room; one is right. Those beyond are closed by the kernel.
const rightsMax = 4

// receiveDrive takes what sendDrive sent: nil if the ASD has none to give. Whatever else comes is an error, and no
// descriptor is left open.
func receiveDrive(nc net.Conn) (*Drive, error) {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return nil, errs.New(errs.Unsupported, "a %T carries no descriptors", nc)
	}
	r := &rightsReader{Conn: nc, uc: uc}
	body, err := speak(r).Read(proto.TDrive)
	var m proto.Drive
	if err == nil {
		err = m.Decode(body)
	}
	want := 1
	if m.Size == 0 {
		want = 0
	}
	if err == nil && (r.cut || len(r.fds) != want) {
		err = errs.New(errs.Corrupt, "handshake: %d descriptors or more came with %s; %d would be right", len(r.fds),
			proto.TypeName(proto.TDrive), want)
	}
	if err != nil {
		for _, fd := range r.fds {
			unix.Close(fd)
		}
		return nil, err
	}
	if want == 0 {
		return nil, nil
	}
	return &Drive{FD: r.fds[0], Is: dio.Shared{Size: m.Size, Device: m.Device, Inode: m.Inode}}, nil
}

// rightsReader reads a unix socket and keeps the descriptors that come with the bytes.
type rightsReader struct {
	net.Conn
	uc  *net.UnixConn
	fds []int
	cut bool // there were more than there is room for
}

func (r *rightsReader) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(rightsMax*4))
	n, oobn, flags, _, err := r.uc.ReadMsgUnix(p, oob)
	r.cut = r.cut || flags&unix.MSG_CTRUNC != 0 || len(r.fds) > rightsMax
	msgs, perr := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err == nil {
			r.fds = append(r.fds, fds...)
		}
	}
	if err == nil && perr != nil {
		err = perr
	}
	return n, err
}
