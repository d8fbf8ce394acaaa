package node

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"vstor/dataplane/errs"
)

// An access list says who may open a vDisk over NBD. Each word of it is one of
//
//	10.0.0.0/8, 2001:db8::/32   clients of that network; 0.0.0.0/0 and ::/0 are all of IPv4 and of IPv6
//	10.0.0.7, fe80::1%eth0      that client, with a zone only as seen through that interface
//	unix                        clients of any unix socket, whose file's mode says who those are
//	cert:NAME                   TLS clients whose certificate, verified, bears that name
//	psk:NAME                    TLS clients that know the key of that name in keys.psk
//
// and any one that fits is enough. A vDisk without a list is open to whoever reaches the socket.
type access struct {
	all   bool
	rules []rule
}

// rule is one word of a list; exactly one of its fields is set.
type rule struct {
	unix bool
	net  netip.Prefix // of unmapped addresses, and without a zone
	zone string       // beside net: as seen through that interface only
	cert string       // lower case
	psk  string
}

// Bounds of a list: it is judged at every open, and shown to people.
const (
	accessRulesMax = 256
	accessNameMax  = 255
)

// openToAll is the word that takes a list away.
const openToAll = "all"

// parseAccess reads a list and gives its words as they are kept. No word, or the word all alone, is no list.
func parseAccess(words []string) (access, []string, error) {
	if len(words) == 0 || len(words) == 1 && words[0] == openToAll {
		return access{all: true}, nil, nil
	}
	if len(words) > accessRulesMax {
		return access{}, nil, errs.New(errs.Invalid, "an access list has at most %d words, this one %d: use networks",
			accessRulesMax, len(words))
	}
	var a access
	var kept []string
	for _, w := range words {
		if w == openToAll {
			return access{}, nil, errs.New(errs.Invalid, "all takes the access list away and stands alone")
		}
		r, err := parseRule(w)
		if err != nil {
			return access{}, nil, err
		}
		if w = r.String(); !slices.Contains(kept, w) {
			a.rules, kept = append(a.rules, r), append(kept, w)
		}
	}
	return a, kept, nil
}

func parseRule(w string) (r rule, err error) {
	if w == "unix" {
		return rule{unix: true}, nil
	}
	if name, ok := strings.CutPrefix(w, "cert:"); ok {
		name = certName(name)
		return rule{cert: name}, checkAccessName(w, name)
	}
	if name, ok := strings.CutPrefix(w, "psk:"); ok {
		return rule{psk: name}, checkAccessName(w, name)
	}
	if strings.Contains(w, "/") {
		r.net, err = parseNetwork(w)
		return r, err
	}
	ip, err := netip.ParseAddr(w)
	if err != nil {
		return r, errs.New(errs.Invalid, "%.80q is nobody an access list can name: write 10.0.0.0/8, 10.0.0.7, "+
			"2001:db8::/32, unix, cert:NAME, psk:NAME, or all", w)
	}
	r.zone = ip.Zone()
	if ip = ip.Unmap().WithZone(""); ip.Is4() && r.zone != "" {
		return r, errs.New(errs.Invalid, "%.80q is an IPv4 address, and those have no zone", w)
	}
	r.net = netip.PrefixFrom(ip, ip.BitLen())
	return r, nil
}

func parseNetwork(w string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(w)
	if err != nil {
		return p, errs.New(errs.Invalid, "%.80q is no network; one is written like 10.0.0.0/8 or 2001:db8::/32", w)
	}
	if m := p.Masked(); m.Addr() != p.Addr() {
		return p, errs.New(errs.Invalid, "%s has bits set behind the first %d: %s is that network, %s that one client",
			w, p.Bits(), m, p.Addr())
	}
	// Clients that come by IPv4 are judged as such, so what is mapped into IPv6 must be too.
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, nil
}

func checkAccessName(w, name string) error {
	bad := func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }
	if name == "" || len(name) > accessNameMax || strings.ContainsFunc(name, bad) || strings.TrimSpace(name) != name {
		return errs.New(errs.Invalid, "%.80q names nobody: behind the colon there must be a name of 1 to %d bytes, without "+
			"control characters or spaces at its ends", w, accessNameMax)
	}
	return nil
}

// certName is a name as certificates' names compare: a host's name has no case, in ASCII, and may end in a dot.
func certName(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, strings.TrimRight(s, "."))
}

func (r rule) String() string {
	switch {
	case r.unix:
		return "unix"
	case r.cert != "":
		return "cert:" + r.cert
	case r.psk != "":
		return "psk:" + r.psk
	case !r.net.IsSingleIP():
		return r.net.Addr().String() + "/" + strconv.Itoa(r.net.Bits())
	}
	return r.net.Addr().WithZone(r.zone).String()
}

// caller is who asks for an export, as far as an access list cares. Names and psk are empty unless TLS has
// proved them.
type caller struct {
	unix  bool
	addr  netip.Addr // invalid for a unix socket
	names []string
	psk   string
}

// admits judges a caller. Whoever has no address, no name and no unix socket is admitted by no list.
func (a access) admits(c caller) bool {
	return a.all || slices.ContainsFunc(a.rules, func(r rule) bool { return r.fits(c) })
}

func (r rule) fits(c caller) bool {
	switch {
	case r.unix:
		return c.unix
	case r.cert != "":
		return slices.ContainsFunc(c.names, func(n string) bool { return certName(n) == r.cert })
	case r.psk != "":
		return c.psk == r.psk
	}
	if c.unix || !c.addr.IsValid() || r.zone != "" && c.addr.Zone() != r.zone {
		return false
	}
	return r.net.Contains(c.addr.Unmap().WithZone("")) // a prefix contains no address with a zone
}
