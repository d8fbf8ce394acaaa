package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/pprofhandler"

	"vstor/dataplane/errs"
	"vstor/dataplane/stat"
)

// Limits of the server. A connection beyond the last gets none: the kernel's queue holds it until
// another ends.
const (
	maxConns       = 256
	maxBody        = 64 << 10
	requestTimeout = 30 * time.Second // to read a request, and for the System to answer it
	idleTimeout    = 60 * time.Second
	closeTimeout   = 3 * time.Second
)

// Server answers HTTP requests about a System, or, without one, about the process alone.
type Server struct {
	sys  System
	http *fasthttp.Server
	ctx  context.Context
	stop context.CancelFunc
}

// NewServer makes a server; Serve gives it connections. Its log gets what goes wrong with a connection. Without a
// System, nil, it has /healthz, /readyz, /debug and what /metrics says of any process.
func NewServer(sys System, log *slog.Logger) *Server {
	s := &Server{sys: sys}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.http = &fasthttp.Server{
		Name:               "vstor",
		Handler:            s.handle,
		ErrorHandler:       badRequest,
		Concurrency:        maxConns,
		MaxRequestBodySize: maxBody,
		ReadTimeout:        requestTimeout,
		IdleTimeout:        idleTimeout,
		CloseOnShutdown:    true,
		Logger:             slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers what comes in on l until Close. It may be called for several listeners, each on a
// goroutine of its own.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(l)
	if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil {
		return nil
	}
	return err
}

// Close closes the listeners, gives requests under way a moment to end, and returns once no handler
// can reach the System, or after 3 s.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	s.stop()
	return s.http.ShutdownWithContext(ctx)
}

// badRequest answers what never became a request.
func badRequest(rc *fasthttp.RequestCtx, err error) {
	if errors.Is(err, fasthttp.ErrBodyTooLarge) {
		reply(rc, fasthttp.StatusRequestEntityTooLarge, errorBody{"the body is larger than 64 KiB", "invalid"})
		return
	}
	reply(rc, fasthttp.StatusBadRequest, errorBody{"this is not an HTTP request: " + err.Error(), "invalid"})
}

func (s *Server) handle(rc *fasthttp.RequestCtx) {
	path := string(rc.Path())
	switch {
	case path == "/healthz":
		s.only(rc, fasthttp.MethodGet, func() { text(rc, fasthttp.StatusOK, "ok\n") })
	case path == "/readyz":
		s.only(rc, fasthttp.MethodGet, func() { s.ready(rc) })
	case path == "/metrics":
		s.only(rc, fasthttp.MethodGet, func() { s.metrics(rc) })
	case strings.HasPrefix(path, "/debug/pprof"):
		s.only(rc, fasthttp.MethodGet, func() { pprofhandler.PprofHandler(rc) })
	case path == wallPath:
		s.only(rc, fasthttp.MethodGet, func() { s.wallProfile(rc) })
	case s.sys == nil:
		replyError(rc, errs.New(errs.Absent, "this process has only /healthz, /readyz, /metrics, /debug/pprof/ and "+
			"/debug/fgprof: its deployment's API has the rest"))
	default:
		s.route(rc, path)
	}
}

func (s *Server) ready(rc *fasthttp.RequestCtx) {
	if s.sys != nil {
		if err := s.sys.Ready(); err != nil {
			text(rc, fasthttp.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
			return
		}
	}
	text(rc, fasthttp.StatusOK, "ready\n")
}

func (s *Server) metrics(rc *fasthttp.RequestCtx) {
	var p stat.Page
	processMetrics(&p)
	if s.sys != nil {
		s.sys.WriteMetrics(&p)
	}
	rc.SetContentType("text/plain; version=0.0.4; charset=utf-8")
	if _, err := p.WriteTo(rc.Response.BodyWriter()); err != nil {
		text(rc, fasthttp.StatusInternalServerError, err.Error())
	}
}

func text(rc *fasthttp.RequestCtx, code int, s string) {
	rc.SetStatusCode(code)
	rc.SetContentType("text/plain; charset=utf-8")
	rc.SetBodyString(s)
}
