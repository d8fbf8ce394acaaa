package api

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

const prefix = "/api/v1/"

// route finds the handler of a path below /api/v1.
func (s *Server) route(rc *fasthttp.RequestCtx, path string) {
	rest, ok := strings.CutPrefix(path, prefix)
	noun, arg, hasArg := strings.Cut(rest, "/")
	switch {
	case !ok:
	case noun == "vdisks" && !hasArg:
		s.vdisks(rc)
		return
	case noun == "vdisks":
		s.vdisk(rc, arg)
		return
	case noun == "asds" && !hasArg:
		s.get(rc, func(ctx context.Context) (any, error) {
			list, err := s.sys.ListASDs(ctx)
			return asdList{append([]ASD{}, list...)}, err
		})
		return
	case noun == "asds":
		s.asd(rc, arg)
		return
	case rest == "reload":
		s.only(rc, fasthttp.MethodPost, func() {
			s.call(rc, fasthttp.StatusNoContent, func(ctx context.Context) (any, error) { return nil, s.sys.Reload(ctx) })
		})
		return
	case rest == "caches":
		s.get(rc, func(ctx context.Context) (any, error) {
			list, err := s.sys.ListCaches(ctx)
			return cacheList{append([]CacheShare{}, list...)}, err
		})
		return
	case rest == "status":
		s.get(rc, func(ctx context.Context) (any, error) { return s.sys.Status(ctx) })
		return
	case rest == "status/memory":
		s.get(rc, s.memory)
		return
	}
	replyError(rc, errs.New(errs.Absent, "there is no %.100q; below %s there are vdisks, asds, caches, reload, "+
		"status and status/memory", path, prefix))
}

func (s *Server) vdisks(rc *fasthttp.RequestCtx) {
	if string(rc.Method()) != fasthttp.MethodPost {
		s.get(rc, func(ctx context.Context) (any, error) {
			list, err := s.sys.ListVDisks(ctx)
			return vdiskList{append([]VDisk{}, list...)}, err
		})
		return
	}
	req, err := parseCreate(rc.PostBody())
	if err != nil {
		replyError(rc, err)
		return
	}
	s.call(rc, fasthttp.StatusCreated, func(ctx context.Context) (any, error) {
		return s.sys.CreateVDisk(ctx, req.Name, req.SizeBytes)
	})
}

// parseSettings reads the body of a PATCH, which must name something.
func parseSettings(body []byte) (VDiskSettings, error) {
	var r VDiskSettings
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err := dec.Decode(&r)
	switch {
	case err != nil:
		return r, errs.New(errs.Invalid, `the body must be like {"read_only": true, "allow": ["10.0.0.0/8", "unix"]}: %v`,
			err)
	case r.Allow != nil && len(r.Allow) == 0:
		return r, errs.New(errs.Invalid, `allow is empty; ["all"] takes the access list away`)
	case r.None():
		return r, errs.New(errs.Invalid, "the body names nothing to change: there are read_only, allow, cache, "+
			"block_cache_quota_bytes and fragment_cache_quota_bytes")
	case negative(r.BlockCacheQuota) || negative(r.FragCacheQuota):
		return r, errs.New(errs.Invalid, "a quota is negative; it must be a size, or 0 for the default")
	}
	return r, nil
}

func negative(n *int64) bool { return n != nil && *n < 0 }

// parseCreate checks the body of a create; the result's SizeBytes is what to make.
func parseCreate(body []byte) (CreateRequest, error) {
	var r CreateRequest
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, errs.New(errs.Invalid, `the body must be like {"name": "demo", "size": "10G"}: %v`, err)
	}
	if err := units.CheckName(r.Name); err != nil {
		return r, err
	}
	var err error
	switch {
	case r.Size != "" && r.SizeBytes != 0:
		err = errs.New(errs.Invalid, "the body gives both size and size_bytes: give one")
	case r.Size != "":
		r.SizeBytes, err = units.ParseVDiskSize(r.Size)
	default:
		r.SizeBytes, err = units.CheckVDiskSize(r.SizeBytes)
	}
	return r, err
}

func (s *Server) vdisk(rc *fasthttp.RequestCtx, name string) {
	name, below, deep := strings.Cut(name, "/")
	err := units.CheckName(name)
	switch {
	case err != nil:
		replyError(rc, err)
		return
	case deep && below == "stats":
		s.get(rc, func(ctx context.Context) (any, error) { return s.sys.VDiskStats(ctx, name) })
		return
	case deep:
		replyError(rc, errs.New(errs.Absent, "there is no %.40q below a vDisk; there is stats", below))
		return
	}
	switch string(rc.Method()) {
	case fasthttp.MethodDelete:
		s.call(rc, fasthttp.StatusNoContent, func(ctx context.Context) (any, error) {
			return nil, s.sys.RemoveVDisk(ctx, name)
		})
		return
	case fasthttp.MethodPatch:
		set, err := parseSettings(rc.PostBody())
		if err != nil {
			replyError(rc, err)
			return
		}
		s.call(rc, fasthttp.StatusOK, func(ctx context.Context) (any, error) { return s.sys.SetVDisk(ctx, name, set) })
		return
	}
	s.get(rc, func(ctx context.Context) (any, error) { return s.sys.ShowVDisk(ctx, name) })
}

func (s *Server) asd(rc *fasthttp.RequestCtx, arg string) {
	arg, below, deep := strings.Cut(arg, "/")
	id, err := strconv.ParseUint(arg, 10, 32)
	switch {
	case err != nil:
		replyError(rc, errs.New(errs.Invalid, "%.40q is no ASD: an ASD's id is a number from 0", arg))
		return
	case deep && below == "faults":
		s.faults(rc, uint32(id))
		return
	case deep:
		replyError(rc, errs.New(errs.Absent, "there is no %.40q below an ASD; there is faults", below))
		return
	}
	s.get(rc, func(ctx context.Context) (any, error) { return s.sys.ShowASD(ctx, uint32(id)) })
}

// faults takes the rules of what shall go wrong at an ASD.
func (s *Server) faults(rc *fasthttp.RequestCtx, id uint32) {
	s.only(rc, fasthttp.MethodPost, func() {
		s.call(rc, fasthttp.StatusNoContent, func(ctx context.Context) (any, error) {
			var r FaultsRequest
			dec := json.NewDecoder(bytes.NewReader(rc.PostBody()))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&r); err != nil {
				return nil, errs.New(errs.Invalid, `the body must be like {"rules": "drive fail on=writes"}: %v`, err)
			}
			return nil, s.sys.Faults(ctx, id, r.Rules)
		})
	})
}

func (s *Server) memory(ctx context.Context) (any, error) {
	m, err := s.sys.Memory(ctx)
	if err != nil {
		return nil, err
	}
	m.PoolBytes = 0
	for _, p := range m.Pools {
		m.PoolBytes += p.BoundBytes
	}
	if m.AllowanceBytes == 0 {
		m.AllowanceBytes = MemoryAllowance
	}
	if m.ResidentBytes == 0 {
		m.ResidentBytes = ResidentBytes()
	}
	return m, nil
}

// get is call for what only reads.
func (s *Server) get(rc *fasthttp.RequestCtx, f func(context.Context) (any, error)) {
	s.only(rc, fasthttp.MethodGet, func() { s.call(rc, fasthttp.StatusOK, f) })
}

func (s *Server) only(rc *fasthttp.RequestCtx, method string, f func()) {
	if m := string(rc.Method()); m != method && (m != fasthttp.MethodHead || method != fasthttp.MethodGet) {
		rc.Response.Header.Set("Allow", method)
		reply(rc, fasthttp.StatusMethodNotAllowed,
			errorBody{"the method " + m + " does nothing here; use " + method, "invalid"})
		return
	}
	f()
}

// call runs f with a deadline and writes what it returns.
func (s *Server) call(rc *fasthttp.RequestCtx, code int, f func(context.Context) (any, error)) {
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	v, err := f(ctx)
	if err != nil {
		replyError(rc, err)
		return
	}
	reply(rc, code, v)
}

func reply(rc *fasthttp.RequestCtx, code int, v any) {
	rc.SetStatusCode(code)
	if v == nil {
		return
	}
	rc.SetContentType("application/json")
	b, err := json.Marshal(v)
	if err != nil {
		rc.SetStatusCode(fasthttp.StatusInternalServerError)
		b = []byte(`{"error":"the answer cannot be written as JSON","kind":"io error"}`)
	}
	rc.SetBody(append(b, '\n'))
}

func replyError(rc *fasthttp.RequestCtx, err error) {
	k := errs.Of(err)
	reply(rc, statusOf(k), errorBody{Error: err.Error(), Kind: k.String()})
}

func statusOf(k errs.Kind) int {
	switch k {
	case errs.Invalid:
		return fasthttp.StatusBadRequest
	case errs.Absent:
		return fasthttp.StatusNotFound
	case errs.Exists, errs.Busy, errs.Refused, errs.Version:
		return fasthttp.StatusConflict
	case errs.Full:
		return fasthttp.StatusInsufficientStorage
	case errs.Unsupported:
		return fasthttp.StatusNotImplemented
	case errs.Closed, errs.Unreachable:
		return fasthttp.StatusServiceUnavailable
	case errs.Canceled:
		return fasthttp.StatusGatewayTimeout
	}
	return fasthttp.StatusInternalServerError
}
