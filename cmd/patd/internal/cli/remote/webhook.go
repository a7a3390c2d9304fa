package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Webhook is the command that manages webhooks.
func Webhook(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Have endpoints told what happens to tokens, users and services, over gRPC",
	}
	return c.Group(
		cmd,
		webhookCreate(
			c,
		),
		webhookList(c),
		webhookShow(c),
		webhookUpdate(c),
		webhookDelete(c),
		webhookRotate(c),
		webhookTest(c),
		webhookDeliveries(c),
		webhookRedeliver(c),
	)
}

// webhookFlags are the flags of what a webhook is to be.
type webhookFlags struct {
	w       patdv1.Webhook
	labels  []string
	disable bool
}

func (w *webhookFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.w.Url, "url", "", "where messages go: an https `URL`, or http on the server's machine")
	f.StringArrayVar(
		&w.w.EventTypes,
		"event-type",
		nil,
		"only this `type` of events, such as token.revoked; repeat for more",
	)
	f.StringArrayVar(&w.w.Users, "user", nil, "only events about this `user`; repeat for more")
	f.StringArrayVar(&w.w.Audiences, "audience", nil, "only events about tokens for this `audience`; repeat for more")
	f.StringArrayVar(&w.labels, "label", nil, "only events about tokens with this label, `KEY=VALUE`; repeat for more")
	f.StringVar(&w.w.Description, "description", "", "what it is for")
	f.BoolVar(&w.disable, "disable", false, "send it nothing until it is enabled with --disable=false")
}

func (w *webhookFlags) read() (err error) {
	enabled := !w.disable
	w.w.Enabled = &enabled
	w.w.Labels, err = labelled(w.labels)
	return err
}

func webhookCreate(c *cli.Command) *cobra.Command {
	var (
		flags  webhookFlags
		r      patdv1.CreateWebhookRequest
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "create [ID] --url URL",
		Short: "Add a webhook and print its secret, this once",
		Long: `Add a webhook and print its secret, this once: alone on standard output, all else on standard error. It is told what
happens from now on. Without an ID patd chooses one.`,
		Args: cobra.MaximumNArgs(1),
	}
	flags.add(cmd)
	cmd.Flags().
		StringVar(&r.RequestId, "request-id", "", "idempotency `key`: repeated with the same one, the command prints the same secret")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error { return flags.read() }
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			if r.Webhook = &flags.w; len(args) > 0 {
				r.Webhook.WebhookId = args[0]
			}
			answer, err := patdv1.NewWebhookServiceClient(conn).CreateWebhook(ctx, &r)
			if err != nil {
				return err
			}
			return printWebhookSecret(c, answer.GetWebhook(), asJSON)
		},
	)
}

// printWebhookSecret prints the secret alone on standard output, and the webhook on standard error.
func printWebhookSecret(c *cli.Command, w *patdv1.Webhook, asJSON bool) error {
	if asJSON {
		return c.Message(w)
	}
	if err := cli.Record(c.Stderr, webhookRecord(w)); err != nil {
		return err
	}
	if w.GetSecret() == "" {
		return errors.New("the secret of this request was rotated away since; see patd webhook rotate-secret")
	}
	_, err := fmt.Fprintln(c.Stdout, w.GetSecret())
	return err
}

func webhookRecord(w *patdv1.Webhook) []cli.Field {
	var labels []string
	for k, v := range w.GetLabels() {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	return []cli.Field{
		{"id", w.GetWebhookId()},
		{"url", w.GetUrl()},
		{"enabled", cli.Yes(w.GetEnabled())},
		{"disabled by patd", cli.Moment(w.GetDisableTime(), "")},
		{"because", w.GetDisableReason()},
		{"event types", strings.Join(w.GetEventTypes(), " ")},
		{"users", strings.Join(w.GetUsers(), " ")},
		{"audiences", strings.Join(w.GetAudiences(), " ")},
		{"labels", strings.Join(labels, " ")},
		{"description", w.GetDescription()},
		{"previous secret signs until", cli.Moment(w.GetPreviousSecretExpireTime(), "")},
		{"etag", w.GetEtag()},
	}
}

func printWebhook(c *cli.Command, w *patdv1.Webhook, asJSON bool) error {
	if asJSON {
		return c.Message(w)
	}
	return cli.Record(c.Stdout, webhookRecord(w))
}

func webhookList(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Short: "List webhooks by id", Args: cli.Takes()}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			all, r := &patdv1.ListWebhooksResponse{}, &patdv1.ListWebhooksRequest{Limit: tokens.MaxPageSize}
			for {
				page, err := patdv1.NewWebhookServiceClient(conn).ListWebhooks(ctx, r)
				if err != nil {
					return err
				}
				all.Webhooks = append(all.Webhooks, page.GetWebhooks()...)
				if r.After = page.GetAfter(); r.After == "" {
					break
				}
			}
			if asJSON {
				return c.Message(all)
			}
			var rows [][]string
			for _, w := range all.GetWebhooks() {
				enabled := cli.Yes(w.GetEnabled())
				if w.GetDisableReason() != "" {
					enabled += " (" + w.GetDisableReason() + ")"
				}
				rows = append(
					rows,
					[]string{w.GetWebhookId(), enabled, cli.OrDash(strings.Join(w.GetEventTypes(), " ")), w.GetUrl()},
				)
			}
			return cli.Table(c.Stdout, []string{"ID", "ENABLED", "EVENT TYPES", "URL"}, rows)
		},
	)
}

func webhookShow(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "show ID", Short: "Show a webhook", Args: cli.Takes("ID")}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			answer, err := patdv1.NewWebhookServiceClient(conn).
				GetWebhook(ctx, &patdv1.GetWebhookRequest{WebhookId: args[0]})
			if err != nil {
				return err
			}
			return printWebhook(c, answer.GetWebhook(), asJSON)
		},
	)
}

func webhookUpdate(c *cli.Command) *cobra.Command {
	var (
		flags  webhookFlags
		tag    string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Change a webhook; what is not given stays, and an empty value takes a filter away",
		Args:  cli.Takes("ID"),
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.StringVar(&tag, "etag", "", "change it only while this is its `tag`, as show prints it")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if slices.Equal(flags.labels, []string{""}) {
			flags.labels = nil
		}
		return flags.read()
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			hooks := patdv1.NewWebhookServiceClient(conn)
			answer, err := hooks.GetWebhook(ctx, &patdv1.GetWebhookRequest{WebhookId: args[0]})
			if err != nil {
				return err
			}
			w := answer.GetWebhook()
			if tag != "" {
				w.Etag = tag
			}
			for name, set := range map[string]func(){
				"url":         func() { w.Url = flags.w.GetUrl() },
				"event-type":  func() { w.EventTypes = given(flags.w.GetEventTypes()) },
				"user":        func() { w.Users = given(flags.w.GetUsers()) },
				"audience":    func() { w.Audiences = given(flags.w.GetAudiences()) },
				"label":       func() { w.Labels = flags.w.GetLabels() },
				"description": func() { w.Description = flags.w.GetDescription() },
				"disable":     func() { w.Enabled = flags.w.Enabled },
			} {
				if f.Changed(name) {
					set()
				}
			}
			changed, err := hooks.ReplaceWebhook(ctx, &patdv1.ReplaceWebhookRequest{WebhookId: args[0], Webhook: w})
			if err != nil {
				return err
			}
			return printWebhook(c, changed.GetWebhook(), asJSON)
		},
	)
}

// given returns the values of a flag that may be repeated; one empty value stands for none.
func given(values []string) []string {
	if slices.Equal(values, []string{""}) {
		return nil
	}
	return values
}

func webhookDelete(c *cli.Command) *cobra.Command {
	var r patdv1.DeleteWebhookRequest
	cmd := &cobra.Command{Use: "delete ID", Short: "Remove a webhook and what waits for it", Args: cli.Takes("ID")}
	cmd.Flags().StringVar(&r.Etag, "etag", "", "delete it only while this is its `tag`, as show prints it")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.WebhookId = args[0]
			_, err := patdv1.NewWebhookServiceClient(conn).DeleteWebhook(ctx, &r)
			return err
		},
	)
}

func webhookRotate(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.RotateWebhookSecretRequest
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "rotate-secret ID",
		Short: "Give a webhook a new secret and print it, this once; the present one signs along for 24 h",
		Args:  cli.Takes("ID"),
	}
	f := cmd.Flags()
	f.BoolVar(
		&r.Force,
		"force",
		false,
		"rotate although the secret before the present one still signs along, and end that one",
	)
	f.StringVar(
		&r.RequestId,
		"request-id",
		"",
		"idempotency `key`: repeated with the same one, the command prints the same secret",
	)
	f.StringVar(&r.Etag, "etag", "", "rotate it only while this is its `tag`, as show prints it")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.WebhookId = args[0]
			answer, err := patdv1.NewWebhookServiceClient(conn).RotateWebhookSecret(ctx, &r)
			if err != nil {
				return err
			}
			return printWebhookSecret(c, answer.GetWebhook(), asJSON)
		},
	)
}

// testPause is the time between two looks at the delivery of a test.
const testPause = 200 * time.Millisecond

func webhookTest(c *cli.Command) *cobra.Command {
	var asJSON bool
	wait := cli.Duration(20 * time.Second)
	cmd := &cobra.Command{
		Use:   "test ID",
		Short: "Send a test message to a webhook, and print what became of it",
		Args:  cli.Takes("ID"),
		Long: `Send a message of type webhook.test to a webhook, whatever its filter, and print what became of it: the exit code is not 0
unless the endpoint accepted it at the first attempt.`,
	}
	cmd.Flags().Var(&wait, "wait", "how long to wait for the first attempt")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			hooks := patdv1.NewWebhookServiceClient(conn)
			answer, err := hooks.TestWebhook(ctx, &patdv1.TestWebhookRequest{WebhookId: args[0]})
			if err != nil {
				return err
			}
			d := answer.GetDelivery()
			tick := time.NewTicker(testPause)
			defer tick.Stop()
			for until := time.Now().Add(time.Duration(wait)); d.GetAttempts() == 0 && time.Now().Before(until); {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-tick.C:
				}
				found, err := hooks.GetWebhookDelivery(
					ctx,
					&patdv1.GetWebhookDeliveryRequest{WebhookId: args[0], DeliveryId: d.GetDeliveryId()},
				)
				if err != nil {
					return err
				}
				d = found.GetDelivery()
			}
			if err := printDelivery(c, d, asJSON); err != nil {
				return err
			}
			switch {
			case d.GetState() == patdv1.WebhookDelivery_DELIVERED:
				return nil
			case d.GetAttempts() == 0:
				return errors.New("no attempt was made yet; see patd webhook deliveries")
			default:
				return errors.New("the endpoint did not accept it: " + attemptText(d))
			}
		},
	)
}
