// Package api is the HTTP face of a deployment, and of a process: what the command talks to on DIR/api.sock, and what a
// monitor scrapes. JSON below /api/v1, Prometheus text on /metrics, /healthz, /readyz, /debug/pprof, and /debug/fgprof,
// a profile by wall clock.
//
//	GET    /api/v1/vdisks          {"vdisks": [...]}
//	POST   /api/v1/vdisks          {"name": "demo", "size": "10G"} or {"name": "demo", "size_bytes": N}; 201
//	GET    /api/v1/vdisks/NAME
//	DELETE /api/v1/vdisks/NAME     204; 409 while in use
//	GET    /api/v1/asds            {"asds": [...]}
//	GET    /api/v1/asds/ID
//	GET    /api/v1/status
//	GET    /api/v1/status/memory
//
// An error is {"error": a sentence, "kind": the name of an errs.Kind} with the status that fits. Fields
// carry their unit in their name (_bytes, _seconds, _total).
//
// The server asks a System, which it declares itself; the node implements it. Requests are few and their
// bodies small, so nothing here is tuned; it must only never block a loop, and never wait without a
// deadline.
package api
