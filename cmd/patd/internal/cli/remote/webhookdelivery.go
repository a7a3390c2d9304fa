package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// attemptText says how the last attempt ended.
func attemptText(d *patdv1.WebhookDelivery) string {
	text := d.GetLastError()
	if d.GetLastStatus() != 0 {
		text = strings.TrimSpace(fmt.Sprintf("%d %s", d.GetLastStatus(), text))
	}
	return text
}

func printDelivery(c *cli.Command, d *patdv1.WebhookDelivery, asJSON bool) error {
	if asJSON {
		return c.Message(d)
	}
	took := ""
	if d.GetLastDuration() != nil {
		took = d.GetLastDuration().AsDuration().Round(time.Millisecond).String()
	}
	return cli.Record(c.Stdout, []cli.Field{
		{"id", d.GetDeliveryId()},
		{"event type", d.GetEventType()},
		{"subject", d.GetSubject()},
		{"state", d.GetState().String()},
		{"attempts", fmt.Sprint(d.GetAttempts())},
		{"last attempt", cli.Moment(d.GetLastAttemptTime(), "")},
		{"took", took},
		{"answer", attemptText(d)},
		{"next attempt", cli.Moment(d.GetNextAttemptTime(), "")},
	})
}

func webhookDeliveries(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.ListWebhookDeliveriesRequest
		state  string
		limit  cli.Count
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "deliveries ID",
		Short: "List what was sent to a webhook, or waits for it, newest first",
		Args:  cli.Takes("ID"),
	}
	f := cmd.Flags()
	f.StringVar(&state, "state", "", "only those that are pending, delivered or failed")
	f.StringVar(&r.EventType, "event-type", "", "only those of this `type`")
	limit = 50
	f.Var(&limit, "limit", "list at most this many")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		v, ok := patdv1.WebhookDelivery_State_value[strings.ToUpper(state)]
		if state != "" && (!ok || v == 0) {
			return errors.New("--state must be pending, delivered or failed")
		}
		r.State = patdv1.WebhookDelivery_State(v)
		return nil
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.WebhookId = args[0]
			all := &patdv1.ListWebhookDeliveriesResponse{}
			for left := int(limit); left > 0; left = int(limit) - len(all.GetDeliveries()) {
				r.Limit = int32(min(left, tokens.MaxPageSize))
				page, err := patdv1.NewWebhookServiceClient(conn).ListWebhookDeliveries(ctx, &r)
				if err != nil {
					return err
				}
				all.Deliveries = append(all.Deliveries, page.GetDeliveries()...)
				if r.After = page.GetAfter(); r.After == "" {
					break
				}
			}
			if asJSON {
				return c.Message(all)
			}
			var rows [][]string
			for _, d := range all.GetDeliveries() {
				rows = append(rows, []string{
					d.GetDeliveryId(),
					d.GetEventType(),
					d.GetSubject(),
					d.GetState().String(),
					fmt.Sprint(d.GetAttempts()),
					cli.OrDash(attemptText(d)),
					cli.Moment(d.GetNextAttemptTime(), "-"),
				})
			}
			return cli.Table(
				c.Stdout,
				[]string{"ID", "EVENT TYPE", "SUBJECT", "STATE", "ATTEMPTS", "ANSWER", "NEXT ATTEMPT"},
				rows,
			)
		},
	)
}

func webhookRedeliver(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "redeliver ID DELIVERY-ID",
		Short: "Send a message to a webhook again, with the same id",
		Args:  cli.Takes("ID", "DELIVERY-ID"),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			answer, err := patdv1.NewWebhookServiceClient(conn).RedeliverWebhook(ctx, &patdv1.RedeliverWebhookRequest{
				WebhookId: args[0], DeliveryId: args[1],
			})
			if err != nil {
				return err
			}
			return printDelivery(c, answer.GetDelivery(), asJSON)
		},
	)
}
