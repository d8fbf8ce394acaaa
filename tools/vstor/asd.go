package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	toml "github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"vstor/asd/faults"
	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/node"
	"vstor/dataplane/supervise"
)

// asdSettings are the words that `asd run` and `asd format` are told: by flags, by the environment
// (VSTOR_ASD_ID for --id) or by a TOML file with the flags' names as keys; the first of these that says
// something counts.
type asdSettings struct {
	ID         uint32   `toml:"id"`
	UUID       string   `toml:"uuid"`
	Deployment string   `toml:"deployment"`
	Data       string   `toml:"data"`
	Index      string   `toml:"index"`
	Secret     string   `toml:"secret"`
	Listen     []string `toml:"listen"`
	Control    string   `toml:"control"`
	Debug      string   `toml:"debug"`
	Memory     string   `toml:"memory"`
	Fragment   string   `toml:"fragment-size"`
	MaxConns   int      `toml:"max-connections"`
	TLSCert    string   `toml:"tls-cert"`
	TLSKey     string   `toml:"tls-key"`
	TLSCA      string   `toml:"tls-ca"`
	Faults     bool     `toml:"allow-faults"`
	PlainIO    bool     `toml:"plain-io"`
	Short      string   `toml:"short-circuit"`
	Size       string   `toml:"size"`
	Force      bool     `toml:"force"`
}

// identity adds the flags that both commands have.
func (s *asdSettings) identity(cmd *cobra.Command) (file *string) {
	f := cmd.Flags()
	f.Var((*asdNumber)(&s.ID), "id", "number of the ASD in its deployment")
	f.StringVar(&s.UUID, "uuid", "", "what tells this ASD from any other, 32 hexadecimal digits")
	f.StringVar(&s.Deployment, "deployment", "", "UUID of the deployment it belongs to, 32 hexadecimal digits")
	f.StringVar(&s.Data, "data", "", "data file, or block device")
	f.StringVar(&s.Index, "index", "", "folder of the index; best on a fast drive")
	return f.String("config", "", "TOML file with these settings")
}

// fill takes what no flag said from the environment and the file.
func (s *asdSettings) fill(cmd *cobra.Command, environ func(string) string, file string) error {
	if file != "" {
		fromFile := *s
		b, err := os.Open(file)
		if err != nil {
			return errs.Wrap(errs.Absent, err, "cannot read the settings")
		}
		defer b.Close()
		if err := toml.NewDecoder(b).DisallowUnknownFields().Decode(&fromFile); err != nil {
			return tomlSentence(file, err, flagNames(cmd))
		}
		if err := overlay(cmd, &fromFile, s); err != nil {
			return err
		}
	}
	for _, name := range flagNames(cmd) {
		variable := "VSTOR_ASD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		v := environ(variable)
		if v == "" || cmd.Flags().Changed(name) {
			continue
		}
		if err := cmd.Flags().Set(name, v); err != nil {
			return errs.New(errs.Invalid, "%s=%s: %v", variable, v, err)
		}
	}
	return nil
}

// overlay keeps the flags that were given and takes all else from the file.
func overlay(cmd *cobra.Command, file, s *asdSettings) error {
	given := map[string]string{}
	for _, name := range flagNames(cmd) {
		if f := cmd.Flags().Lookup(name); f.Changed {
			given[name] = strings.Trim(f.Value.String(), "[]")
		}
	}
	*s = *file
	for name, v := range given {
		if name == "listen" {
			s.Listen = strings.Split(v, ",")
			continue
		}
		if err := cmd.Flags().Set(name, v); err != nil {
			return err
		}
	}
	return nil
}

func flagNames(cmd *cobra.Command) (names []string) {
	all := []string{"id", "uuid", "deployment", "data", "index", "secret", "listen", "control", "debug", "memory",
		"fragment-size", "max-connections", "tls-cert", "tls-key", "tls-ca", "allow-faults", "plain-io",
		"short-circuit", "size", "force"}
	for _, n := range all {
		if cmd.Flags().Lookup(n) != nil {
			names = append(names, n)
		}
	}
	return names
}

func parseUUID(flag, word string) (id [16]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(word, "-", ""))
	if err != nil || len(b) != len(id) {
		return id, errs.New(errs.Invalid, "--%s is %.60q; it must be 32 hexadecimal digits", flag, word)
	}
	copy(id[:], b)
	return id, nil
}

// options checks what both commands need.
func (s *asdSettings) options() (o node.ASDOptions, err error) {
	needs := []struct{ flag, value string }{{"data", s.Data}, {"index", s.Index}, {"deployment", s.Deployment}}
	for _, need := range needs {
		if need.value == "" {
			return o, usageError{fmt.Errorf("--%s is missing", need.flag)}
		}
	}
	o = node.ASDOptions{ID: ids.ASDID(s.ID), Data: s.Data, Index: s.Index, SecretFile: s.Secret, Listen: s.Listen,
		Control: s.Control, Debug: s.Debug, MaxConns: s.MaxConns, Faults: s.Faults, PlainIO: s.PlainIO}
	if s.UUID != "" {
		if o.UUID, err = parseUUID("uuid", s.UUID); err != nil {
			return o, err
		}
	}
	o.Deployment, err = parseUUID("deployment", s.Deployment)
	return o, err
}

func (a *app) asdRunCommand() *cobra.Command {
	var s asdSettings
	cmd := &cobra.Command{Use: "run", Short: "serve one drive, in the foreground", Args: takes(),
		Long: "Serve one drive, formatted by `vstor asd format`, in the foreground, until SIGTERM or SIGINT.\n" +
			"Whoever has the secret may read and write it. `vstor up --processes` starts one for each of its drives.\n\n" +
			"Settings come from the flags, then VSTOR_ASD_* in the environment, then the file of --config."}
	file := s.identity(cmd)
	f := cmd.Flags()
	f.StringVar(&s.Secret, "secret", "", "file with the deployment's secret, 64 hexadecimal digits, mode 0600")
	f.StringSliceVar(&s.Listen, "listen", nil, "unix:PATH or HOST:PORT; again, or after a comma, for more")
	f.StringVar(&s.Control, "control", "", "like --listen, for setting faults: links there are never broken")
	f.StringVar(&s.Debug, "debug", "",
		"path of a socket to make, which has /debug/pprof/, /debug/fgprof and the process' /metrics")
	f.StringVar(&s.Memory, "memory", "80M", "what all pools together may hold")
	f.StringVar(&s.Fragment, "fragment-size", "4M", "largest fragment that it takes")
	f.IntVar(&s.MaxConns, "max-connections", 256, "most connections at a time")
	f.StringVar(&s.TLSCert, "tls-cert", "",
		"certificate for TLS over TCP, PEM; peers must have one of the same authority")
	f.StringVar(&s.TLSKey, "tls-key", "", "its key, PEM")
	f.StringVar(&s.TLSCA, "tls-ca", "", "certificates of the authority, PEM")
	f.BoolVar(&s.Faults, "allow-faults", false, "let peers break it on purpose: for tests")
	f.BoolVar(&s.PlainIO, "plain-io", false,
		"do without io_uring, which is slower; happens by itself where io_uring is forbidden")
	f.StringVar(&s.Short, "short-circuit", config.On,
		"whether peers on this host get the drive, to read it themselves: on or off")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := s.fill(cmd, a.env, *file); err != nil {
			return err
		}
		return a.asdRun(&s)
	}
	return cmd
}

func (a *app) asdRun(s *asdSettings) error {
	o, err := s.options()
	if err != nil {
		return err
	}
	if s.Secret == "" || len(s.Listen) == 0 {
		return usageError{fmt.Errorf("--secret and --listen are needed")}
	}
	if err := s.checkNumbers(&o); err != nil {
		return err
	}
	switch s.Short {
	case config.On, "":
	case config.Off:
		o.Private = true
	default:
		return errs.New(errs.Invalid, "--short-circuit is %.40q; it must be on or off", s.Short)
	}
	if o.TLS, err = s.tls(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := supervise.Lifeline()
	go func() {
		select {
		case <-gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	o.Log = slog.New(slog.NewTextHandler(a.stderr, nil)).With("asd", s.ID)
	return node.RunASD(ctx, o, func() { o.Log.Info("serving", "listen", strings.Join(s.Listen, " ")) })
}

// tls reads certificates: both sides must show one of the same authority.
func (s *asdSettings) tls() (*tls.Config, error) {
	if s.TLSCert == "" && s.TLSKey == "" && s.TLSCA == "" {
		return nil, nil
	}
	if s.TLSCert == "" || s.TLSKey == "" || s.TLSCA == "" {
		return nil, usageError{fmt.Errorf("TLS needs --tls-cert, --tls-key and --tls-ca")}
	}
	cert, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the certificate in %s and the key in %s are not a pair: %v",
			s.TLSCert, s.TLSKey, err)
	}
	pem, err := os.ReadFile(s.TLSCA)
	if err != nil {
		return nil, errs.Wrap(errs.Absent, err, "cannot read the authority's certificates")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "there is no certificate in %s; a PEM file with CERTIFICATE blocks would be right",
			s.TLSCA)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, RootCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}, nil
}

func (a *app) asdFormatCommand() *cobra.Command {
	var s asdSettings
	cmd := &cobra.Command{Use: "format", Short: "make an empty store on a drive", Args: takes(),
		Long: "Make an empty store on a data file or a block device, for `vstor asd run`. A drive that holds one\n" +
			"already is refused without --force."}
	file := s.identity(cmd)
	cmd.Flags().StringVar(&s.Size, "size", "",
		"make the data file, of that size; without it the file or device must exist")
	cmd.Flags().BoolVar(&s.Force, "force", false, "overwrite a store")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := s.fill(cmd, a.env, *file); err != nil {
			return err
		}
		return a.asdFormat(&s)
	}
	return cmd
}

func (a *app) asdFormat(s *asdSettings) error {
	o, err := s.options()
	if err != nil {
		return err
	}
	if s.UUID == "" {
		rand.Read(o.UUID[:])
	}
	var size int64
	if s.Size != "" {
		if size, err = flagSize("size", s.Size); err != nil {
			return err
		}
	}
	if err := node.FormatASD(o, size, s.Force); err != nil {
		return err
	}
	id := hex.EncodeToString(o.UUID[:])
	return a.print(map[string]any{"id": s.ID, "uuid": id, "data": s.Data}, func(t *table) {
		t.row("formatted", s.Data, "uuid", id)
	})
}

func (a *app) asdFaultCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "fault ID [RULES]", Short: "break an ASD on purpose (needs --allow-faults)",
		Long: "Break an ASD of a deployment that was started with --allow-faults.\n\n" + faults.Help,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil // all faults are taken back
			}
			return takes("ID", "RULES")(cmd, args)
		}}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		id, err := asdID(args[0])
		if err != nil {
			return err
		}
		rules := ""
		if len(args) == 2 {
			rules = args[1]
		}
		if _, err := faults.Parse(rules); err != nil {
			return err
		}
		return a.call(func(ctx context.Context, c *api.Client) error { return c.Faults(ctx, id, rules) })
	}
	return cmd
}
