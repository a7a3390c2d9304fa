package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
)

// maxMetrics bounds what is read of an answer, in bytes.
const maxMetrics = 8 << 20

// top shows what servers do, from their metrics.
type top struct {
	c       *cli.Command
	servers []string
	every   time.Duration
	client  *http.Client
}

// look is what one server's metrics said.
type look struct {
	at       time.Time
	families map[string]*dto.MetricFamily
	err      error
}

// rates are what a server did between two samples.
type rates struct {
	Server string `json:"server"`
	Error  string `json:"error,omitempty"`
	// Calls, Unavailable and Decisions are a second.
	Calls       float64            `json:"calls_per_second"`
	Unavailable float64            `json:"unavailable_per_second"`
	Limited     float64            `json:"rate_limited_per_second"`
	P99         float64            `json:"p99_seconds"` // of calls, as the buckets tell; 0: there were none
	Decisions   map[string]float64 `json:"decisions_per_second"`
	HitRatio    float64            `json:"cache_hit_ratio"` // 0: there were no lookups
	Following   bool               `json:"feed_following"`
	WebhookLag  float64            `json:"webhook_oldest_seconds"`
	Failing     bool               `json:"changes_failing"`
	DiskFull    bool               `json:"disk_full"`
	Version     string             `json:"version"`
}

func topCommand(c *cli.Command) *cobra.Command {
	t := top{c: c}
	every := cli.Duration(2 * time.Second)
	var once, asJSON bool
	cmd := &cobra.Command{
		Use:   "top [URL…]",
		Short: "Show what servers do: calls, decisions, lag, from their metrics",
		Long: `Show what servers do, from their metrics: calls a second and their p99, decisions a second, 503 and 429, the cache, whether the
change feed is followed, and how long messages to webhooks wait. Name each server by the URL of its REST address, or of its
--metrics-addr; http://127.0.0.1:8080 otherwise. It is shown again every --every until stopped; with --once, once.`,
		Args: cobra.ArbitraryArgs,
	}
	f := cmd.Flags()
	f.Var(&every, "every", "how often to look; the figures are of this time")
	f.BoolVar(&once, "once", false, "look for --every, print, and end; the exit code is 1 if a server did not answer")
	f.BoolVar(&asJSON, "json", false, "print JSON, with --once an object, else an object a line")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if t.every = time.Duration(every); t.every < 100*time.Millisecond {
			return errors.New("--every must be 100ms or longer")
		}
		if len(args) == 0 {
			args = []string{"http://127.0.0.1:8080"}
		}
		for _, u := range args {
			if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
				return errors.New("a server is named by its URL, such as http://127.0.0.1:8080")
			}
			t.servers = append(t.servers, strings.TrimSuffix(strings.TrimSuffix(u, "/"), "/metrics"))
		}
		return nil
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error { return t.run(ctx, once, asJSON) })
	return cmd
}

func (t *top) run(ctx context.Context, once, asJSON bool) error {
	t.client = &http.Client{Timeout: 10 * time.Second}
	defer t.client.CloseIdleConnections()
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	before := t.lookAt(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := t.lookAt(ctx)
		if ctx.Err() != nil {
			return nil
		}
		list := make([]rates, len(t.servers))
		silent := 0
		for i, server := range t.servers {
			if list[i] = between(server, before[i], now[i]); list[i].Error != "" {
				silent++
			}
		}
		if err := t.print(list, once, asJSON); err != nil {
			return err
		}
		switch {
		case once && silent > 0:
			return fmt.Errorf("%s of %d did not answer", cli.Counted(int64(silent), "server"), len(list))
		case once:
			return nil
		}
		before = now
	}
}

// lookAt reads the metrics of all servers at once.
func (t *top) lookAt(ctx context.Context) []look {
	list := make([]look, len(t.servers))
	var wait sync.WaitGroup
	for i, server := range t.servers {
		wait.Go(func() {
			list[i].families, list[i].err = t.read(ctx, server)
			list[i].at = time.Now()
		})
	}
	wait.Wait()
	return list
}

func (t *top) read(ctx context.Context, server string) (map[string]*dto.MetricFamily, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/metrics", nil)
	if err != nil {
		return nil, errors.New("the URL cannot be read")
	}
	answer, err := t.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", answer.Status)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	return p.TextToMetricFamilies(io.LimitReader(answer.Body, maxMetrics))
}

// sum adds the values of a metric, of those with a label's value; an empty label: of all.
func (s look) sum(name, label, value string) (total float64) {
	for _, m := range s.families[name].GetMetric() {
		if label != "" && labelOf(m, label) != value {
			continue
		}
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
	}
	return total
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// between returns what a server did. A counter that went back began anew, with the server.
func between(server string, before, now look) rates {
	r := rates{Server: server, Decisions: map[string]float64{}}
	for _, s := range []look{before, now} {
		if s.err != nil {
			r.Error = cli.Redact(s.err.Error())
			return r
		}
	}
	took := now.at.Sub(before.at).Seconds()
	grown := func(name, label, value string) float64 {
		is, was := now.sum(name, label, value), before.sum(name, label, value)
		if is < was {
			was = 0
		}
		return is - was
	}
	r.Calls, r.Unavailable = grown(
		"patd_calls_total",
		"",
		"",
	)/took, grown(
		"patd_calls_total",
		"code",
		"UNAVAILABLE",
	)/took
	r.Limited = grown("patd_rate_limited_total", "", "") / took
	for _, m := range now.families["patd_decisions_total"].GetMetric() {
		name := labelOf(m, "decision")
		if n := grown("patd_decisions_total", "decision", name); n > 0 {
			r.Decisions[name] = n / took
		}
	}
	hits, misses := grown("patd_cache_hits_total", "", ""), grown("patd_cache_misses_total", "", "")
	if hits+misses > 0 {
		r.HitRatio = hits / (hits + misses)
	}
	r.P99 = quantile(0.99, before, now)
	r.Following, r.Failing = now.sum("patd_feed_following", "", "") == 1, now.sum("patd_changes_failing", "", "") == 1
	r.DiskFull, r.WebhookLag = now.sum("patd_disk_full", "", "") == 1, now.sum("patd_webhook_oldest_seconds", "", "")
	for _, m := range now.families["patd_build_info"].GetMetric() {
		r.Version = labelOf(m, "version")
	}
	return r
}

// quantile returns the bound of the bucket that a part of the calls between two samples was within.
func quantile(q float64, before, now look) float64 {
	counts := map[float64]float64{}
	add := func(s look, sign float64) {
		for _, m := range s.families["patd_call_duration_seconds"].GetMetric() {
			for _, b := range m.GetHistogram().GetBucket() {
				counts[b.GetUpperBound()] += sign * float64(b.GetCumulativeCount())
			}
		}
	}
	add(now, 1)
	add(before, -1)
	bounds := slices.Sorted(maps.Keys(counts))
	if len(bounds) == 0 || counts[bounds[len(bounds)-1]] <= 0 {
		return 0
	}
	all := counts[bounds[len(bounds)-1]]
	for _, bound := range bounds {
		if counts[bound] >= q*all && !math.IsInf(bound, 0) {
			return bound
		}
	}
	return bounds[max(len(bounds)-2, 0)]
}

func (t *top) print(list []rates, once, asJSON bool) error {
	if asJSON {
		out := struct {
			Servers []rates `json:"servers"`
		}{list}
		if once {
			return t.c.JSON(out)
		}
		return t.c.JSONLine(out)
	}
	if !once {
		fmt.Fprint(t.c.Stdout, "\x1b[H\x1b[2J") // the terminal begins anew
		fmt.Fprintf(t.c.Stdout, "patd top, %s, every %s\n\n", time.Now().UTC().Format(time.RFC3339), t.every)
	}
	var rows [][]string
	all := map[string]float64{}
	for _, r := range list {
		if r.Error != "" {
			rows = append(rows, []string{r.Server, "does not answer: " + r.Error, "", "", "", "", "", "", ""})
			continue
		}
		decided := 0.0
		for name, n := range r.Decisions {
			all[name] += n
			decided += n
		}
		state := []string{}
		for what, is := range map[string]bool{"NOT FOLLOWING": !r.Following, "NO CHANGES": r.Failing, "DISK FULL": r.DiskFull} {
			if is {
				state = append(state, what)
			}
		}
		slices.Sort(state)
		if len(state) == 0 {
			state = append(state, "ok")
		}
		rows = append(rows, []string{
			r.Server, rate(r.Calls), milliseconds(r.P99), rate(decided), rate(r.Unavailable), rate(r.Limited),
			fmt.Sprintf("%.0f %%", 100*r.HitRatio), fmt.Sprintf("%.0f s", r.WebhookLag), strings.Join(state, ", "),
		})
	}
	if err := cli.Table(
		t.c.Stdout,
		[]string{"SERVER", "CALLS/s", "P99", "DECISIONS/s", "503/s", "429/s", "CACHE", "WEBHOOKS", "STATE"},
		rows,
	); err != nil {
		return err
	}
	fmt.Fprintln(t.c.Stdout)
	rows = nil
	for _, name := range slices.Sorted(maps.Keys(all)) {
		rows = append(rows, []string{name, rate(all[name])})
	}
	return cli.Table(t.c.Stdout, []string{"DECISION", "a second"}, rows)
}

func rate(n float64) string { return fmt.Sprintf("%.1f", n) }

func milliseconds(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("≤ %g ms", seconds*1000)
}
