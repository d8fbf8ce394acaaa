package nbd

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"vstor/dataplane/errs"
	"vstor/dataplane/tlsconn"
)

// handshake is the server's side of the negotiation, up to the export the client chose. It reads
// exactly what it needs and never ahead: the byte after the last option belongs to transmission, which
// takes over the bare descriptor, and the byte after STARTTLS to TLS, so that nothing which came in the
// clear is ever taken for something that came protected.
type handshake struct {
	rw      io.ReadWriter
	exports Exports
	closing func() bool // the server shuts down: options are answered with ERR_SHUTDOWN

	startTLS func() (io.ReadWriter, tlsconn.Identity, error) // nil: there is no TLS
	forceTLS bool                                            // nothing but STARTTLS before it
	peer     Peer

	fixed    bool
	noZeroes bool
	agreed   agreed
	out      []byte // replies not written yet
	in       [optionSize]byte
}

// outFlush is how many bytes of replies are collected before they are written: a LIST of a thousand
// exports must not cost a thousand exports of memory.
const outFlush = 4096

// optionsMax is how many options one handshake may have: a client needs a dozen, and each LIST costs us a look at
// all exports.
const optionsMax = 256

var (
	errAborted = errors.New("the client ended the handshake")
	errBadPeer = errors.New("the client broke the protocol")
)

// run negotiates. The Export is the caller's to close. errAborted is a polite end without one.
func (h *handshake) run() (Export, error) {
	h.out = appendGreeting(h.out[:0])
	if err := h.flush(); err != nil {
		return nil, err
	}
	if err := h.clientFlags(); err != nil {
		return nil, err
	}
	for range optionsMax {
		if _, err := io.ReadFull(h.rw, h.in[:]); err != nil {
			return nil, err
		}
		opt, length, ok := parseOption(h.in[:])
		if !ok {
			return nil, fmt.Errorf("%w: an option does not start with IHAVEOPT", errBadPeer)
		}
		exp, err := h.option(opt, length)
		if ferr := h.flush(); err == nil {
			err = ferr
		}
		if err != nil {
			if exp != nil {
				exp.Close()
			}
			return nil, err
		}
		if exp != nil {
			return exp, nil
		}
	}
	return nil, fmt.Errorf("%w: more than %d options", errBadPeer, optionsMax)
}

func (h *handshake) clientFlags() error {
	if _, err := io.ReadFull(h.rw, h.in[:4]); err != nil {
		return err
	}
	flags := uint32(h.in[0])<<24 | uint32(h.in[1])<<16 | uint32(h.in[2])<<8 | uint32(h.in[3])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("%w: client flags %#x were not offered", errBadPeer, flags)
	}
	h.fixed, h.noZeroes = flags&flagFixedNewstyle != 0, flags&flagNoZeroes != 0
	return nil
}

// option answers one option. An Export ends the handshake, an error the connection.
func (h *handshake) option(opt Option, length uint32) (Export, error) {
	if !h.fixed && opt != OptExportName {
		return nil, fmt.Errorf("%w: option %d without fixed newstyle", errBadPeer, opt)
	}
	if h.forceTLS && !h.peer.TLS && opt != OptStartTLS && opt != OptAbort {
		return nil, h.insist(opt, length)
	}
	data, err := h.payload(opt, length)
	if data == nil || err != nil {
		return nil, err
	}
	if opt == OptAbort {
		h.ack(opt)
		h.flush() // the client may be gone already, which is fine
		return nil, errAborted
	}
	if h.closing() {
		if opt == OptExportName {
			return nil, errs.New(errs.Closed, "the server is shutting down")
		}
		h.fail(opt, RepErrShutdown, "the server is shutting down")
		return nil, nil
	}
	switch opt {
	case OptExportName:
		return h.exportName(data)
	case OptInfo, OptGo:
		return h.info(opt, data)
	case OptListMeta, OptSetMeta:
		h.meta(opt, data)
	case OptList, OptStartTLS, OptStructured, OptExtendedHeaders:
		if len(data) != 0 {
			h.fail(opt, RepErrInvalid, "option %d came with %d bytes of data; it has none", opt, len(data))
			return nil, nil
		}
		return nil, h.bare(opt)
	default:
		h.fail(opt, RepErrUnsup, "option %d is not known", opt)
	}
	return nil, nil
}

// bare answers the options that have no data.
func (h *handshake) bare(opt Option) error {
	switch opt {
	case OptList:
		return h.list()
	case OptStartTLS:
		return h.upgrade()
	case OptStructured:
		switch h.agreed.mode {
		case Simple:
			h.agreed.mode = Structured
			h.ack(opt)
		case Structured:
			h.fail(opt, RepErrInvalid, "structured replies were agreed on already")
		case Extended:
			h.fail(opt, RepErrExtended, "extended headers were agreed on, which include structured replies")
		}
	case OptExtendedHeaders:
		if h.agreed.mode == Extended {
			h.fail(opt, RepErrInvalid, "extended headers were agreed on already")
			return nil
		}
		h.agreed.mode = Extended
		h.ack(opt)
	}
	return nil
}

// payload reads an option's data. Too much of it is skipped and answered, which leaves data nil;
// far too much ends the connection. An option without data yields an empty, non-nil slice.
func (h *handshake) payload(opt Option, length uint32) ([]byte, error) {
	if length <= optionMax {
		data := make([]byte, length)
		_, err := io.ReadFull(h.rw, data)
		return data, err
	}
	if err := h.skip(opt, length); err != nil {
		return nil, err
	}
	if opt == OptExportName { // which has no way to say no
		return nil, fmt.Errorf("%w: an export name of %d bytes", errBadPeer, length)
	}
	if opt == OptAbort {
		h.ack(opt)
		h.flush()
		return nil, errAborted
	}
	if opt == OptSetMeta { // a SET that fails counts too
		h.agreed.metaName, h.agreed.contexts = "", 0
	}
	h.fail(opt, RepErrTooBig, "option %d has %d bytes of data; at most %d are read", opt, length, optionMax)
	return nil, nil
}

// skip reads an option's data and forgets it.
func (h *handshake) skip(opt Option, length uint32) error {
	if length > optionSkipMax {
		return fmt.Errorf("%w: option %d announces %d bytes", errBadPeer, opt, length)
	}
	// 512 bytes at a time: io.Discard brings 8 KiB of its own.
	var skip [512]byte
	for left := int(length); left > 0; {
		n, err := io.ReadFull(h.rw, skip[:min(left, len(skip))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func (h *handshake) exportName(data []byte) (Export, error) {
	if len(data) > nameMax {
		return nil, fmt.Errorf("%w: an export name of %d bytes", errBadPeer, len(data))
	}
	if h.agreed.mode == Extended {
		return nil, fmt.Errorf("%w: EXPORT_NAME after extended headers, which need GO", errBadPeer)
	}
	exp, err := h.exports.Open(string(data), h.peer)
	if err != nil {
		return nil, err
	}
	e := exp.Info()
	h.out = appendExportName(h.out, e, h.agreed.transmissionFlags(e), !h.noZeroes)
	return exp, nil
}

func (h *handshake) info(opt Option, data []byte) (Export, error) {
	req, err := parseInfoRequest(data)
	if err != nil {
		h.fail(opt, RepErrInvalid, "%v", err)
		return nil, nil
	}
	exp, err := h.exports.Open(string(req.name), h.peer)
	if err != nil {
		h.fail(opt, replyOf(errs.Of(err)), "%v", err)
		return nil, nil
	}
	e := exp.Info()
	h.out = appendInfos(h.out, opt, req, e, h.agreed.transmissionFlags(e))
	h.ack(opt)
	if opt == OptInfo {
		exp.Close()
		return nil, nil
	}
	return exp, nil
}

func (h *handshake) list() error {
	for _, e := range h.exports.List(h.peer) {
		h.out = appendServer(h.out, e)
		if len(h.out) >= outFlush {
			if err := h.flush(); err != nil {
				return err
			}
		}
	}
	h.ack(OptList)
	return nil
}

func (h *handshake) ack(opt Option) { h.out = appendOptionReply(h.out, opt, RepAck, 0) }

// fail answers an option with an error and the sentence that goes with it.
func (h *handshake) fail(opt Option, rep OptionReply, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	msg = strings.ToValidUTF8(msg[:min(len(msg), nameMax)], "")
	h.out = appendOptionReply(h.out, opt, rep, len(msg))
	h.out = append(h.out, msg...)
}

func (h *handshake) flush() error {
	if len(h.out) == 0 {
		return nil
	}
	_, err := h.rw.Write(h.out)
	h.out = h.out[:0]
	return err
}
