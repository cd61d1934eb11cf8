package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestRaftLogger(t *testing.T) {
	var out bytes.Buffer
	l := newRaftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})), "raft")
	named := l.With("peer", "b").Named("x")
	named.Info("won", "votes", 2, "servers", hclog.Fmt("%d of %d", 1, 3))
	named.Error("lost contact")
	l.Debug("heartbeat")
	l.Log(hclog.Warn, "slow")
	got := out.String()
	for _, want := range []string{
		`level=INFO msg=won component=raft peer=b votes=2 servers="1 of 3"`,
		`level=WARN msg="lost contact" component=raft peer=b`,
		`level=WARN msg=slow component=raft`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "heartbeat") || l.IsDebug() || !l.IsInfo() || l.GetLevel() != hclog.Info {
		t.Errorf("the level is not that of the handler:\n%s", got)
	}
}
