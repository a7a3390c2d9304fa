package features

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"patd/internal/loopback"
	"patd/internal/secretfile"
)

func mysqlEngine() engine {
	return engine{
		name: "MySQL", open: openMySQL, check: checkMySQL, loggable: loggableMySQL,
		form: func(q string) string { return q },
	}
}

// openMySQL makes a pool of sessions that are read-only and end a statement by themselves.
func openMySQL(c SQLConfig, u *url.URL) (*sql.DB, error) {
	config, err := mysqlConfig(c, u)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, errors.New("the URL has a parameter that MySQL's driver does not take")
	}
	db := sql.OpenDB(readOnlyMySQL{Connector: connector, limit: c.serverLimit()})
	db.SetMaxIdleConns(c.MaxConns)
	db.SetConnMaxIdleTime(time.Minute)
	db.SetConnMaxLifetime(10 * time.Minute)
	return db, nil
}

// mysqlConfig reads mysql://user[:password]@host[:port]/database[?tls=…&ca=…&socket=…].
func mysqlConfig(c SQLConfig, u *url.URL) (*mysql.Config, error) {
	if err := checkPassword(c, u); err != nil {
		return nil, err
	}
	config := mysql.NewConfig()
	config.User = u.User.Username()
	config.Passwd, _ = u.User.Password()
	config.DBName = strings.TrimPrefix(u.Path, "/")
	if config.User == "" || config.DBName == "" {
		return nil, errors.New("a MySQL URL names a user and a database: mysql://user@host/database")
	}
	host, port := u.Hostname(), u.Port()
	if host == "" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = "3306"
	}
	config.Net, config.Addr = "tcp", net.JoinHostPort(host, port)
	// The driver's own lines would go unsolicited to standard error.
	config.Logger = &mysql.NopLogger{}
	config.Timeout, config.ReadTimeout, config.WriteTimeout = c.Timeout, c.serverLimit(), c.serverLimit()
	if err := mysqlParameters(config, host, u.Query()); err != nil {
		return nil, err
	}
	if c.PasswordFile != "" {
		err := config.Apply(mysql.BeforeConnect(func(_ context.Context, next *mysql.Config) error {
			password, err := readSecretFile(c.PasswordFile)
			next.Passwd = password.Reveal()
			return err
		}))
		if err != nil {
			return nil, fmt.Errorf("use the password file: %w", err)
		}
	}
	return config, nil
}

// mysqlParameters reads the URL's parameters. A server on another machine must prove its identity, unless tls says
// otherwise.
func mysqlParameters(config *mysql.Config, host string, parameters url.Values) error {
	if config.TLSConfig = "true"; loopback.HostOrSocket(host) || parameters.Has("socket") {
		config.TLSConfig = "preferred"
	}
	for name, values := range parameters {
		if len(values) != 1 {
			return errors.New("a MySQL URL gives each parameter once")
		}
		switch value := values[0]; name {
		case "tls":
			if value != "true" && value != "false" && value != "preferred" && value != "skip-verify" {
				return errors.New("tls in a MySQL URL is true, preferred, skip-verify or false")
			}
			config.TLSConfig = value
		case "ca":
			roots, err := readRoots(value)
			if err != nil {
				return err
			}
			config.TLS = &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
		case "socket":
			config.Net, config.Addr = "unix", value
		default:
			return errors.New("a MySQL URL takes the parameters tls, ca and socket")
		}
	}
	if config.TLS != nil && parameters.Has("tls") && config.TLSConfig != "true" {
		return errors.New("ca in a MySQL URL goes with tls=true")
	}
	return nil
}

// readRoots reads certificates of authorities from a PEM file.
func readRoots(path string) (*x509.CertPool, error) {
	pem, err := secretfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("read certificates: " + path + " holds none in PEM form")
	}
	return roots, nil
}

// readOnlyMySQL makes every session read-only and gives its statements a time limit on the server.
type readOnlyMySQL struct {
	driver.Connector
	limit time.Duration
}

// errUnknownVariable is the server's number for a system variable that it does not have.
const errUnknownVariable = 1193

// Connect opens a session.
func (m readOnlyMySQL) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := m.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.prepare(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (m readOnlyMySQL) prepare(ctx context.Context, conn driver.Conn) error {
	session, ok := conn.(driver.ExecerContext)
	if !ok {
		return driver.ErrSkip
	}
	if _, err := session.ExecContext(ctx, "SET SESSION TRANSACTION READ ONLY", nil); err != nil {
		return err
	}
	// MySQL counts in milliseconds; MariaDB has another variable, which counts in seconds.
	_, err := session.ExecContext(
		ctx,
		"SET SESSION max_execution_time = "+strconv.FormatInt(m.limit.Milliseconds(), 10),
		nil,
	)
	var unknown *mysql.MySQLError
	if errors.As(err, &unknown) && unknown.Number == errUnknownVariable {
		_, err = session.ExecContext(
			ctx,
			"SET SESSION max_statement_time = "+strconv.FormatFloat(m.limit.Seconds(), 'f', 3, 64),
			nil,
		)
	}
	return err
}

// checkMySQL prepares the query, first as a part of another one. There only a SELECT may stand that writes no file and
// no variable (INTO OUTFILE, INTO DUMPFILE, INTO @name), which a read-only transaction would allow. The columns are
// known only when it runs.
func checkMySQL(ctx context.Context, conn *sql.Conn, query string) error {
	return conn.Raw(func(driverConn any) error {
		c, ok := driverConn.(driver.ConnPrepareContext)
		if !ok {
			return malformed("this is not a MySQL connection")
		}
		if _, err := mysqlParameterCount(ctx, c, query); err != nil {
			return err // the server's own words, which point at the place
		}
		n, err := mysqlParameterCount(ctx, c, "SELECT * FROM (\n"+query+"\n) AS patd_query")
		var refused *mysql.MySQLError
		switch {
		case errors.As(err, &refused) && refused.Number == errSyntax:
			return malformed("the query must be one SELECT that only reads: without INTO, and nothing beside it")
		case err != nil:
			return err
		case n != 1:
			return malformed(fmt.Sprintf("the query must have exactly one parameter, the user id as ?, and has %d", n))
		}
		return nil
	})
}

// errSyntax is the server's number for a statement that it cannot parse.
const errSyntax = 1064

// mysqlParameterCount prepares a statement and returns how many parameters it has. Nothing is run.
func mysqlParameterCount(ctx context.Context, c driver.ConnPrepareContext, statement string) (int, error) {
	stmt, err := c.PrepareContext(ctx, statement)
	if err != nil {
		return 0, err
	}
	n := stmt.NumInput()
	return n, stmt.Close()
}

// loggableMySQL keeps the server's text about connections, rights and the query itself. Other errors may quote values,
// so only their numbers are kept.
func loggableMySQL(err error) (ok bool, loggable error) {
	var my *mysql.MySQLError
	if errors.As(err, &my) {
		switch string(my.SQLState[:2]) {
		case "08", "25", "28", "42":
			return true, fmt.Errorf("%s (error %d, SQLSTATE %s)", my.Message, my.Number, my.SQLState)
		default:
			return true, fmt.Errorf(
				"error %d, SQLSTATE %s, whose text is withheld because it may quote data",
				my.Number,
				my.SQLState,
			)
		}
	}
	if errors.Is(err, mysql.ErrInvalidConn) {
		return true, errors.New("the connection broke")
	}
	return false, nil
}
