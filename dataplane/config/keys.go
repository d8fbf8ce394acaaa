package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/units"
)

// Shape is how many words a key's value has, and so which sort of flag it is.
type Shape uint8

const (
	One  Shape = iota // a word: --key VALUE
	List              // any number: --key A --key B
	Bool              // --key
)

// Key is one setting. Its name is its flag and its name in TOML; its environment name is Env.
type Key struct {
	Name  string
	Shape Shape
	Arg   string // what the help calls the value
	Help  string
	// Fixed settings shaped what lies in DIR and stay as they were at the first start.
	Fixed bool
	path  bool // kept as it was understood, and not as it was written

	get func(*Config) []string
	set func(*Config, []string) error
}

// Env is the environment name of the key; the words of a list are parted by spaces.
func (k *Key) Env() string {
	return "VSTOR_" + strings.ToUpper(strings.ReplaceAll(k.Name, "-", "_"))
}

// Get is the key's value in c, as Set reads it; nil if it is not set.
func (k *Key) Get(c *Config) []string { return k.get(c) }

// Keys lists all settings in the order in which the help shows them.
func Keys() []*Key {
	return []*Key{
		fixed(intKey("asds", "number of ASDs, one drive each", func(c *Config) *int { return &c.ASDs })),
		fixed(sizeKey("asd-size", "size of each ASD; default: its share of a quarter of the free space, at most 64G",
			func(c *Config) *int64 { return &c.ASDSize })),
		fixed(intKey("nodes", "number of failure domains the ASDs are spread over; default: each ASD is one",
			func(c *Config) *int { return &c.Nodes })),
		policyKey(),
		sizeKey("sco-size", "size of a sealed batch of blocks", func(c *Config) *int64 { return &c.SCOSize }),
		sizeKey("fragment-size", "largest fragment", func(c *Config) *int64 { return &c.FragmentSize }),
		sizeKey("memory", "what all pools together may hold; default: an eighth of the RAM, at most 1G",
			func(c *Config) *int64 { return &c.Memory }),
		zeroSizeKey("block-cache", "RAM that keeps blocks that were read, of --memory, with --processes of --edge-memory; "+
			"0: none; default: an eighth of it, less where it is little",
			func(c *Config) *int64 { return &c.BlockCache }),
		zeroSizeKey("block-cache-ssd", "second tier of the block cache, a file in DIR/cache; 0: none",
			func(c *Config) *int64 { return &c.BlockCacheSSD }),
		sizeKey("block-cache-block", "what the block cache counts in: 32k, 64k, 128k or 256k",
			func(c *Config) *int64 { return &c.BlockCacheBlock }),
		zeroSizeKey("block-cache-quota", "what a vDisk may have of each tier unless it has its own quota; 0: no limit",
			func(c *Config) *int64 { return &c.BlockCacheQuota }),
		fixed(sizeKey("journal", "size of the write journal", func(c *Config) *int64 { return &c.Journal })),
		textKey("nbd-listen", "HOST:PORT", "serve NBD on TCP too, like 127.0.0.1:10809; encrypted if --nbd-tls says so",
			func(c *Config) *string { return &c.NBDListen }),
		wordKey("nbd-tls", "whether NBD clients may or must use TLS; required concerns TCP only",
			[]string{TLSOff, TLSOptional, TLSRequired}, func(c *Config) *string { return &c.NBDTLS }),
		pathKey("nbd-tls-dir", "DIR", "folder with server-cert.pem, server-key.pem and ca-cert.pem, or with keys.psk, or all",
			func(c *Config) *string { return &c.NBDTLSDir }),
		boolKey("nbd-tls-verify-peer", "TLS clients must have a certificate of the authority in ca-cert.pem",
			func(c *Config) *bool { return &c.NBDTLSVerify }),
		textKey("api-listen", "HOST:PORT", "serve the HTTP API and the metrics on TCP too, without a password",
			func(c *Config) *string { return &c.APIListen }),
		intKey("max-connections", "most NBD connections at a time", func(c *Config) *int { return &c.MaxConnections }),
		intKey("loops", "number of IO loops, one thread each; default: half the cores",
			func(c *Config) *int { return &c.Loops }),
		cpusKey(),
		wordKey("loop-spin", "on: loops do not sleep while reads come fast, if there are CPUs enough; off: they do",
			[]string{On, Off}, func(c *Config) *string { return &c.LoopSpin }),
		stallKey(),
		boolKey("processes", "a child process per ASD, one for the router and one for the edge",
			func(c *Config) *bool { return &c.Processes }),
		sizeKey("asd-memory", "what the pools of each child process may hold, beside --memory",
			func(c *Config) *int64 { return &c.ASDMemory }),
		wordKey("short-circuit", "whether edge and router read the drives of ASD processes themselves, which is faster",
			[]string{On, Off}, func(c *Config) *string { return &c.ShortCircuit }),
		preferKey(),
		sizeKey("edge-memory", "what the pools of the edge's process may hold, beside --memory (--processes)",
			func(c *Config) *int64 { return &c.EdgeMemory }),
		sizeKey("location-cache", "of those, what it may hold to know where blocks lie: 16 bytes for each",
			func(c *Config) *int64 { return &c.LocationCache }),
		boolKey("no-restart", "leave a child process that died alone", func(c *Config) *bool { return &c.NoRestart }),
		zeroSizeKey("fragment-cache", "size of the cache of whole fragments in DIR/cache; 0: none",
			func(c *Config) *int64 { return &c.FragmentCache }),
		boolKey("fragment-cache-on-read", "fill it with fragments that are read again and again, beside those written",
			func(c *Config) *bool { return &c.FragmentCacheOnRead }),
		zeroSizeKey("fragment-cache-quota", "what one vDisk may take of it; 0: no limit",
			func(c *Config) *int64 { return &c.FragmentCacheQuota }),
		boolKey("plain-io", "do without io_uring, which is slower; happens by itself where io_uring is forbidden",
			func(c *Config) *bool { return &c.PlainIO }),
		boolKey("allow-faults", "let 'vstor asd fault' break things on purpose: for tests",
			func(c *Config) *bool { return &c.AllowFaults }),
	}
}

// KeyNamed finds a key; nil if there is none of that name.
func KeyNamed(keys []*Key, name string) *Key {
	i := slices.IndexFunc(keys, func(k *Key) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return keys[i]
}

func fixed(k *Key) *Key {
	k.Fixed = true
	return k
}

func oneWord(name string, words []string) (string, error) {
	if len(words) != 1 {
		return "", errs.New(errs.Invalid, "%s takes one value, not %d", name, len(words))
	}
	return words[0], nil
}

func intKey(name, help string, at func(*Config) *int) *Key {
	return &Key{Name: name, Arg: "N", Help: help,
		get: func(c *Config) []string {
			if *at(c) == 0 {
				return nil
			}
			return []string{strconv.Itoa(*at(c))}
		},
		set: func(c *Config, words []string) error {
			w, err := oneWord(name, words)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(strings.TrimSpace(w))
			if err != nil || n < 1 {
				return errs.New(errs.Invalid, "%s is %q; it must be a whole number from 1", name, w)
			}
			*at(c) = n
			return nil
		}}
}

func sizeKey(name, help string, at func(*Config) *int64) *Key {
	k := zeroSizeKey(name, help, at)
	get, set := k.get, k.set
	k.get = func(c *Config) []string {
		if *at(c) == 0 {
			return nil
		}
		return get(c)
	}
	k.set = func(c *Config, words []string) error {
		was := *at(c)
		err := set(c, words)
		if err == nil && *at(c) == 0 {
			*at(c) = was
			err = errs.New(errs.Invalid, "%s is 0; leave it out to have it chosen", name)
		}
		return err
	}
	return k
}

// zeroSizeKey is a size that may be 0; Auto is one that nobody set.
func zeroSizeKey(name, help string, at func(*Config) *int64) *Key {
	return &Key{Name: name, Arg: "SIZE", Help: help,
		get: func(c *Config) []string {
			if *at(c) == Auto {
				return nil
			}
			return []string{units.FormatSize(*at(c))}
		},
		set: func(c *Config, words []string) error {
			w, err := oneWord(name, words)
			if err != nil {
				return err
			}
			n, err := units.ParseSize(w)
			if err != nil {
				return errs.New(errs.Invalid, "%s: %v", name, err)
			}
			*at(c) = n
			return nil
		}}
}

func textKey(name, arg, help string, at func(*Config) *string) *Key {
	return &Key{Name: name, Arg: arg, Help: help,
		get: func(c *Config) []string {
			if *at(c) == "" {
				return nil
			}
			return []string{*at(c)}
		},
		set: func(c *Config, words []string) error {
			w, err := oneWord(name, words)
			if err != nil {
				return err
			}
			if w != "" && !strings.Contains(w, ":") {
				return errs.New(errs.Invalid, "%s is %q; it must be an address with a port, like 127.0.0.1:10809", name, w)
			}
			*at(c) = w
			return nil
		}}
}

// wordKey is one of a few words.
func wordKey(name, help string, choices []string, at func(*Config) *string) *Key {
	return &Key{Name: name, Arg: strings.Join(choices, "|"), Help: help,
		get: func(c *Config) []string { return []string{*at(c)} },
		set: func(c *Config, words []string) error {
			w, err := oneWord(name, words)
			if err != nil {
				return err
			}
			if !slices.Contains(choices, w) {
				return errs.New(errs.Invalid, "%s is %q; it must be %s", name, w, strings.Join(choices, ", "))
			}
			*at(c) = w
			return nil
		}}
}

// pathKey is a file or a folder, kept as an absolute path: the next start may stand elsewhere.
func pathKey(name, arg, help string, at func(*Config) *string) *Key {
	k := textKey(name, arg, help, at)
	k.path = true
	k.set = func(c *Config, words []string) error {
		w, err := oneWord(name, words)
		if err == nil && w != "" {
			w, err = filepath.Abs(w)
		}
		if err != nil {
			return errs.New(errs.Invalid, "%s: %v", name, err)
		}
		*at(c) = w
		return nil
	}
	return k
}

func policyKey() *Key {
	return &Key{Name: "policy", Shape: List, Arg: "K,M,C,X",
		Help: "k data and m parity fragments, written once c are, at most x on a node; again for the next to try; " +
			"default: 4,2,5,1 then 2,2,3,1",
		get: func(c *Config) []string {
			var words []string
			for _, p := range c.Policies {
				words = append(words, formatPolicy(p))
			}
			return words
		},
		set: func(c *Config, words []string) error {
			c.Policies = nil
			for _, w := range words {
				p, err := ParsePolicy(w)
				if err != nil {
					return err
				}
				c.Policies = append(c.Policies, p)
			}
			return nil
		}}
}

func stallKey() *Key {
	return &Key{Name: "stall-timeout", Arg: "TIME",
		Help: "how long a write waits for space or for ASDs before it fails; 0: for ever",
		get:  func(c *Config) []string { return []string{c.StallTimeout.String()} },
		set: func(c *Config, words []string) error {
			w, err := oneWord("stall-timeout", words)
			if err != nil {
				return err
			}
			d, err := time.ParseDuration(w)
			if w == "0" {
				d, err = 0, nil
			}
			if err != nil {
				return errs.New(errs.Invalid, "stall-timeout is %q; it must be a time like 60s or 5m, or 0 for ever", w)
			}
			c.StallTimeout = d
			return nil
		}}
}

func boolKey(name, help string, at func(*Config) *bool) *Key {
	return &Key{Name: name, Shape: Bool, Help: help,
		get: func(c *Config) []string { return []string{strconv.FormatBool(*at(c))} },
		set: func(c *Config, words []string) error {
			w, err := oneWord(name, words)
			if err != nil {
				return err
			}
			b, err := strconv.ParseBool(w)
			if err != nil {
				return errs.New(errs.Invalid, "%s is %q; it must be true or false", name, w)
			}
			*at(c) = b
			return nil
		}}
}

// ParsePolicy reads "k,m,c,x".
func ParsePolicy(s string) (layout.Policy, error) {
	fields := strings.Split(strings.Trim(strings.TrimSpace(s), "()"), ",")
	var n [4]uint8
	bad := errs.New(errs.Invalid, "%q is not a policy; a policy is k,m,c,x, %s", s, policyExample)
	if len(fields) != len(n) {
		return layout.Policy{}, bad
	}
	for i, f := range fields {
		v, err := strconv.ParseUint(strings.TrimSpace(f), 10, 8)
		if err != nil {
			return layout.Policy{}, bad
		}
		n[i] = uint8(v)
	}
	p := layout.Policy{K: n[0], M: n[1], C: n[2], X: n[3]}
	return p, CheckPolicy(p)
}

func formatPolicy(p layout.Policy) string { return fmt.Sprintf("%d,%d,%d,%d", p.K, p.M, p.C, p.X) }
