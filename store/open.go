package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"patd/store/internal/db"
	"patd/store/internal/reserve"
)

// viewFactor is how much longer a statement of a list may take than one of a lookup.
const viewFactor = 12

// settings are what connections need of the options.
func (o Options) settings() db.Settings {
	pragmas := o.pragmas
	if o.NoSync {
		pragmas = append([]string{"synchronous(OFF)"}, pragmas...)
	}
	return db.Settings{BusyTimeout: o.BusyTimeout, Password: o.Password, Pragmas: pragmas, Version: o.Version}
}

func (o Options) newReserve(database string) *reserve.Reserve {
	return reserve.New(database, reserve.Config{Size: o.Reserve, Logger: o.Logger, Now: o.Now})
}

// Disk is what is known of the disk of a store in a file.
type Disk struct {
	Full    bool  // the last change had no room
	Given   bool  // the reserve is in use: only changes that take away are accepted
	Reserve int64 // bytes that the reserve holds
	Free    int64 // bytes that are left; negative: not known
}

// Disk returns what is known of the store's disk; of PostgreSQL's, nothing.
func (s *Store) Disk() (d Disk) {
	d.Full, d.Given, d.Reserve = s.group.reserve.State()
	d.Free = s.group.reserve.Free()
	return d
}

// openSQLite opens a store in a file.
func openSQLite(ctx context.Context, path string, o Options) (*Store, error) {
	if path == "" || path == ":memory:" {
		return nil, errors.New("open the store: sqlite: needs the path of a file")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if err := db.CreateFile(path); err != nil {
		return nil, err
	}
	if err := migrate(ctx, path, o); err != nil {
		return nil, err
	}
	if o.Connections <= 0 {
		o.Connections = min(max(runtime.GOMAXPROCS(0), 2), 8)
	}
	s := newStore(o, db.SQLiteDialect())
	s.path = path
	s.group.reserve = o.newReserve(path)
	if s.writer, err = db.SQLitePool(s.dialect, db.WriterDSN(path, o.settings()), 1, s.done); err == nil {
		s.group.writer = s.writer
		s.lookups, err = db.SQLitePool(s.dialect, db.ReaderDSN(path, o.settings()), o.Connections, s.done)
	}
	if err == nil {
		s.views, err = db.SQLitePool(s.dialect, db.ReaderDSN(path, o.settings()), o.Connections, s.done)
	}
	if err != nil {
		return nil, errors.Join(err, s.closePools())
	}
	return s, nil
}

// openPostgres opens a store in PostgreSQL, whose schema must be one that this program knows.
func openPostgres(ctx context.Context, address string, o Options) (*Store, error) {
	config, err := db.ParsePostgresURL(address)
	if err != nil {
		return nil, err
	}
	if o.Connections <= 0 {
		o.Connections = 8
	}
	if err := db.RefusePooler(ctx, config, o.settings()); err != nil {
		return nil, err
	}
	s, set := newStore(o, db.PostgresDialect()), o.settings()
	s.config = config
	s.writer = db.PostgresPool(config, s.dialect, 1, o.StatementTimeout, false, set, s.done)
	s.lookups = db.PostgresPool(config, s.dialect, o.Connections, o.StatementTimeout, false, set, s.done)
	s.news = db.PostgresPool(config, s.dialect, 1, o.StatementTimeout, false, set, s.done)
	s.views = db.PostgresPool(config, s.dialect, o.Connections, viewFactor*o.StatementTimeout, true, set, s.done)
	s.group.writer = s.writer
	careless := false
	err = s.views.Use(ctx, func(c *db.Conn) error {
		if err := checkSchema(ctx, c, config.RuntimeParams["search_path"]); err != nil {
			return err
		}
		return c.One(ctx, selectCareless, []any{&careless})
	})
	if err != nil {
		return nil, errors.Join(openFault(err), s.closePools())
	}
	if careless {
		o.Logger.WarnContext(ctx, "store: synchronous_commit is off for this role or database: "+
			"a committed change can be lost with the server")
	}
	return s, nil
}

// openFault says why a store cannot be opened: a schema for another program is no outage.
func openFault(err error) error {
	if errors.Is(err, ErrSchema) {
		return fmt.Errorf("open the store: %w", err)
	}
	return db.ConnectFault("open the store", err)
}
