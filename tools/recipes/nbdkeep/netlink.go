package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel's NBD driver is asked over generic netlink, numbers in the machine's order. A message is
//
//	length u32  family u16  flags u16  sequence u32  sender u32 | command u8  version u8  0 u16 | attributes
//
// and an attribute: length u16 (of itself with this header), kind u16, value, padding to four bytes. A value can
// be attributes again. The answer is an error message: 0 u32 on success.
const (
	cmdReconfigure = 3
	cmdLinkDead    = 4

	attrIndex   = 1 // u32
	attrSockets = 7 // of 1 (a socket) of 1 (its descriptor, u32)
	attrDead    = 8 // u64, seconds

	ctrlGetFamily  = 3
	ctrlFamilyID   = 1 // u16
	ctrlFamilyName = 2
	ctrlGroups     = 7 // of any (a group) of 1 (name) and 2 (u32)

	headerSize = 16 + 4
)

// netlink is two sockets: one for questions, one that hears what the driver tells everybody.
type netlink struct {
	ask, hear int
	family    uint16
	seq       uint32
	woken     *os.File // readable when hearing should end
	wakes     *os.File
}

func openNetlink() (*netlink, error) {
	nl := &netlink{ask: -1, hear: -1}
	var err error
	if nl.ask, err = genericSocket(); err == nil {
		nl.hear, err = genericSocket()
	}
	if err == nil {
		nl.woken, nl.wakes, err = os.Pipe()
	}
	if err == nil {
		err = nl.subscribe()
	}
	if err != nil {
		nl.close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return nl, nil
}

func genericSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (nl *netlink) close() {
	for _, fd := range []int{nl.ask, nl.hear} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if nl.wakes != nil {
		nl.woken.Close()
		nl.wakes.Close()
	}
}

func (nl *netlink) wake() { nl.wakes.Write([]byte{0}) }

// subscribe finds the driver's family and listens to its only group.
func (nl *netlink) subscribe() error {
	reply, err := nl.call(unix.GENL_ID_CTRL, ctrlGetFamily, attribute(nil, ctrlFamilyName, []byte("nbd\x00")))
	if err != nil {
		return fmt.Errorf("the kernel's NBD driver is not there: %w", err)
	}
	var group uint32
	each(reply, func(kind uint16, v []byte) {
		switch {
		case kind == ctrlFamilyID && len(v) >= 2:
			nl.family = binary.NativeEndian.Uint16(v)
		case kind == ctrlGroups:
			each(v, func(_ uint16, g []byte) {
				each(g, func(kind uint16, v []byte) {
					if kind == 2 && len(v) >= 4 {
						group = binary.NativeEndian.Uint32(v)
					}
				})
			})
		}
	})
	if nl.family == 0 || group == 0 {
		return errors.New("the kernel's NBD driver tells neither family nor group")
	}
	return unix.SetsockoptInt(nl.hear, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group))
}

// reconfigure sets how long requests wait for a connection, and gives the device files as connections in place
// of those that died. The kernel has its own references afterwards.
func (nl *netlink) reconfigure(index uint32, dead time.Duration, files []*os.File) error {
	a := attribute(nil, attrIndex, binary.NativeEndian.AppendUint32(nil, index))
	a = attribute(a, attrDead, binary.NativeEndian.AppendUint64(nil, uint64(dead/time.Second)))
	if len(files) > 0 {
		var list []byte
		for _, f := range files {
			fd := binary.NativeEndian.AppendUint32(nil, uint32(f.Fd()))
			list = attribute(list, 1, attribute(nil, 1, fd))
		}
		a = attribute(a, attrSockets, list)
	}
	_, err := nl.call(nl.family, cmdReconfigure, a)
	return err
}

// linkDied waits until the driver tells of a dead connection of the device.
func (nl *netlink) linkDied(ctx context.Context, index uint32) error {
	b := make([]byte, 8192)
	for {
		fds := []unix.PollFd{{Fd: int32(nl.hear), Events: unix.POLLIN}, {Fd: int32(nl.woken.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n, _, err := unix.Recvfrom(nl.hear, b, unix.MSG_DONTWAIT)
		if err == unix.ENOBUFS {
			return nil // some were lost: ours may be among them
		}
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		died := false
		if n >= headerSize && b[16] == cmdLinkDead {
			each(b[headerSize:n], func(kind uint16, v []byte) {
				died = died || kind == attrIndex && len(v) >= 4 && binary.NativeEndian.Uint32(v) == index
			})
		}
		if died {
			return nil
		}
	}
}

// call sends a command and returns the attributes of its answer.
func (nl *netlink) call(family uint16, command byte, attributes []byte) ([]byte, error) {
	nl.seq++
	m := binary.NativeEndian.AppendUint32(nil, uint32(headerSize+len(attributes)))
	m = binary.NativeEndian.AppendUint16(m, family)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m = binary.NativeEndian.AppendUint32(m, nl.seq)
	m = append(binary.NativeEndian.AppendUint32(m, 0), command, 1, 0, 0)
	m = append(m, attributes...)
	if err := unix.Sendto(nl.ask, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var answer []byte
	for b := make([]byte, 64<<10); ; {
		n, _, err := unix.Recvfrom(nl.ask, b, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		for msg := b[:n]; len(msg) >= 16; {
			size := int(binary.NativeEndian.Uint32(msg))
			if size < 16 || size > len(msg) {
				return nil, errors.New("the kernel's answer is cut off")
			}
			switch kind := binary.NativeEndian.Uint16(msg[4:]); {
			case kind == unix.NLMSG_ERROR && size >= 20:
				if e := int32(binary.NativeEndian.Uint32(msg[16:])); e != 0 {
					return nil, unix.Errno(uint32(-e))
				}
				return answer, nil
			case size >= headerSize:
				answer = append(answer, msg[headerSize:size]...)
			}
			msg = msg[min(len(msg), (size+3)&^3):]
		}
	}
}

// attribute appends one to a list.
func attribute(list []byte, kind uint16, value []byte) []byte {
	list = binary.NativeEndian.AppendUint16(list, uint16(4+len(value)))
	list = binary.NativeEndian.AppendUint16(list, kind)
	list = append(list, value...)
	for len(list)%4 != 0 {
		list = append(list, 0)
	}
	return list
}

// each goes over a list of attributes, as far as it is whole.
func each(list []byte, do func(kind uint16, value []byte)) {
	for len(list) >= 4 {
		size := int(binary.NativeEndian.Uint16(list))
		if size < 4 || size > len(list) {
			return
		}
		do(binary.NativeEndian.Uint16(list[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), list[4:size])
		list = list[min(len(list), (size+3)&^3):]
	}
}
