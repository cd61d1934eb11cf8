package lab

// Client is the number of the harness's own machine, where the clients are.
// Nodes count from 1.
const Client = 0

// Link is one direction between two machines.
type Link struct{ From, To int }

// OneWay is all links from one of from to one of to.
func OneWay(from, to []int) []Link {
	var links []Link
	for _, f := range from {
		for _, t := range to {
			if f != t {
				links = append(links, Link{f, t})
			}
		}
	}
	return links
}

// Between is all links between a and b, both ways. Cut, it is a partition into
// halves; with one node in a, that node is alone; with [Client] in b, clients
// don't reach a, which goes on talking to the other nodes.
func Between(a, b []int) []Link { return append(OneWay(a, b), OneWay(b, a)...) }

// Ring is the links to cut so that each node still sees a majority of nodes,
// but no two of them the same one. They stand in a ring in the order given, and
// each keeps its nearest neighbours on both sides. It takes at least three nodes
// and gives none for fewer. With three, the one in the middle sees all.
func Ring(nodes []int) []Link {
	n := len(nodes)
	if n == 3 {
		return Between(nodes[:1], nodes[2:])
	}
	reach := (n/2 + 1) / 2 // on each side; with itself 2*reach+1 ≥ n/2+1
	var links []Link
	for i, a := range nodes {
		for j, b := range nodes {
			if distance := (j - i + n) % n; min(distance, n-distance) > reach {
				links = append(links, Link{a, b})
			}
		}
	}
	return links
}
