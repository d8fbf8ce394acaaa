package node

import (
	"context"
	"fmt"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/stat"
	"vstor/dataplane/tlsconn"
)

// A certificate that ends is told of this long before, in the status at once and in the log once a day.
const (
	certWarning = 14 * 24 * time.Hour
	certLook    = 24 * time.Hour
)

// openTLS reads certificates and keys, if NBD has any.
func (n *Node) openTLS() (err error) {
	if !n.cfg.TLSOn() {
		return nil
	}
	n.tls, err = tlsconn.NewServer(tlsconn.Options{Dir: n.cfg.NBDTLSDir, VerifyPeer: n.cfg.NBDTLSVerify})
	if err != nil {
		return errs.Wrap(errs.Of(err), err, "NBD cannot be served with TLS")
	}
	n.background(n.watchCertificate)
	return nil
}

// Reload reads certificates and keys again. Handshakes that begin later use them; after an error the old ones go on.
func (n *Node) Reload(context.Context) error {
	if n.tls == nil {
		return errs.New(errs.Refused, "there is nothing to read again: NBD is served without TLS (--nbd-tls)")
	}
	if err := n.tls.Reload(); err != nil {
		n.log.Error("the certificates were not read again; the old ones go on", "error", err)
		return err
	}
	n.log.Info("certificates and keys were read again", "folder", n.cfg.NBDTLSDir)
	n.warnOfCertificate()
	return nil
}

func (n *Node) watchCertificate(ctx context.Context) {
	tick := time.NewTicker(certLook)
	defer tick.Stop()
	for {
		n.warnOfCertificate()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) warnOfCertificate() {
	if w := certificateWarning(n.tls.NotAfter(), time.Now()); w != "" {
		n.log.Warn(w, "folder", n.cfg.NBDTLSDir)
	}
}

// certificateWarning is empty while the certificate's end is far, or there is none.
func certificateWarning(end, now time.Time) string {
	left := end.Sub(now)
	const remedy = "renew it, then `vstor reload`"
	switch {
	case end.IsZero() || left > certWarning:
		return ""
	case left <= 0:
		return fmt.Sprintf("the certificate for NBD ended on %s, and clients turn away from it: %s",
			end.UTC().Format(time.DateOnly), remedy)
	}
	return fmt.Sprintf("the certificate for NBD ends on %s, in %d days: %s", end.UTC().Format(time.DateOnly),
		int(left/(24*time.Hour)), remedy)
}

func (n *Node) statusTLS(s *api.Status) {
	if n.tls == nil {
		return
	}
	end := n.tls.NotAfter()
	s.TLS = &api.TLS{Mode: n.cfg.NBDTLS, Dir: n.cfg.NBDTLSDir, VerifyPeer: n.cfg.NBDTLSVerify, CertificateEnds: end}
	if w := certificateWarning(end, time.Now()); w != "" {
		s.Warnings = append(s.Warnings, w)
	}
}

func (n *Node) tlsMetrics(p *stat.Page) {
	if n.tls == nil {
		return
	}
	if end := n.tls.NotAfter(); !end.IsZero() {
		p.Gauge("vstor_nbd_certificate_expiry_seconds", "when the certificate for NBD ends, in seconds since 1970",
			float64(end.Unix()))
	}
}
