package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// Diagnosis is what a store says of its database.
type Diagnosis struct {
	Engine  string // SQLite or PostgreSQL
	Version string
	Number  int // of PostgreSQL's version, such as 150004; 0: SQLite
	// Schema is that of the tables, and Newest the one that this program makes.
	Schema, Newest int64
	Clock          time.Time // the database's, of PostgreSQL only
	Asked          time.Time // when it was asked for, by this machine's clock
	Settings       map[string]string
	Standby        bool // it takes no changes
	// Connections counts those to PostgreSQL, whosever they are.
	Connections int
	Servers     []ConnectedServer
	Standbys    []Standby
	// Members are the servers that have joined those of the store, and have not ended. One that was killed is among them
	// until another has noticed.
	Members []Member
	// Writers are the schemas that the programs knew which wrote the newest events, with when each last did.
	Writers map[int64]time.Time
	Event   time.Time // of the newest event; zero: there is none
}

// ConnectedServer is a machine with a patd that is connected to PostgreSQL.
type ConnectedServer struct {
	Version     string // empty: an earlier version does not say
	Address     string
	Connections int
	Since       time.Time
}

// Member is a server of the store.
type Member struct {
	Name, Version string
	Since         time.Time
}

// Standby is a server that receives PostgreSQL's changes.
type Standby struct {
	Name, State, Sync string
	Sent, Replayed    string // positions in PostgreSQL's log
	Lag               int64  // bytes of the log that it has not applied
}

const (
	sqliteSettings   = `SELECT sqlite_version(), (SELECT journal_mode FROM pragma_journal_mode())`
	postgresSettings = `SELECT name, setting FROM pg_settings WHERE name IN ('server_version', 'server_version_num', 'fsync',
  'full_page_writes', 'synchronous_commit', 'max_connections', 'superuser_reserved_connections',
  'synchronous_standby_names', 'wal_level', 'TimeZone', 'default_transaction_isolation')`
	postgresNow = `SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint), pg_is_in_recovery(),
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')`
	postgresServers = `SELECT application_name, coalesce(host(client_addr), 'this machine'), count(*),
  CAST(extract(epoch FROM min(backend_start)) * 1000000 AS bigint) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'patd%' AND application_name <> 'patd copy'
  AND pid <> pg_backend_pid() GROUP BY 1, 2 ORDER BY 2, 1`
	postgresStandbys = `SELECT coalesce(application_name, ''), coalesce(state, ''), coalesce(sync_state, ''),
  coalesce(CAST(sent_lsn AS text), ''), coalesce(CAST(replay_lsn AS text), ''),
  coalesce(CAST(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) AS bigint), 0) FROM pg_stat_replication`
	selectMembers = `SELECT name, version, begin_us FROM servers WHERE left_us IS NULL AND gone_us IS NULL ORDER BY begin_us, id`
	newestWriters = `SELECT coalesce(writer, 0), max(time_us) FROM (SELECT writer, time_us FROM events ORDER BY seq DESC
  LIMIT 1000) newest GROUP BY 1`
)

// Diagnose asks the database about itself.
func (s *Store) Diagnose(ctx context.Context) (d Diagnosis, err error) {
	const op = "ask the database about itself"
	d = Diagnosis{Engine: "SQLite", Newest: newestSchema, Settings: map[string]string{}, Writers: map[int64]time.Time{}}
	err = s.View(ctx, func(rt tokens.ReadTx) error {
		t, ok := rt.(*readTx)
		if !ok {
			return fmt.Errorf("%s: unexpected transaction %T", op, rt)
		}
		version := selectSQLiteVersion
		if s.dialect.Remote {
			version = selectVersion
			if err := t.diagnosePostgres(op, &d); err != nil {
				return err
			}
		} else {
			var mode string
			if err := t.one(op, sqliteSettings, []any{&d.Version, &mode}); err != nil {
				return err
			}
			d.Settings["journal_mode"] = mode
		}
		if err := t.one(op, version, []any{&d.Schema}); err != nil {
			return err
		}
		err := t.each(op, selectMembers, func(rows *sql.Rows) error {
			var m Member
			var us int64
			err := rows.Scan(&m.Name, &m.Version, &us)
			m.Since = db.Instant(us)
			d.Members = append(d.Members, m)
			return err
		})
		if err != nil {
			return err
		}
		return t.each(op, newestWriters, func(rows *sql.Rows) error {
			var writer, us int64
			err := rows.Scan(&writer, &us)
			at := db.Instant(us)
			if d.Writers[writer] = at; at.After(d.Event) {
				d.Event = at
			}
			return err
		})
	})
	return d, err
}

func (t *readTx) diagnosePostgres(op string, d *Diagnosis) error {
	d.Engine = "PostgreSQL"
	err := t.each(op, postgresSettings, func(rows *sql.Rows) error {
		var name, value string
		err := rows.Scan(&name, &value)
		d.Settings[name] = value
		return err
	})
	if err != nil {
		return err
	}
	d.Version = d.Settings["server_version"]
	d.Number, _ = strconv.Atoi(d.Settings["server_version_num"])
	var us int64
	if err := t.one(op, postgresNow, []any{&us, &d.Standby, &d.Connections}); err != nil {
		return err
	}
	d.Clock, d.Asked = db.Instant(us), t.store.options.Now().UTC()
	err = t.each(op, postgresServers, func(rows *sql.Rows) error {
		var v ConnectedServer
		var name string
		err := rows.Scan(&name, &v.Address, &v.Connections, &us)
		v.Since = db.Instant(us)
		v.Version = versionIn(name)
		d.add(v)
		return err
	})
	if err != nil || d.Standby {
		return err
	}
	return t.each(op, postgresStandbys, func(rows *sql.Rows) error {
		var v Standby
		err := rows.Scan(&v.Name, &v.State, &v.Sync, &v.Sent, &v.Replayed, &v.Lag)
		d.Standbys = append(d.Standbys, v)
		return err
	})
}

// add joins the connections of a server: its listener is one of another name.
func (d *Diagnosis) add(v ConnectedServer) {
	for i := range d.Servers {
		if one := &d.Servers[i]; one.Address == v.Address && one.Version == v.Version {
			one.Connections += v.Connections
			if v.Since.Before(one.Since) {
				one.Since = v.Since
			}
			return
		}
	}
	d.Servers = append(d.Servers, v)
}

// versionIn reads the version out of the name of a connection.
func versionIn(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "patd"), " listener")
	return strings.TrimSpace(name)
}
