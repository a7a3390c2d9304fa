package replicatest

import (
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"patd/internal/dbtest"
)

// cluster is a store in PostgreSQL with its replicas.
type cluster struct {
	t        *testing.T
	path     string // of the binary
	db       *dbtest.Server
	schema   string
	key      string // file
	admin    string // secret of a service that may do everything
	replicas []*replica
	cutters  []*cutter // that the replicas are behind; empty: none
}

// newCluster makes a store in a schema of its own, and as many replicas of patd on it as is asked.
func newCluster(t *testing.T, db *dbtest.Server, schema string, replicas int) *cluster {
	t.Helper()
	c := newStore(t, db, schema)
	for n := range replicas {
		c.add(n, db.Addr())
	}
	c.startAll()
	return c
}

// newClusterBehind is newCluster with a cutter between each replica and the database.
func newClusterBehind(t *testing.T, db *dbtest.Server, schema string, replicas int) *cluster {
	t.Helper()
	c := newStore(t, db, schema)
	for n := range replicas {
		c.cutters = append(c.cutters, newCutter(t, db.Addr()))
		c.add(n, c.cutters[n].addr())
	}
	c.startAll()
	return c
}

// newStore makes a store without replicas.
func newStore(t *testing.T, db *dbtest.Server, schema string) *cluster {
	t.Helper()
	path, err := program()
	must(t, err)
	c := &cluster{t: t, path: path, db: db, schema: schema, key: filepath.Join(t.TempDir(), "hash.key")}
	c.run("migrate", "--hash-key-file", c.key)
	c.admin = c.run("service", "create", "test", "--permission", "admin", "--hash-key-file", c.key)
	t.Cleanup(c.end)
	return c
}

// add adds a replica that finds the database at an address, and is yet to be started.
func (c *cluster) add(n int, at string) {
	c.replicas = append(c.replicas, &replica{name: fmt.Sprintf("replica %d", n), cluster: c, path: c.path, at: at})
}

// url is where the store is, for a program that finds the database at an address.
func (c *cluster) url(at string) string {
	u := url.URL{
		Scheme: "postgres",
		User:   url.UserPassword(c.db.User, c.db.Password),
		Host:   at,
		Path:   "/" + c.db.Database,
	}
	u.RawQuery = url.Values{"sslmode": {"disable"}, "search_path": {c.schema}}.Encode()
	return u.String()
}

func (c *cluster) env(at string) []string { return []string{"PATD_DATABASE_URL=" + c.url(at)} }

// run runs a command on the store, which must succeed.
func (c *cluster) run(args ...string) string {
	c.t.Helper()
	out, err := run(c.path, c.env(c.db.Addr()), args...)
	must(c.t, err)
	return out
}

func (c *cluster) startAll() {
	c.t.Helper()
	errs := make([]error, len(c.replicas))
	var g sync.WaitGroup
	for n, r := range c.replicas {
		g.Go(func() { errs[n] = r.start() })
	}
	g.Wait()
	for _, err := range errs {
		must(c.t, err)
	}
}

// end looks at what the replicas have said before they are gone.
func (c *cluster) end() {
	for _, r := range c.replicas {
		d := r.daemon()
		if d == nil {
			continue
		}
		d.Kill()
		r.inspect(d)
		if c.t.Failed() {
			c.t.Logf("%s said last\n%s", r.name, d.Log.Tail())
		}
	}
}

// replica is one of the cluster's patd, which may be killed and started again.
type replica struct {
	name    string
	cluster *cluster
	path    string // of the binary
	at      string // where it finds the database
	env     []string

	mu      sync.Mutex
	running *daemon
	api     *api
}

// start starts the replica, once.
func (r *replica) start() error {
	// Three replicas and the test share the few connections that the database has.
	d, err := start(
		r.path,
		append(r.cluster.env(r.at), r.env...),
		"--hash-key-file",
		r.cluster.key,
		"--database-connections",
		"3",
		"--log-level",
		"warn",
	)
	if err != nil {
		return fmt.Errorf("start %s: %w", r.name, err)
	}
	a, err := connect(d, r.cluster.admin)
	if err != nil {
		d.Kill()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running, r.api = d, a
	return nil
}

// startSoon starts the replica as whoever watches over servers does: again and again while its database is away.
func (r *replica) startSoon() error {
	deadline := time.Now().Add(patience)
	for {
		err := r.start()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// kill ends the replica as a power cut would.
func (r *replica) kill() {
	r.mu.Lock()
	d, a := r.running, r.api
	r.running = nil
	r.mu.Unlock()
	d.Kill()
	a.conn.Close()
	r.inspect(d)
}

// stop asks the replica to end, which it must do well.
func (r *replica) stop() {
	r.cluster.t.Helper()
	r.mu.Lock()
	d, a := r.running, r.api
	r.running = nil
	r.mu.Unlock()
	a.conn.Close()
	if err := d.Stop(); err != nil {
		r.cluster.t.Errorf("stop %s: %v; it said\n%s", r.name, err, d.Log.Tail())
	}
	r.inspect(d)
}

// inspect fails the test when a replica found a data race in itself, or panicked.
func (r *replica) inspect(d *daemon) {
	if text := d.Log.String(); raceFound.MatchString(text) {
		r.cluster.t.Errorf("%s said\n%s", r.name, text)
	}
}

func (r *replica) daemon() *daemon {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running
}

// now is the way to the replica as it runs now. While it is away there is the way to where it was.
func (r *replica) now() *api {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.api
}
