package main

import (
	"context"
	"log/slog"

	"cairn/cluster"
	"cairn/node"
)

// start starts a node as the settings say.
func start(ctx context.Context, c *Config, logger *slog.Logger, fatal func(error)) (*node.Node, error) {
	secret, err := readSecret(c.SecretFile)
	if err != nil {
		return nil, &usageError{err}
	}
	// The addresses first: a port that is taken must not cost a recovery.
	listener, err := listen(c)
	if err != nil {
		return nil, err
	}
	return node.Start(ctx, node.Options{
		Dir: c.Data, ID: c.ID, Version: buildVersion(), SavepointBytes: c.SavepointBytes, FileRate: c.FileRate, ScrubRate: c.ScrubRate,
		Cluster: cluster.Config{
			HTTP:   c.HTTPURL(),
			Raft:   cluster.Endpoint{Bind: c.Raft, Advertise: c.AdvertiseRaft},
			Gossip: cluster.Endpoint{Bind: c.Gossip, Advertise: c.AdvertiseGossip},
			Expect: c.Expect, Join: c.Join, Secret: secret,
			SegmentSize: c.SegmentSize, SnapshotBytes: c.SnapshotBytes, TrailingBytes: c.TrailingBytes,
			ClockOffset: clockOffset(logger),
		},
		Listener: listener, Logger: logger, OnFatal: fatal,
	})
}
