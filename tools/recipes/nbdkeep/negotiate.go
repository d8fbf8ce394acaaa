package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The handshake, as far as this command needs it, all numbers big endian:
//
//	server   "NBDMAGIC" "IHAVEOPT" flags u16
//	client   flags u32, then an option: "IHAVEOPT" option u32 length u32 data
//	         (7 is GO: its data is the name's length u32, the name, and how many facts are wanted u16)
//	server   replies until one is an acknowledgement (1) or an error (bit 31):
//	         magic u64 option u32 kind u32 length u32 data; kind 3 is a fact u16: 0 is size u64 and flags u16
const (
	magicServer = 0x4e42444d41474943
	magicOption = 0x49484156454f5054
	magicReply  = 0x3e889045565a9
	optionGo    = 7
	kindAck     = 1
	kindFact    = 3
	kindUnknown = 1<<31 | 6
)

// errRefused is an answer that trying again will not change.
var errRefused = errors.New("the server refuses")

// negotiate leaves the connection where the kernel takes over, and returns the size of the export in bytes.
func negotiate(c io.ReadWriter, export string) (size uint64, err error) {
	var hello [18]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint64(hello[:]) != magicServer || binary.BigEndian.Uint64(hello[8:]) != magicOption {
		return 0, fmt.Errorf("%w: this is no NBD server", errRefused)
	}
	flags := uint32(binary.BigEndian.Uint16(hello[16:])) & 3 // fixed newstyle, no zeroes: the flags are the same both ways
	b := binary.BigEndian.AppendUint32(nil, flags)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, optionGo)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(export)+2))
	b = binary.BigEndian.AppendUint32(b, uint32(len(export)))
	b = append(append(b, export...), 0, 0)
	if _, err := c.Write(b); err != nil {
		return 0, err
	}
	for {
		var h [20]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return 0, err
		}
		kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if binary.BigEndian.Uint64(h[:]) != magicReply || n > 64<<10 {
			return 0, fmt.Errorf("%w: what it replies is no NBD", errRefused)
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(c, data); err != nil {
			return 0, err
		}
		switch {
		case kind == kindAck:
			return size, nil
		case kind == kindUnknown: // while a server starts it may not have the export yet
			return 0, fmt.Errorf("the server has no export %q: %.200s", export, data)
		case kind>>31 != 0:
			return 0, fmt.Errorf("%w, with %#x: %.200s", errRefused, kind, data)
		case kind == kindFact && n >= 12 && binary.BigEndian.Uint16(data) == 0:
			size = binary.BigEndian.Uint64(data[2:])
		}
	}
}
