package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"lbd/access/certs"
	"lbd/access/cors"
	"lbd/access/forwarded"
	"lbd/access/keys"
	"lbd/access/outward"
	"lbd/balancer"
	"lbd/cmd/lbd/internal/config"
	"lbd/metrics"
)

// access is the part of a configuration that stands in further files, read and
// checked. It is applied as a whole or not at all.
type access struct {
	keysOn     bool
	entries    []keys.Entry
	adminToken string
	outward    outward.Config
	cors       *cors.Policy
	forwarded  *forwarded.Policy
}

// Check reads every file that a configuration names, as lbd would at its start. The
// error lists all that is wrong, and quotes no secret.
func Check(c *config.Config) error {
	_, err := readAccess(c)
	_, _, tlsErr := listenerTLS(c)
	return errors.Join(err, tlsErr)
}

// blame puts the key in front of an error, and where its value came from.
func blame(c *config.Config, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s (%s): %w", key, c.Origin(key), err)
}

func readAccess(c *config.Config) (*access, error) {
	a := &access{keysOn: c.APIKeys != "" || c.APIKeysFile != ""}
	var faults []error
	note := func(key string, err error) { faults = append(faults, blame(c, key, err)) }
	var err error
	var key string
	if a.entries, key, err = readKeys(c); err != nil {
		note(key, err)
	}
	if c.MetricsAccess == "key" && !a.keysOn {
		note("metrics_access", errors.New(`is "key" without any key; want api_keys_file or api_keys as well`))
	}
	if a.adminToken, err = secret(c.AdminToken, c.AdminTokenFile, "admin_token"); err != nil {
		note("admin_token_file", err)
	}
	if exposed(c.AdminListen) && a.adminToken == "" && c.AdminTLSClientCAFile == "" {
		note("admin_listen", fmt.Errorf("%q is reachable from other machines; want admin_token, admin_token_file or admin_tls_client_ca_file, or 127.0.0.1", c.AdminListen))
	}
	if a.cors, err = cors.New(c.CORSAllowedOrigins); err != nil {
		note("cors_allowed_origins", err)
	}
	if a.forwarded, err = forwarded.New(forwarded.Mode(c.ForwardedHeaders), c.TrustedProxies); err != nil {
		note("trusted_proxies", err)
	}
	if a.outward, err = outwardConfig(c); err != nil {
		note("upstream_api_key_file", err)
	}
	if _, err = outward.New(a.outward); err != nil { // before anything is applied
		note("upstream_tls_ca_file", err)
	}
	return a, errors.Join(faults...)
}

// exposed says whether a listen address is certainly reachable from other machines;
// of names only the listener knows.
func exposed(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "" || ip != nil && !ip.IsLoopback()
}

// readKeys returns clients' keys, or what is wrong and the key of the configuration that
// is to blame.
func readKeys(c *config.Config) (all []keys.Entry, blamed string, err error) {
	// What the environment holds in plain text is not at rest; a file or a command
	// line would be.
	plain := c.Origin("api_keys").Source == config.FromEnv
	if all, err = keys.ParseValue(c.APIKeys.Reveal(), plain); err != nil || c.APIKeysFile == "" {
		return all, "api_keys", err
	}
	const file = "api_keys_file"
	text, err := os.ReadFile(c.APIKeysFile)
	if err != nil {
		return nil, file, err
	}
	more, err := keys.ParseFile(string(text))
	if err != nil {
		return nil, file, fmt.Errorf("%s: %w", c.APIKeysFile, err)
	}
	all = append(all, more...)
	return all, file, keys.CheckEntries(all)
}

// maxSecret bounds what is read of a file that should hold one line.
const maxSecret = 4096

// secret takes the value or what is in the file, but not both.
func secret(value config.Secret, file, key string) (string, error) {
	switch {
	case file == "":
		return value.Reveal(), nil
	case value != "":
		return "", fmt.Errorf("%s and %s_file are both set; want one", key, key)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if text == "" || len(text) > maxSecret || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("%s does not hold one line of text", file)
	}
	return text, nil
}

func outwardConfig(c *config.Config) (outward.Config, error) {
	key, err := secret(c.UpstreamAPIKey, c.UpstreamAPIKeyFile, "upstream_api_key")
	if err != nil {
		return outward.Config{}, err
	}
	o := outward.Config{Default: outward.Replica{APIKey: key, TLS: outwardTLS(c)}, ByID: map[string]outward.Replica{}}
	for _, m := range c.Models {
		for _, r := range m.Replicas {
			if r.Access == (config.ReplicaAccess{}) {
				continue
			}
			own, err := ownAccess(&r.Access, o.Default)
			if err != nil {
				return o, fmt.Errorf("replica %s: %w", r.Endpoint, err)
			}
			o.ByID[balancer.NewReplica(r.Endpoint, "", 1).ID] = own
		}
	}
	return o, nil
}

func outwardTLS(c *config.Config) outward.TLS {
	return outward.TLS{
		Files:      certs.Files{Cert: c.UpstreamTLSCertFile, Key: c.UpstreamTLSKeyFile, CA: c.UpstreamTLSCAFile},
		ServerName: c.UpstreamTLSServerName, Insecure: c.UpstreamTLSInsecureSkipVerify,
	}
}

// ownAccess lays what one replica sets over what all have. A certificate and its key
// are one thing.
func ownAccess(a *config.ReplicaAccess, all outward.Replica) (outward.Replica, error) {
	r := all
	key, err := secret(a.APIKey, a.APIKeyFile, "api_key")
	if err != nil {
		return r, err
	}
	if key != "" {
		r.APIKey = key
	}
	if a.TLSCertFile != "" || a.TLSKeyFile != "" {
		r.TLS.Files.Cert, r.TLS.Files.Key = a.TLSCertFile, a.TLSKeyFile
	}
	if a.TLSCAFile != "" {
		r.TLS.Files.CA = a.TLSCAFile
	}
	if a.TLSServerName != "" {
		r.TLS.ServerName = a.TLSServerName
	}
	if a.TLSSkipVerify != "" {
		r.TLS.Insecure = a.TLSSkipVerify == "true"
	}
	return r, nil
}

// listenerTLS reads the certificates of the two listeners; nil = plain HTTP.
func listenerTLS(c *config.Config) (main, admin *certs.Listener, err error) {
	main, mainErr := oneListener(certs.Files{Cert: c.TLSCertFile, Key: c.TLSKeyFile, CA: c.TLSClientCAFile})
	admin, adminErr := oneListener(certs.Files{Cert: c.AdminTLSCertFile, Key: c.AdminTLSKeyFile, CA: c.AdminTLSClientCAFile})
	return main, admin, errors.Join(blame(c, "tls_cert_file", mainErr), blame(c, "admin_tls_cert_file", adminErr))
}

func oneListener(f certs.Files) (*certs.Listener, error) {
	if f.Empty() {
		return nil, nil
	}
	return certs.NewListener(f)
}

func tlsConfig(l *certs.Listener) *tls.Config {
	if l == nil {
		return nil
	}
	return l.Config()
}

// applyAccess puts what readAccess returned into force.
func (d *Daemon) applyAccess(a *access) error {
	if d.admin != nil {
		if err := d.admin.SetToken(a.adminToken); err != nil {
			return err
		}
	}
	renewed, err := d.outward.Set(a.outward)
	if err != nil {
		return err
	}
	if renewed { // which it is not when a daemon is made
		d.poller.Renew()
	}
	if !a.keysOn {
		d.keys.Off()
		return nil
	}
	return d.keys.Set(a.entries)
}

// warnOfAccess tells, once per start and reload, what somebody should know who did
// not mean it.
func (d *Daemon) warnOfAccess(c *config.Config) {
	for _, id := range d.outward.Insecure() {
		ev := d.opt.Log.Warn()
		if id != "" {
			ev = ev.Str("replica", id)
		}
		ev.Msg("INSECURE: tls_insecure_skip_verify: the replica's certificate is not checked, and whoever is between can read and change everything, keys included")
	}
	if d.keys.Closed() {
		d.opt.Log.Warn().Str("api_keys_file", c.APIKeysFile).Msg("no client has a key, so all are refused; want a line in api_keys_file, as lbd key NAME prints it")
	}
	if d.outward.Replaces() && !d.keys.On() && c.TLSClientCAFile == "" && exposed(c.Listen) {
		d.opt.Log.Warn().Msg("upstream_api_key is sent for everybody who reaches lbd; want api_keys_file as well, or a listen address on loopback")
	}
}

// pollKeys are the keys of lbd's own calls: replica_api_key where clients bring
// theirs, else what clients' requests carry.
func (d *Daemon) pollKeys(c *config.Config, o outward.Config) (all string, byID map[string]string) {
	all = o.Default.APIKey
	if all == "" {
		all = c.ReplicaAPIKey.Reveal()
	}
	byID = map[string]string{}
	for id, r := range o.ByID {
		if r.APIKey != o.Default.APIKey {
			byID[id] = r.APIKey
		}
	}
	return all, byID
}

// dialTLS is for probes, polls and control calls, which know an address only.
func (d *Daemon) dialTLS(ctx context.Context, _, addr string) (net.Conn, error) {
	s := d.fleet.Snapshot()
	i := slices.IndexFunc(s.Replicas, func(r balancer.ReplicaState) bool { return r.Endpoint.Addr == addr })
	listed, serverAddr := "", addr
	if i >= 0 {
		listed, serverAddr = s.Replicas[i].Listed, s.Replicas[i].Endpoint.ServerAddr()
	}
	nc, err := d.names.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := tls.Client(nc, d.outward.TLS(listed, serverAddr))
	if err := c.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// refreshFiles reads certificates that have changed.
func (d *Daemon) refreshFiles() {
	all := map[string]interface{ Refresh() (bool, error) }{"replicas": d.outward}
	if d.mainTLS != nil {
		all["listen"] = d.mainTLS
	}
	if d.adminTLS != nil {
		all["admin_listen"] = d.adminTLS
	}
	for _, of := range slices.Sorted(maps.Keys(all)) {
		changed, err := all[of].Refresh()
		switch {
		case err != nil:
			d.opt.Log.Error().Str("of", of).Err(err).Msg("certificates not read again, the old ones stay")
		case changed:
			d.opt.Log.Info().Str("of", of).Msg("certificates read again")
			if of == "replicas" {
				d.poller.Renew()
			}
		}
	}
}

func (d *Daemon) keyUsage() (all []metrics.KeyUsage) {
	for _, u := range d.keys.Usage() {
		k := metrics.KeyUsage{Name: u.Name, InFlight: u.InFlight, Admitted: u.Admitted, Tokens: u.Tokens, Refused: map[string]uint64{}}
		for reason, n := range u.Refused {
			k.Refused[reason.String()] = n
		}
		all = append(all, k)
	}
	return all
}
