package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCut_OneWay(t *testing.T) {
	l := newLab(t, 2)
	one, two := l.Node(1), l.Node(2)
	start(t, one, two)
	if err := ask(one, two); err != nil {
		t.Fatalf("before the cut: %v", err)
	}
	// A request needs both directions, so either one is enough.
	for _, link := range []Link{{1, 2}, {2, 1}} {
		l.Cut(link)
		if ask(one, two) == nil {
			t.Errorf("%v is cut, and 1 reaches 2", link)
		}
		if got := l.Traffic(link).Cut; got == 0 {
			t.Errorf("%v is cut, and no packet was dropped", link)
		}
		for _, n := range []*Node{one, two} {
			if err := get(n.URL() + "/hello"); err != nil {
				t.Errorf("the client does not reach %d: %v", n.Number(), err)
			}
		}
		l.Restore(link)
		if err := ask(one, two); err != nil {
			t.Errorf("%v restored: %v", link, err)
		}
	}
	if all := l.Traffic(); all.Cut != l.Traffic(Link{1, 2}, Link{2, 1}).Cut {
		t.Errorf("packets were dropped elsewhere: %+v", all)
	}
}

func TestCut_ClientAlone(t *testing.T) {
	l := newLab(t, 2)
	one, two := l.Node(1), l.Node(2)
	start(t, one, two)
	l.Cut(Between([]int{Client}, []int{2})...)
	if get(two.URL()+"/hello") == nil {
		t.Error("the client reaches 2")
	}
	if err := ask(one, two); err != nil {
		t.Errorf("1 does not reach 2: %v", err)
	}
	l.HealAll()
	if err := get(two.URL() + "/hello"); err != nil {
		t.Errorf("healed: %v", err)
	}
}

// A connection must live through a cut: what was sent arrives after it.
func TestCut_ConnectionsStay(t *testing.T) {
	l := newLab(t, 1)
	start(t, l.Node(1))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	fetch := func() error {
		answer, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get(l.Node(1).URL() + "/hello")
		if err != nil {
			return err
		}
		_, err = io.ReadAll(answer.Body)
		return err
	}
	if err := fetch(); err != nil {
		t.Fatal(err)
	}
	l.Cut(Link{1, Client})
	done := make(chan error, 1)
	go func() { done <- fetch() }()
	select {
	case err := <-done:
		t.Errorf("answer through a cut link: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	l.Restore(Link{1, Client})
	if err := <-done; err != nil {
		t.Errorf("after the cut: %v", err)
	}
}

func TestDegrade_Slow(t *testing.T) {
	l := newLab(t, 2)
	one, two := l.Node(1), l.Node(2)
	start(t, one, two)
	measure := func() time.Duration {
		t.Helper()
		before := time.Now()
		if err := ask(one, two); err != nil {
			t.Fatal(err)
		}
		return time.Since(before)
	}
	fast := measure()
	// To connect and to ask is two round trips, each delayed once.
	const delay = 60 * time.Millisecond
	l.Degrade(Quality{Delay: delay, Jitter: 20 * time.Millisecond}, Link{1, 2})
	slow := measure()
	l.Degrade(Quality{}, Link{1, 2})
	time.Sleep(2 * delay) // what is under way keeps its time
	again := measure()
	t.Logf("fast %v, slow %v, fast again %v", fast, slow, again)
	if slow < 2*delay {
		t.Errorf("two round trips took %v with a delay of %v", slow, delay)
	}
	if max(fast, again) > delay {
		t.Errorf("without delay it took %v and %v", fast, again)
	}
	if got := l.Traffic(Link{1, 2}).Delayed; got < 2 {
		t.Errorf("%d packets were delayed", got)
	}
	if got := l.Traffic(Link{2, 1}).Delayed; got != 0 {
		t.Errorf("%d packets of the good direction were delayed", got)
	}
}

func TestDegrade_Lossy(t *testing.T) {
	l := newLab(t, 1)
	start(t, l.Node(1))
	l.Degrade(Quality{Loss: 1}, Link{Client, 1})
	if get(l.Node(1).URL()+"/hello") == nil {
		t.Error("an answer over a link that loses everything")
	}
	lost := l.Traffic(Link{Client, 1}).Lost
	if lost == 0 {
		t.Error("nothing was lost")
	}
	l.Degrade(Quality{Loss: 0.05}, Between([]int{Client}, []int{1})...)
	speed := many(t, l.Node(1))
	both := l.Traffic(Between([]int{Client}, []int{1})...)
	t.Logf("%.1f MB/s with 5%% loss, %+v; before it %d", speed, both, lost)
	if both.Lost <= lost {
		t.Error("5% loss lost nothing")
	}
	l.HealAll()
	speed = many(t, l.Node(1))
	healed := l.Traffic(Between([]int{Client}, []int{1})...)
	t.Logf("%.1f MB/s without", speed)
	if healed.Lost != both.Lost {
		t.Errorf("%d packets were lost on good links", healed.Lost-both.Lost)
	}
}

// many fetches a large answer and returns the speed in MB/s.
func many(t *testing.T, n *Node) float64 {
	t.Helper()
	begin := time.Now()
	answer, err := newClient(10 * time.Second).Get(n.URL() + "/many")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.Copy(io.Discard, answer.Body)
	if err != nil || got != manyBytes {
		t.Fatalf("%d bytes, %v", got, err)
	}
	return manyBytes / 1e6 / time.Since(begin).Seconds()
}

// listen opens a UDP socket on a machine.
func listen(t *testing.T, n *Node) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	err := onOwnThread(func() (err error) {
		if err = unix.Setns(n.ns.ns, unix.CLONE_NEWNET); err == nil {
			c, err = net.ListenPacket("udp4", address(n.Number(), 9))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sender sends numbered datagrams to a machine.
func sender(t *testing.T, n *Node) func(number byte) {
	t.Helper()
	c, err := net.Dial("udp4", address(n.Number(), 9))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return func(number byte) {
		if _, err := c.Write([]byte{number}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDegrade_KeepsOrder(t *testing.T) {
	l := newLab(t, 1)
	receiver, send := listen(t, l.Node(1)), sender(t, l.Node(1))
	const packets = 200
	l.Degrade(Quality{Jitter: 40 * time.Millisecond}, Link{Client, 1})
	for i := range packets {
		if i == packets/2 {
			carried(t, l, i)
			l.Degrade(Quality{}, Link{Client, 1})
		}
		send(byte(i))
	}
	_ = receiver.SetReadDeadline(time.Now().Add(5 * time.Second))
	for want := range packets {
		var got [1]byte
		if _, _, err := receiver.ReadFrom(got[:]); err != nil {
			t.Fatalf("packet %d: %v", want, err)
		}
		if int(got[0]) != want {
			t.Fatalf("packet %d came at the place of %d", got[0], want)
		}
	}
}

func TestCut_HoldsForPacketsUnderWay(t *testing.T) {
	l := newLab(t, 1)
	receiver, send := listen(t, l.Node(1)), sender(t, l.Node(1))
	l.Degrade(Quality{Delay: 200 * time.Millisecond}, Link{Client, 1})
	send(1)
	carried(t, l, 1)
	l.Cut(Link{Client, 1})
	_ = receiver.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
	if _, _, err := receiver.ReadFrom(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want nothing", err)
	}
	if got := l.Traffic(Link{Client, 1}).Cut; got == 0 {
		t.Error("it was not counted")
	}
}

// carried waits until the link from the client to node 1 has seen so many
// packets: the switch may be behind with what it reads.
func carried(t *testing.T, l *Lab, packets int) {
	t.Helper()
	link := l.net.links[Client][1]
	eventually(t, func() error {
		link.mu.Lock()
		defer link.mu.Unlock()
		if seen := link.waiting + int(link.traffic.Delivered); seen < packets {
			return fmt.Errorf("%d of %d packets", seen, packets)
		}
		return nil
	})
}
