package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"cairn/client"
)

func (a *app) newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look after the cluster: status, transfer, remove",
		Long:  "Look after the cluster and its members.",
		Example: `  cairn cluster status
  cairn cluster transfer node-2
  cairn cluster remove node-3`,
	}
	group(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "status",
		Short: "Show who the members are and how far each is",
		Long: `Show who the members are, who leads, and up to which position each has applied
the log, as the node asked sees it.`,
		Example: `  cairn cluster status
  cairn cluster status --node 127.0.0.1:7020 --output json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.clusterStatus(cmd.Context()) },
	}, &cobra.Command{
		Use:   "transfer [NODE]",
		Short: "Hand leadership to another member",
		Long:  "Hand leadership to a member, or without NODE to the one that is best placed.",
		Example: `  cairn cluster transfer
  cairn cluster transfer node-2`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef(cmd, "transfer takes the id of one member")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.clusterTransfer(cmd.Context(), append(args, "")[0])
		},
	}, &cobra.Command{
		Use:   "remove NODE",
		Short: "Take a member out of the cluster for good",
		Long: `Take a member out of the cluster for good. Its id never comes back: to use the
machine again, start it with an empty data directory.`,
		Example: `  cairn cluster remove node-3`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef(cmd, "remove takes the id of one member; 'cairn cluster status' lists them")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.clusterRemove(cmd.Context(), args[0]) },
	})
	return cmd
}

func (a *app) clusterStatus(ctx context.Context) error {
	c, s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if !a.text() {
		return a.printJSON(s)
	}
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(a.stdout, "log %s, term %d, leader %s\n\n", printable(s.Log), s.Term, printable(leader))
	t := newTable(a.stdout, column{"NODE", false}, column{"ROLE", false}, column{"ALIVE", false},
		column{"APPLIED", true}, column{"LAG", true}, column{"VERSION", false}, column{"HTTP", false})
	for _, m := range s.Members {
		alive, role := cell{"yes", green}, cell{m.Role, plain}
		if !m.Alive {
			alive = cell{"no", red}
		}
		if m.Role == "leader" {
			role.look = bold
		}
		err := t.row(cell{m.ID, cyan}, role, alive, cell{strconv.FormatUint(m.Applied, 10), plain},
			cell{strconv.FormatUint(m.Lag, 10), plain}, cell{m.Version, plain}, cell{m.HTTP, plain})
		if err != nil {
			return err
		}
	}
	return t.flush()
}

func (a *app) clusterTransfer(ctx context.Context, to string) error {
	return a.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		if err := c.Transfer(ctx, to); err != nil {
			return explainMember("transfer", to, err)
		}
		s, err := c.Discover(ctx)
		if err != nil {
			return err
		}
		if !a.text() {
			return a.printJSON(map[string]string{"leader": s.Leader})
		}
		_, err = fmt.Fprintf(a.stdout, "%s leads\n", printable(s.Leader))
		return err
	})
}

func (a *app) clusterRemove(ctx context.Context, id string) error {
	return a.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		if err := c.Remove(ctx, id); err != nil {
			return explainMember("remove", id, err)
		}
		if !a.text() {
			return a.printJSON(map[string]string{"removed": id})
		}
		_, err := fmt.Fprintf(a.stdout, "%s is removed; its data directory can be deleted\n", printable(id))
		return err
	})
}

// explainMember says why something can't be done with a member.
func explainMember(what, id string, err error) error {
	if client.IsNotFound(err) {
		return fmt.Errorf("%s: there is no member %q; 'cairn cluster status' lists them", what, id)
	}
	return fmt.Errorf("%s: %w", what, err)
}
