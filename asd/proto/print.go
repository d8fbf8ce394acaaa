package proto

import (
	"fmt"
	"strings"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

// Print is a message in words, for people; data may be nil where it is not at hand. What does not parse says so.
func Print(h *wire.Header, body, data []byte) string {
	what := fmt.Sprintf("%s id %d, %d bytes of body, %d of data", TypeName(h.Type), h.ID, h.Body, h.Data)
	reply := h.Type&wire.Reply != 0
	switch {
	case h.Type == TRefuse, reply && h.Kind() != errs.OK:
		return fmt.Sprintf("%s: %v: %q", what, h.Kind(), body)
	case !reply && h.Arg != 0:
		what += fmt.Sprintf(", within %d ms", h.Arg)
	}
	text, err := printBody(h, body, data)
	if err != nil {
		return what + ": " + err.Error()
	}
	if text != "" {
		what += ": " + text
	}
	return what
}

func printBody(h *wire.Header, body, data []byte) (string, error) {
	switch h.Type {
	case THello:
		var m Hello
		err := m.Decode(body)
		return fmt.Sprintf("%q speaks %d to %d, caps %#x, wants ASD %d UUID %x of deployment %x", m.Name,
			m.Lowest, m.Highest,
			m.Caps, m.ID, m.UUID, m.Deployment), err
	case TWelcome:
		var m Welcome
		err := m.Decode(body)
		return fmt.Sprintf("version %d, caps %#x", m.Version, m.Caps), err
	case TReady:
		var m Ready
		err := m.Decode(body)
		return fmt.Sprintf("ASD %d UUID %x of deployment %x, incarnation %d; %d requests, %d bytes", m.ID, m.UUID,
			m.Deployment, m.Incarnation, m.Requests, m.Bytes), err
	case TReadRanges:
		rs, err := DecodeReadRanges(nil, body)
		return printRanges(rs), err
	case TReadRanges | wire.Reply:
		kinds := make([]string, len(body))
		for i, k := range body {
			kinds[i] = errs.Kind(k).String()
		}
		return strings.Join(kinds, ", "), nil
	case TGet, TLocate, TVerify, TDescribe:
		r, err := DecodeRange(h.Type, body)
		return printRanges([]Range{r}), err
	case TGet | wire.Reply, TDescribe | wire.Reply:
		sum, err := DecodeSum(h.Type, body)
		return fmt.Sprintf("sum %#x", sum), err
	case TLocate | wire.Reply:
		es, err := DecodeExtents(nil, body)
		return fmt.Sprint(es), err
	case TPut:
		var m Put
		err := m.Decode(body, h.Data)
		return fmt.Sprintf("%v class %d epoch %d, %d regions, descriptor of %d bytes", m.Key, m.Class,
			m.Epoch, len(m.Sums),
			len(m.Desc)), err
	}
	return printRest(h, body, data)
}

func printRest(h *wire.Header, body, data []byte) (string, error) {
	switch h.Type {
	case TDelete:
		if data == nil {
			return "", nil
		}
		keys, err := DecodeDelete(nil, body, data)
		return fmt.Sprint(keys), err
	case TList:
		var m List
		err := m.Decode(body)
		return fmt.Sprintf("namespace %d behind %v, at most %d", m.Namespace, m.After, m.Limit), err
	case TList | wire.Reply:
		if data == nil {
			return "", nil
		}
		fs, err := DecodeList(nil, body, data)
		var sb strings.Builder
		for i := range fs {
			fmt.Fprintf(&sb, "\n  %v: %d bytes, sum %#x, epoch %d, class %d", fs[i].Key, fs[i].Len, fs[i].Sum,
				fs[i].Epoch, fs[i].Class)
		}
		return fmt.Sprintf("%d fragments", len(fs)) + sb.String(), err
	case TFence, TEpoch, TEpoch | wire.Reply:
		ns, e, err := DecodeEpoch(h.Type, body)
		return fmt.Sprintf("namespace %d epoch %d", ns, e), err
	case TCancel:
		id, err := DecodeCancel(body)
		return fmt.Sprintf("request %d", id), err
	case TInfo | wire.Reply:
		var m Info
		err := m.Decode(body)
		return fmt.Sprintf("%+v", m), err
	case TStat | wire.Reply:
		var m Stat
		err := m.Decode(body)
		return fmt.Sprintf("%+v", m), err
	case TFault:
		return fmt.Sprintf("%q", body), nil
	}
	return printShort(h, body)
}

func printShort(h *wire.Header, body []byte) (string, error) {
	switch h.Type {
	case TDrive:
		var m Drive
		err := m.Decode(body)
		return fmt.Sprintf("%d bytes, file %d of file system %d", m.Size, m.Inode, m.Device), err
	case TExtents:
		keys, err := DecodeKeys(nil, body)
		return fmt.Sprint(keys), err
	case TExtents | wire.Reply:
		f := NewFound(body)
		parts := []string{fmt.Sprintf("incarnation %d", f.Incarnation)}
		for f.c.Left() > 0 && !f.bad {
			es, k := f.Next(nil)
			parts = append(parts, fmt.Sprint(k, es))
		}
		return strings.Join(parts, ", "), f.Done()
	case TLease:
		n, err := DecodeForgotten(body)
		return fmt.Sprintf("%d deletes forgotten", n), err
	case TLease | wire.Reply:
		var m Lease
		err := m.Decode(body)
		return fmt.Sprintf("for %v, told of %d deletes", time.Duration(m.Nanos), m.Told), err
	case TForget:
		var m Forget
		err := m.Decode(body)
		return fmt.Sprintf("%v, told of %d deletes", m.Keys, m.Told), err
	}
	return "", nil
}

func printRanges(rs []Range) string {
	parts := make([]string, len(rs))
	for i, r := range rs {
		parts[i] = fmt.Sprintf("%d bytes at %d of %v", r.Len, r.Off, r.Key)
	}
	return strings.Join(parts, ", ")
}
