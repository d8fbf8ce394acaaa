package api

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"
)

// NBDURI is the URI of an export on a deployment's unix socket, as NBD clients take it; without a name,
// that of the server.
func NBDURI(dir, name string) string { return unixURI(filepath.Join(dir, "nbd.sock"), name) }

func unixURI(path, name string) string {
	path = (&url.URL{Path: path}).EscapedPath()
	return "nbd+unix:///" + url.PathEscape(name) + "?socket=" + strings.ReplaceAll(path, "+", "%2B")
}

// ListenerURI is the URI of the server behind a listener with that address; over TCP with TLS if there is any.
func ListenerURI(a net.Addr, tls bool) string {
	switch u, ok := a.(*net.UnixAddr); {
	case ok:
		return unixURI(u.Name, "")
	case tls:
		return "nbds://" + a.String() + "/"
	}
	return "nbd://" + a.String() + "/"
}
