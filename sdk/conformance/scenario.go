package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
)

// scenario is one entry of a file of scenarios. Its users are its own.
type scenario struct {
	Name  string `json:"name"`
	Why   string `json:"why"`
	Short bool   `json:"short"` // it takes a second or two
	// Needs is what the driver must be able to do; Speaks what it must speak, empty: anything.
	Needs  []string `json:"needs"`
	Speaks string   `json:"speaks"`
	// Configure has members of the first configure beside the addresses and the token; "audience_of_service" binds the
	// service itself. If Wait is absent, the first step waits until the verifier watches.
	Configure map[string]any `json:"configure"`
	NoWait    bool           `json:"no_wait"`
	Steps     []step         `json:"steps"`
}

// step is one step. One of the members above the line says what is done; those below it belong to some of them.
type step struct {
	Mint     string           `json:"mint"`     // makes a token of this name: user, scopes, networks, audiences, ttl
	Exchange string           `json:"exchange"` // makes an access token of this name, from the token in of
	Rotate   string           `json:"rotate"`   // gives a token another secret, which is known as to, at once or after grace
	Revoke   string           `json:"revoke"`
	Narrow   string           `json:"narrow"` // leaves a token with these scopes
	Features *[]string        `json:"features"`
	Suspend  string           `json:"suspend"` // a user
	Resume   string           `json:"resume"`
	Delete   string           `json:"delete"`
	Service  string           `json:"service"` // "revoke": the driver's own service
	Patd     string           `json:"patd"`    // stop, kill, start, restart, freeze, thaw, copy, restore
	Changes  int              `json:"changes"` // so many, of users whose tokens nobody checks
	Proxy    map[string]fault `json:"proxy"`   // faults by kind of traffic: feed, ask, uses, acks
	WaitMS   int              `json:"wait_ms"`
	Clock    *int             `json:"clock"` // how wrong the driver's wall clock is from now on, in ms

	Configured map[string]any `json:"configured"` // closes the verifier and makes another
	Watching   *bool          `json:"watching"`   // waits until the driver's status says so
	Entries    *int           `json:"entries"`    // how many answers are in memory, at most
	Remember   string         `json:"remember"`   // checks a token until it is allowed without a question to patd
	Check      string         `json:"check"`      // a token's name; "text:" and a text; "unknown", a new one; or "service"
	Begin      string         `json:"begin"`      // a check that is not waited for; end waits for those of the token
	End        string         `json:"end"`
	Close      bool           `json:"close"`
	Used       string         `json:"used"`  // waits until patd knows a use of a token, from ip, in scopes
	Acked      *int           `json:"acked"` // waits until the driver has sent so many acknowledgements
	Held       bool           `json:"held"`  // waits until the proxy holds what follows an event with more

	// -----

	User      string   `json:"user"` // "": alice
	Of        string   `json:"of"`
	To        string   `json:"to"`
	Scopes    []string `json:"scopes"`
	Networks  []string `json:"networks"`
	Audiences []string `json:"audiences"`
	TTL       string   `json:"ttl"`
	Grace     string   `json:"grace"`
	Audience  string   `json:"audience"`
	IP        string   `json:"ip"`

	// Wait is how long a revoke or suspend waits for its receipt. Silent is whether that names the driver's service,
	// and Everywhere whether nothing is silent.
	Wait       string `json:"wait"`
	Silent     *bool  `json:"silent"`
	Everywhere *bool  `json:"everywhere"`
	MostAcked  *int   `json:"most_acked"`

	// Want is the decision of a check, "error", or "error:" and its class; of a close "error" or nothing. Missing are
	Want        string   `json:"want"`
	Missing     []string `json:"missing"`
	Or          []string `json:"or"`        // other outcomes of a check that is repeated; absent: ALLOW
	WithinMS    int      `json:"within_ms"` // repeats a check until it gives what is wanted
	ForMS       int      `json:"for_ms"`    // repeats a check for so long; each must give what is wanted
	Times       int      `json:"times"`     // repeats a check, one after the other
	Parallel    int      `json:"parallel"`  // as many at once
	Asks        *int     `json:"asks"`      // how many tokens patd is asked about meanwhile
	MostAsks    *int     `json:"most_asks"` // at most
	DistinctIPs bool     `json:"distinct_ips"`
}

//go:embed scenarios vectors.json
var files embed.FS

// scenarios returns all scenarios, in the order of their files' names.
func scenarios() ([]scenario, error) {
	names, err := fs.Glob(files, "scenarios/*.json")
	if err != nil {
		return nil, err
	}
	var all []scenario
	have := map[string]bool{}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		var some []scenario
		if err := d.Decode(&some); err != nil {
			return nil, fmt.Errorf("%s: %w", path.Base(name), err)
		}
		for _, s := range some {
			if s.Name == "" || s.Why == "" || have[s.Name] || len(s.Steps) == 0 {
				return nil, fmt.Errorf(
					"%s: scenario %q has no name or reason of its own, or no steps",
					path.Base(name),
					s.Name,
				)
			}
			have[s.Name] = true
			all = append(all, s)
		}
	}
	return all, nil
}
