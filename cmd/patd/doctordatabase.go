package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/store"
)

// oldestPostgres is the oldest major version that tests run with.
const oldestPostgres = 13

func (d *doctor) postgres(at store.Diagnosis) {
	if at.Number/10000 < oldestPostgres {
		d.add(
			"database",
			levelProblem,
			"upgrade PostgreSQL",
			"PostgreSQL %s is older than %d, the oldest that patd is tested with",
			at.Version,
			oldestPostgres,
		)
	} else {
		d.ok("database", "PostgreSQL %s, without a pooler in between that shares sessions", at.Version)
	}
	if at.Standby {
		d.add(
			"database",
			levelProblem,
			"name the primary in --database-url",
			"it is a standby, which takes no changes and may have missed a revocation",
		)
	}
	for name, why := range map[string]string{
		"fsync":              "a power loss loses answered changes, or all",
		"full_page_writes":   "a power loss may damage pages",
		"synchronous_commit": "a crash loses answered changes",
	} {
		if value := at.Settings[name]; value == "off" {
			d.add("database", levelProblem, "set "+name+" = on", "%s is off: %s", name, why)
		}
	}
	if value := at.Settings["synchronous_commit"]; value == "local" && at.Settings["synchronous_standby_names"] != "" {
		d.add(
			"database",
			levelProblem,
			"set synchronous_commit = on",
			"synchronous_commit is local: a standby that is promoted may lack answered changes",
		)
	}
	d.ok("database", "fsync %s, synchronous_commit %s", at.Settings["fsync"], at.Settings["synchronous_commit"])
	if most, err := strconv.Atoi(at.Settings["max_connections"]); err == nil {
		kept, _ := strconv.Atoi(at.Settings["superuser_reserved_connections"])
		if left := most - kept - at.Connections; left < most/10 {
			d.add(
				"database",
				levelWarning,
				"raise max_connections, lower --database-connections, or put PgBouncer in between in session mode",
				"%d of %d connections are left",
				max(left, 0),
				most,
			)
		} else {
			d.ok("database", "%d of %d connections are in use", at.Connections, most)
		}
	}
	d.replication(at)
	off := at.Clock.Sub(at.Asked).Abs()
	if off > time.Second {
		d.add(
			"clock",
			levelWarning,
			"synchronize the clocks of all servers (NTP): they decide about expiry",
			"the database's clock is %s from this one",
			off.Round(time.Millisecond),
		)
	} else {
		d.ok("clock", "the database's clock is less than a second from this one")
	}
}

func (d *doctor) replication(at store.Diagnosis) {
	if at.Standby {
		return
	}
	sync := slices.ContainsFunc(
		at.Standbys,
		func(s store.Standby) bool { return s.Sync == "sync" || s.Sync == "quorum" },
	)
	names := at.Settings["synchronous_standby_names"]
	switch {
	case len(at.Standbys) == 0 && names != "":
		d.add(
			"replication",
			levelProblem,
			"bring the standby back; changes wait until then",
			"synchronous_standby_names is %q, and no standby is connected",
			names,
		)
	case len(at.Standbys) == 0:
		d.add(
			"replication",
			levelWarning,
			"set up a standby, or keep backups and an export of events",
			"there is no standby",
		)
	case !sync:
		d.add(
			"replication",
			levelWarning,
			"set synchronous_standby_names, so that a promoted standby has every answered change; or replay an export of events onto it",
			"no standby is synchronous: one that is promoted lacks the last changes, revocations too",
		)
	}
	for _, s := range at.Standbys {
		d.ok(
			"replication",
			"%s: %s, %s, replayed %s, %d bytes behind",
			cli.OrDash(s.Name),
			s.State,
			s.Sync,
			s.Replayed,
			s.Lag,
		)
	}
}

func (d *doctor) sqlite(at store.Diagnosis, path string) {
	d.ok(
		"database",
		"SQLite %s, in the program itself; synchronous=FULL, journal_mode %s",
		at.Version,
		at.Settings["journal_mode"],
	)
	if at.Settings["journal_mode"] != "wal" {
		d.add(
			"database",
			levelProblem,
			"see that the file system has shared memory; network file systems do not do",
			"the journal mode is %s, not wal",
			at.Settings["journal_mode"],
		)
	}
	took, err := syncTimes(filepath.Dir(path), 32)
	d.disk(took, err)
}

// honest is the shortest time in which a device can really write and sync.
const honest = 15 * time.Microsecond

// disk judges how long the file system took, each time, to say that a page is on disk. A promise that costs nothing is
// none.
func (d *doctor) disk(took []time.Duration, err error) {
	if err != nil {
		d.add(
			"disk",
			levelProblem,
			"see that the server's user can write to the directory, and that there is room",
			"%v",
			err,
		)
		return
	}
	half := took[len(took)/2]
	if half < honest {
		d.add(
			"disk",
			levelWarning,
			"put the store on a disk that keeps what it is told to keep, not into memory or behind a cache that loses power",
			"putting a page on disk takes %s: a power loss would lose answered changes",
			half,
		)
		return
	}
	d.ok(
		"disk",
		"putting a page on disk takes %s, at most %s",
		half.Round(time.Microsecond),
		took[len(took)-1].Round(time.Microsecond),
	)
}

// syncTimes measures n times how long it takes until a page is on disk, and returns the times sorted.
func syncTimes(dir string, n int) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return nil, fmt.Errorf("write beside the store: %w", err)
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	page := make([]byte, 4096)
	for range n {
		began := time.Now()
		if _, err := f.WriteAt(page, 0); err != nil {
			return nil, fmt.Errorf("write beside the store: %w", err)
		}
		if err := f.Sync(); err != nil {
			return nil, fmt.Errorf("put a file on disk: %w", err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}
