package cluster

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// profile is what a node says of itself in gossip: JSON of at most 512 bytes.
// Unknown members are ignored, so that later versions may add some.
type profile struct {
	ID      string    `json:"i"`
	Run     string    `json:"u"` // of this process: a restarted node has another one
	HTTP    string    `json:"h,omitempty"`
	Raft    string    `json:"r"`
	Expect  int       `json:"e,omitempty"`
	LogID   string    `json:"l,omitempty"`
	Version string    `json:"v,omitempty"`
	Forms   [2]uint32 `json:"f"` // oldest and newest cluster version it supports
}

func (p *profile) encode() []byte {
	b, err := json.Marshal(p)
	if err != nil { // texts and numbers only
		panic("cluster: encode profile: " + err.Error())
	}
	return b
}

// instance is one run of a node as gossip shows it.
type instance struct {
	name   string // in gossip; unique to the run
	gossip string // gossip address
	profile
	alive bool
}

// roster keeps, for each node id, the one instance of it that counts. In gossip
// a node goes by a name that is new with every start, so a node that comes back
// at another address is there at once, beside the name of its last run, which
// gossip takes some seconds to bury. While an id has two live instances the one
// chosen first counts until settle.go has asked both (a dead one does not
// answer).
type roster struct {
	self    string
	log     *slog.Logger
	changed func() // rung after every change, outside the lock; never blocks

	mu     sync.Mutex
	logID  string              // of our log; under mu, as is the rest
	live   map[string]instance // by gossip name
	lost   map[string]bool     // gossip names that another one was preferred to
	chosen map[string]string   // gossip name of the instance that counts, by node id
	told   map[string]bool     // gossip names about which a line was logged

	view atomic.Pointer[rosterView]
}

// rosterView is never changed once it is published.
type rosterView struct {
	byID      map[string]instance   // the instance that counts; one that died stays, as not alive
	rivals    map[string][]instance // all live instances of ids that have several, or only such as have lost
	strangers []instance            // live instances of other logs
	met       bool                  // another node of our log was there, now or before
}

func newRoster(self string, log *slog.Logger, changed func()) *roster {
	r := &roster{
		self: self, log: log, changed: changed,
		live: map[string]instance{}, lost: map[string]bool{}, chosen: map[string]string{}, told: map[string]bool{},
	}
	r.view.Store(&rosterView{})
	return r
}

// get returns the instance of a node id that counts, dead or alive.
func (r *roster) get(id string) (instance, bool) {
	i, ok := r.view.Load().byID[id]
	return i, ok
}

// alive returns the live instances that count, by node id in order. Nodes of
// another log are not among them.
func (r *roster) alive() []instance {
	var list []instance
	for _, i := range r.view.Load().byID {
		if i.alive {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(a, b instance) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// contested returns the ids whose instances must be asked which of them counts.
func (r *roster) contested() map[string][]instance { return r.view.Load().rivals }

// seen takes in a live instance, new or with a new profile.
func (r *roster) seen(name, gossip string, meta []byte) {
	i := instance{name: name, gossip: gossip, alive: true}
	if err := json.Unmarshal(meta, &i.profile); err != nil || i.ID == "" || i.Raft == "" {
		r.once(name, func() { r.log.Warn("member ignored: its profile is not ours", "gossip", gossip) })
		return
	}
	r.update(func() { r.live[name] = i })
}

// gone takes out an instance that died or left.
func (r *roster) gone(name string) {
	r.update(func() {
		delete(r.live, name)
		delete(r.lost, name)
		delete(r.told, name)
	})
}

// setLogID says which log is ours; from then on members of others are ignored.
func (r *roster) setLogID(id string) { r.update(func() { r.logID = id }) }

// choose makes a live instance the one that counts for its id.
func (r *roster) choose(winner instance) {
	r.update(func() {
		if _, ok := r.live[winner.name]; !ok {
			return
		}
		r.chosen[winner.ID] = winner.name
		for name, i := range r.live {
			if i.ID == winner.ID {
				r.lost[name] = name != winner.name
			}
		}
	})
}

// once runs log for the first call with a name.
func (r *roster) once(name string, log func()) {
	r.mu.Lock()
	told := r.told[name]
	r.told[name] = true
	r.mu.Unlock()
	if !told {
		log()
	}
}

// update changes the roster and publishes it anew.
func (r *roster) update(change func()) {
	r.mu.Lock()
	change()
	strangers := r.publishLocked()
	r.mu.Unlock()
	for _, i := range strangers {
		r.once(i.name, func() {
			r.log.Warn("member ignored: it holds another log", "id", i.ID, "log", i.LogID, "raft", i.Raft)
		})
	}
	r.changed()
}

// publishLocked builds the view and returns the instances of other logs.
func (r *roster) publishLocked() (strangers []instance) {
	v := &rosterView{byID: map[string]instance{}, rivals: map[string][]instance{}}
	candidates := map[string][]instance{}
	for _, name := range slices.Sorted(maps.Keys(r.live)) {
		i := r.live[name]
		if i.LogID != "" && r.logID != "" && i.LogID != r.logID {
			strangers = append(strangers, i)
			continue
		}
		v.met = v.met || i.ID != r.self && i.LogID != "" && i.LogID == r.logID
		candidates[i.ID] = append(candidates[i.ID], i)
	}
	for id, old := range r.view.Load().byID {
		if !slices.ContainsFunc(strangers, func(i instance) bool { return i.name == old.name }) {
			old.alive = false
			v.byID[id] = old
		}
	}
	for id, list := range candidates {
		at := slices.IndexFunc(list, func(i instance) bool { return i.name == r.chosen[id] })
		if at < 0 {
			at = slices.IndexFunc(list, func(i instance) bool { return !r.lost[i.name] })
		}
		if at >= 0 {
			r.chosen[id] = list[at].name
			v.byID[id] = list[at]
		}
		if len(list) > 1 || at < 0 {
			v.rivals[id] = list
		}
	}
	v.strangers, v.met = strangers, v.met || r.view.Load().met
	r.view.Store(v)
	return strangers
}
