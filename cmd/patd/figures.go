package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/storeadmin"
	"patd/features"
	"patd/internal/logpipe"
	"patd/server"
	"patd/server/signin"
	"patd/server/webhook"
	"patd/store"
	"patd/store/cache"
	"patd/tokens"
)

// figures returns the metrics of the cache, of background writes, of the log, and of what expires.
func figures(
	cached *cache.Cache,
	st *store.Store,
	log *logpipe.Writer,
	users *signin.SignIn,
	source tokens.FeatureSource,
	ends *expiries,
	hooks *webhook.Engine,
) func() []server.Figure {
	return func() []server.Figure {
		s, disk := cached.Stats(), st.Disk()
		flag := func(on bool) int {
			if on {
				return 1
			}
			return 0
		}
		total := func(name, help string, v uint64) server.Figure {
			return server.Figure{Name: name, Help: help, Total: true, Value: float64(v)}
		}
		now := func(name, help string, v int) server.Figure {
			return server.Figure{Name: name, Help: help, Value: float64(v)}
		}
		serviceEnd, certificateEnd, endingSoon := ends.figures()
		seconds := func(name, help string, v float64) server.Figure {
			return server.Figure{Name: name, Help: help, Value: v}
		}
		misconfigured, unavailable := issuersIn(
			users,
			signin.StatusMisconfigured,
		), issuersIn(
			users,
			signin.StatusOutage,
		)
		keyAge, size := ends.measured()
		age, free := math.Inf(1), math.Inf(1)
		if since, ok := st.Feed().Age(); ok {
			age = since.Seconds()
		}
		if disk.Free >= 0 {
			free = float64(disk.Free)
		}
		return append([]server.Figure{
			seconds("patd_hash_key_age_seconds", "Seconds since the newest hash key was added.", keyAge),
			seconds("patd_store_bytes", "Bytes that the database takes.", size),
			now(
				"patd_signin_misconfigured",
				"OpenID issuers whose documents and the settings here do not go together.",
				misconfigured,
			),
			now("patd_signin_unavailable", "OpenID issuers that do not answer, or not as they should.", unavailable),
			seconds(
				"patd_service_token_expiry_seconds",
				"Seconds until the first of the service tokens expires; +Inf: none does.",
				serviceEnd,
			),
			now("patd_service_tokens_expiring", "Service tokens that expire within 14 days.", endingSoon),
			seconds(
				"patd_tls_certificate_expiry_seconds",
				"Seconds until the TLS certificate expires; +Inf: there is none.",
				certificateEnd,
			),
			total("patd_cache_hits_total", "Lookups answered from memory.", s.Hits),
			total("patd_cache_misses_total", "Lookups that asked the store.", s.Misses),
			total(
				"patd_cache_bypassed_total",
				"Lookups that asked the store because its change feed was silent.",
				s.Bypassed,
			),
			total("patd_cache_evicted_total", "Records that went for want of room.", s.Evicted),
			now("patd_cache_tokens", "Tokens in memory.", s.Tokens),
			now("patd_cache_access_tokens", "Short-lived access tokens in memory.", s.Accesses),
			now("patd_cache_users", "Users in memory.", s.Users),
			now("patd_cache_bytes", "About the memory that the cache takes.", s.Bytes),
			now("patd_cache_limit_bytes", "The bound of that.", s.Limit),
			now(
				"patd_feed_following",
				"1: the change feed is read and trusted; 0: it is not, and the cache is not used.",
				flag(s.Following),
			),
			total(
				"patd_feed_distrusted_total",
				"Times that the change feed went back, or stood still while changes were made.",
				s.Distrusted,
			),
			now(
				"patd_changes_failing",
				"1: the store takes no change, and the server is not ready; 0: it does.",
				flag(st.ChangesFail() != nil),
			),
			seconds(
				"patd_feed_age_seconds",
				"Seconds since the change feed was last read to its end: a change by another server may be missing for as long. +Inf: never.",
				age,
			),
			seconds(
				"patd_disk_free_bytes",
				"Bytes left on the disk of a store in a file; +Inf: it is not known, or not this machine's.",
				free,
			),
			now(
				"patd_disk_full",
				"1: the last change had no room on the disk of a store in a file; 0: it had.",
				flag(disk.Full),
			),
			now(
				"patd_disk_reserve_bytes",
				"Room that is set aside for changes that only take away; 0: there is none, or it is in use.",
				int(disk.Reserve),
			),
			total(
				"patd_rows_refused_total",
				"Times that a row was refused because it is not as patd wrote it.",
				st.RowsRefused(),
			),
			now(
				"patd_rows_sealed",
				"1: every row must have a checksum; 0: one without is accepted, see patd migrate --seal-rows.",
				flag(st.RowsSealed()),
			),
			total(
				"patd_uses_dropped_total",
				"Uses of tokens that were not noted, because too many were waiting to be written.",
				st.UsesDropped(),
			),
			total(
				"patd_audit_events_deleted_total",
				"Events that this server deleted from the audit log, after a pruning.",
				st.EventsDeleted(),
			),
			total(
				"patd_log_lines_dropped_total",
				"Log lines that were not written, because the log was not read or could not be written.",
				log.Dropped(),
			),
		}, slices.Concat(sourceFigures(source, ends.now()), signInFigures(users, ends.now()), webhookFigures(hooks))...)
	}
}

// issuersIn counts the issuers in a state.
func issuersIn(users *signin.SignIn, state signin.Status) (n int) {
	if users == nil {
		return 0
	}
	for _, s := range users.Statuses() {
		if s == state {
			n++
		}
	}
	return n
}

// storeDetails returns what /readyz reports about a store with a problem.
func storeDetails(cached *cache.Cache, st *store.Store) map[string]string {
	details := map[string]string{}
	if trouble := cached.Stats().Trouble; trouble != nil {
		details["feed"] = trouble.Error()
	}
	if st.ChangesFail() != nil {
		details["changes"] = "every change fails"
	}
	switch disk := st.Disk(); {
	case disk.Given:
		details["disk"] = "full; its reserve is in use, for revocations, suspensions and deletions only"
	case disk.Full:
		details["disk"] = "full"
	}
	return details
}

// signInDetails returns what /readyz reports about sign-in, when it does not work for some issuer.
func signInDetails(users *signin.SignIn) map[string]string {
	switch {
	case issuersIn(users, signin.StatusMisconfigured) > 0:
		return map[string]string{"signin": "misconfigured"}
	case issuersIn(users, signin.StatusOutage) > 0:
		return map[string]string{"signin": "unavailable"}
	}
	return nil
}

// sourceStats returns the counters of the source of features; none: patd keeps the features itself.
func sourceStats(source tokens.FeatureSource) features.Stats {
	if s, ok := source.(interface{ Stats() features.Stats }); ok {
		return s.Stats()
	}
	return features.Stats{}
}

// sourceFigures returns the metrics of the source of features.
func sourceFigures(source tokens.FeatureSource, now time.Time) []server.Figure {
	s := sourceStats(source)
	since := math.Inf(1)
	if !s.Success.IsZero() {
		since = max(now.Sub(s.Success).Seconds(), 0)
	}
	return []server.Figure{
		{Name: "patd_features_request_duration_seconds", Help: "How long requests to the source of features took.",
			Histogram: &server.Histogram{Count: s.Requests, Sum: s.Seconds, Buckets: s.Within}},
		{
			Name:  "patd_features_request_failures_total",
			Help:  "Requests to the source of features that failed.",
			Total: true,
			Value: float64(s.Failures),
		},
		{
			Name:  "patd_features_stale_answers_total",
			Help:  "Answers from the last that the source of features said, while it did not answer.",
			Total: true,
			Value: float64(s.Stale),
		},
		{
			Name:  "patd_features_since_success_seconds",
			Help:  "Seconds since the source of features last answered; +Inf: never, or there is none.",
			Value: since,
		},
	}
}

// signInFigures returns the metrics of sign-in.
func signInFigures(users *signin.SignIn, now time.Time) []server.Figure {
	age, total := math.Inf(1), map[signin.Cause]uint64{}
	if users != nil {
		if at := users.KeysFetched(); !at.IsZero() {
			age = max(now.Sub(at).Seconds(), 0)
		}
		users.Refusals(func(c signin.Cause, n uint64) { total[c] = n })
	}
	out := []server.Figure{
		{
			Name:  "patd_signin_keys_age_seconds",
			Help:  "Seconds since the keys of an issuer were fetched, of the issuer whose are the oldest; +Inf: one has none.",
			Value: age,
		},
	}
	for c := signin.CauseMalformed; c <= signin.CauseUnavailable; c++ {
		out = append(out, server.Figure{Name: "patd_signin_refusals_total", Help: "Sign-in tokens refused, by cause.",
			Labels: map[string]string{"cause": c.String()}, Total: true, Value: float64(total[c])})
	}
	return out
}

// partsOf returns what is wrong with each part of the server, without secrets: "" where it is well.
func partsOf(
	o *storeadmin.Opened,
	cached *cache.Cache,
	users *signin.SignIn,
	source tokens.FeatureSource,
	ends *expiries,
) func(context.Context) map[string]string {
	return func(ctx context.Context) map[string]string {
		cause := func(err error) string {
			if err == nil {
				return ""
			}
			return cli.Redact(err.Error())
		}
		details := storeDetails(cached, o.Store)
		parts := map[string]string{
			"store": cause(cached.Ready(ctx)), "hash_keys": cause(keysReadable(o)), "changes": cause(o.ChangesFail()),
			"feed": details["feed"], "disk": details["disk"], "signin": signInDetails(users)["signin"],
			"features": "", "tls_certificate": "", "service_tokens": "",
		}
		if sourceStats(source).Failing {
			parts["features"] = "the source of features did not answer the newest request; the log says why"
		}
		service, cert, soon := ends.figures()
		switch {
		case cert <= 0:
			parts["tls_certificate"] = "it has expired"
		case cert <= storeadmin.ExpiryNotice.Seconds():
			parts["tls_certificate"] = "it expires in " + tokens.FormatDuration(time.Duration(cert)*time.Second)
		}
		if soon > 0 {
			parts["service_tokens"] = fmt.Sprintf(
				"%d expire soon, the first in %s",
				soon,
				tokens.FormatDuration(time.Duration(service)*time.Second),
			)
		}
		return parts
	}
}
