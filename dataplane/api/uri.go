package api

import (
	"net/url"
	"path/filepath"
	"strings"
)

// NBDURI is the URI of an export on a deployment's unix socket, as NBD clients take it; without a name,
// that of the server.
func NBDURI(dir, name string) string {
	path := (&url.URL{Path: filepath.Join(dir, "nbd.sock")}).EscapedPath()
	return "nbd+unix:///" + url.PathEscape(name) + "?socket=" + strings.ReplaceAll(path, "+", "%2B")
}
