package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/tokens"
)

// The groups of the commands under patd.
const (
	groupServe  = "serve"
	groupRemote = "remote"
	groupStore  = "store"
	groupBearer = "bearer"
)

// examples shows each command at work. A test runs every line as far as its flags and arguments.
func examples() map[string]string {
	return map[string]string{ //nolint:gosec // the names of files of tokens, no tokens
		"dev": "patd dev",
		"serve": "patd serve --data-dir data\n" +
			"patd serve --config patd.yaml --http-addr 127.0.0.1:8443 --tls-cert cert.pem --tls-key key.pem",
		"login": "patd login --addr patd.example.com:9090\n" +
			"patd login --device",
		"logout": "patd logout",
		"whoami": "patd whoami --json",
		"token create": "patd token create --user alice --name 'nightly export' --scope reports.read,billing.read " +
			"--ttl 90d > export.token",
		"token list":            "patd token list --user alice --state active",
		"token show":            "patd token show --user alice 15ODq7pq8Hy",
		"token update":          "patd token update --user alice 15ODq7pq8Hy --scope reports.read --cidr 192.0.2.0/24",
		"token rotate":          "patd token rotate --user alice 15ODq7pq8Hy --grace 7d --ttl 90d > export.token",
		"token revoke":          "patd token revoke --user alice 15ODq7pq8Hy --reason 'no longer used'",
		"token resume":          "patd token resume --user alice 15ODq7pq8Hy",
		"token cancel-rotation": "patd token cancel-rotation --user alice 15ODq7pq8Hy",
		"token narrow":          "patd token narrow --user alice 15ODq7pq8Hy\npatd token narrow --user alice --unused-for 90d --confirm 15ODq7pq8Hy",
		"token resume-scopes":   "patd token resume-scopes --user alice --scope reports.read 15ODq7pq8Hy",
		"token preview-idle":    "patd token preview-idle --idle-ttl 180d",
		"token narrow-matching": "patd token narrow-matching --label team=infra --unused-for 90d\npatd token narrow-matching --label team=infra --unused-for 90d --confirm 12",
		"token revoke-matching": "patd token revoke-matching --scope deploy.run --unused-since 90d\n" +
			"patd token revoke-matching --scope deploy.run --unused-since 90d --confirm 12 --reason 'not in use'",
		"user features": "patd user features alice\n" +
			"patd user features alice --set reports.read,billing.read\n" +
			"patd user features alice --add deploy.run",
		"user refresh":     "patd user refresh alice",
		"user suspend":     "patd user suspend alice --reason 'payment is late'",
		"user resume":      "patd user resume alice",
		"user delete":      "patd user delete alice --reason 'left the company'",
		"user show":        "patd user show alice",
		"user list":        "patd user list --state suspended",
		"scopes import":    "patd scopes import openapi.yaml --apply\npatd scopes import openapi.yaml --gateway nginx",
		"feature create":   "patd feature create reports.read --display-name 'Read reports' --default",
		"feature get":      "patd feature get reports.read",
		"feature list":     "patd feature list --filter 'consent eq \"REQUIRED\" and system eq false'",
		"feature replace":  "patd feature replace reports.read --display-name 'Read all reports' --consent required",
		"feature delete":   "patd feature delete reports.read",
		"feature impact":   "patd feature impact --lose billing.read --all",
		"audience create":  "patd audience create https://api.example.com --max-ttl 90d",
		"audience show":    "patd audience show https://api.example.com",
		"audience list":    "patd audience list",
		"audience replace": "patd audience replace https://api.example.com --max-ttl 30d",
		"audience delete":  "patd audience delete https://api.example.com",
		"audience check":   "patd audience check https://api.example.com --max-ttl 30d",
		"audience block":   "patd audience block https://api.example.com",
		"audience unblock": "patd audience unblock https://api.example.com",
		"webhook create": "patd webhook create chat --url https://hooks.example.com/patd --event-type token.revoked " +
			"--event-type token.leaked > webhook.secret",
		"webhook list":          "patd webhook list",
		"webhook show":          "patd webhook show chat",
		"webhook update":        "patd webhook update chat --event-type token.leaked --label team=billing",
		"webhook delete":        "patd webhook delete chat",
		"webhook rotate-secret": "patd webhook rotate-secret chat > webhook.secret",
		"webhook test":          "patd webhook test chat",
		"webhook deliveries":    "patd webhook deliveries chat --state pending",
		"webhook redeliver":     "patd webhook redeliver chat 0f8e2b6c1d4a49f7a3b5c7d9e1f20304",
		"introspect":            "patd introspect --scope reports.read < export.token",
		"events":                "patd events --user alice --action token.create",
		"events export":         "patd events export events.jsonl --data-dir data\npatd events export events.jsonl --follow --data-dir data",
		"events prune":          "patd events prune --older-than 400d --data-dir data",
		"service create":        "patd service create gateway --permission introspect --data-dir data > gateway.token",
		"service list":          "patd service list --data-dir data",
		"service rotate":        "patd service rotate gateway --data-dir data > gateway.token",
		"service revoke":        "patd service revoke gateway --data-dir data",
		"keys prepare":          "patd keys prepare --data-dir data",
		"keys rotate":           "patd keys rotate --data-dir data",
		"keys status":           "patd keys status --data-dir data",
		"keys retire":           "patd keys retire k1 --data-dir data",
		"migrate":               "patd migrate --data-dir data",
		"backup":                "patd backup patd-monday.db --data-dir data",
		"restore": "patd restore patd-monday.db --data-dir data\n" +
			"patd restore patd-monday.db --replay events.jsonl --data-dir data",
		"credential list": "patd credential list --data-dir data\npatd credential list --kind service --json --data-dir data",
		"credential end":  "patd credential end --data-dir data --issued-before 2026-01-31T12:00:00Z --confirm 12",
		"drill restore": "patd drill restore --data-dir data\n" +
			"patd drill restore --backup patd-monday.db --replay events.jsonl --json --data-dir data",
		"check": "patd check --data-dir data\n" +
			"patd check --database-url sqlite:patd-monday.db --hash-key-file data/hash.key",
		"doctor": "patd doctor --data-dir data\npatd doctor --config patd.yaml --json",
		"top":    "patd top\npatd top --once --json https://a.example.com https://b.example.com",
		"copy": "patd copy --from sqlite:data/patd.db --to postgres://patd@db.internal/patd --hash-key-file " +
			"data/hash.key",
		"agent": "patd agent --token-file export.token --server https://patd.example.com --hook 'systemctl reload export'\n" +
			"patd agent --token-file export.token --server https://patd.example.com --once",
		"scanner-config": "patd scanner-config > .gitleaks.toml",
		"health":         "patd health --addr 127.0.0.1:9090",
		"manual":         "patd manual usr/share",
		"version":        "patd version --json",
	}
}

// choices returns the values of flags that have few, for the completion of a shell.
func choices() map[string][]string {
	return map[string][]string{
		"permission": {"introspect", "tokens", "users", "catalog", "audit", "admin"}, "action": actionNames(),
		"event-type": tokens.WebhookTypes(),
		"consent":    {"implicit", "required", "flexible"}, "features-source": {"table", "sql", "callback", "claim"},
		"log-level": {"debug", "info", "warn", "error"}, "log-format": {"json", "text"},
	}
}

func actionNames() []string {
	var names []string
	for _, a := range tokens.Actions() {
		names = append(names, string(a))
	}
	return names
}

// describe adds to each command its examples, its group and the values of its flags.
func describe(root *cobra.Command) {
	root.AddGroup(
		&cobra.Group{
			ID:    groupServe,
			Title: "Serve",
		},
		&cobra.Group{ID: groupRemote, Title: "Over gRPC, with a service token or as yourself"},
		&cobra.Group{ID: groupBearer, Title: "Beside a program that uses a token"},
		&cobra.Group{ID: groupStore, Title: "On the store itself, the server running or not"},
	)
	for id, names := range map[string][]string{
		groupServe: {"dev", "serve"}, groupRemote: {"login", "logout", "whoami", "token", "user", "feature", "audience", "webhook", "introspect", "events"},
		groupBearer: {"agent"},
		groupStore:  {"service", "keys", "migrate", "backup", "restore", "credential", "drill", "check", "doctor", "copy"},
	} {
		for _, name := range names {
			if cmd, _, err := root.Find([]string{name}); err == nil {
				cmd.GroupID = id
			}
		}
	}
	shown, values := examples(), choices()
	walk(root, func(cmd *cobra.Command) {
		cmd.Flags().SortFlags = false // they are shown in groups, in the order in which those were added
		if example, ok := shown[strings.TrimPrefix(cmd.CommandPath(), "patd ")]; ok {
			cmd.Example = example
		}
		for name, few := range values {
			if cmd.Flags().Lookup(name) != nil {
				// There is none yet, so it cannot fail.
				_ = cmd.RegisterFlagCompletionFunc(
					name,
					cobra.FixedCompletions(few, cobra.ShellCompDirectiveNoFileComp),
				)
			}
		}
	})
}

// walk visits a command and all under it.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

// helpCommand is cobra's, but a command that does not exist is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			switch {
			case err != nil:
				return errors.New("there is no such command")
			case len(rest) > 0 && found.HasAvailableSubCommands():
				return cli.UnknownCommand(found, rest[0])
			case len(rest) > 0:
				return fmt.Errorf("%s has no commands under it", found.CommandPath())
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}
