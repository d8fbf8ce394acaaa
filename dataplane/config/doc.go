// Package config holds every setting of a deployment, where settings come from, and the folder a
// deployment lives in.
//
// One table (keys.go) names each setting once; flags, environment names, the TOML file, the kept
// values in DIR, the comparison with them and the help text all follow from it. Later sources win:
//
//	default < /etc/vstor/vstor.toml < DIR/vstor.toml (what earlier starts were told) < VSTOR_* < flags
//
// Settings that shaped what lies on the drives (how many ASDs, how large...) stay as they were first:
// a start that says otherwise is refused, and told what differs.
//
// A service manager may hand over sockets and wants to hear of our state (inherit.go, notify.go).
//
// A deployment's folder (dir.go) has one process at a time, a format version, and a first start that
// either finishes or leaves nothing behind.
package config
