package nbd

import (
	"vstor/dataplane/errs"
)

// agreed is what options have changed so far. STARTTLS makes the server forget it.
type agreed struct {
	mode     Mode
	metaName string     // the export that contexts were selected for
	contexts contextSet // for metaName
}

// contextsOf are the contexts that hold if the client takes e: those it selected for it.
func (a *agreed) contextsOf(e ExportInfo) contextSet {
	if a.metaName != e.Name {
		return 0
	}
	return a.contexts
}

func (a *agreed) transmissionFlags(e ExportInfo) uint16 {
	return transmissionFlags(e, a.mode, a.contextsOf(e))
}

// terms are what transmission on e goes by.
func (a *agreed) terms(e ExportInfo) terms {
	return terms{size: e.Size, readOnly: e.ReadOnly, mode: a.mode, contexts: a.contextsOf(e)}
}

// upgrade goes over to TLS. The error of a TLS handshake is the connection's end.
func (h *handshake) upgrade() error {
	switch {
	case h.startTLS == nil:
		h.fail(OptStartTLS, RepErrUnsup, "this server has no TLS; connect without it")
		return nil
	case h.peer.TLS:
		h.fail(OptStartTLS, RepErrInvalid, "the connection is under TLS already")
		return nil
	}
	h.ack(OptStartTLS)
	if err := h.flush(); err != nil {
		return err
	}
	rw, id, err := h.startTLS()
	if err != nil {
		return err
	}
	h.rw, h.peer.TLS, h.peer.ID = rw, true, id
	h.agreed = agreed{} // whoever asked for it need not be the one who is there now
	return nil
}

// insist answers an option that came before TLS where TLS is required.
func (h *handshake) insist(opt Option, length uint32) error {
	if opt == OptExportName { // which has no way to say no
		return errs.New(errs.Refused, "the client asked for an export without TLS")
	}
	if err := h.skip(opt, length); err != nil {
		return err
	}
	h.fail(opt, RepErrTLSReqd, "this server requires TLS: begin with STARTTLS")
	return nil
}

// meta answers LIST_META_CONTEXT and SET_META_CONTEXT. A SET that fails has forgotten what was set before.
func (h *handshake) meta(opt Option, data []byte) {
	if opt == OptSetMeta {
		h.agreed.metaName, h.agreed.contexts = "", 0
	}
	if h.agreed.mode == Simple {
		h.fail(opt, RepErrInvalid, "metadata contexts need structured replies or extended headers first")
		return
	}
	req, err := parseMetaRequest(data)
	if err != nil {
		h.fail(opt, RepErrInvalid, "%v", err)
		return
	}
	exp, err := h.exports.Open(string(req.name), h.peer)
	if err != nil {
		h.fail(opt, replyOf(errs.Of(err)), "%v", err)
		return
	}
	name := exp.Info().Name
	exp.Close()
	contexts := req.listed()
	if opt == OptSetMeta {
		contexts = req.selected()
		h.agreed.metaName, h.agreed.contexts = name, contexts
	}
	h.out = appendContexts(h.out, opt, contexts)
	h.ack(opt)
}
