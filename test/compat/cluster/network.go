package cluster

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Outside is who dials a door and is no member: the test itself.
const Outside = -1

// Rule says what happens to bytes from one member to another. The zero value
// lets them pass.
type Rule struct {
	// Hole lets nothing through. What was sent waits, as TCP's own repetition
	// would have it: when the hole closes the bytes arrive late, in order.
	Hole bool
	// Delay holds each piece back, Jitter adds up to so much more.
	Delay, Jitter time.Duration
	// Rate bounds the bytes per second; zero does not.
	Rate int
}

// Pair is a direction between two members, by their numbers.
type Pair struct{ From, To int }

// Tally counts what a network has done.
type Tally struct {
	Dialled, Refused, Reset, Strangers atomic.Int64
	Bytes, Held, Delayed, Mangled      atomic.Int64
}

// Network is the proxies between the members.
type Network struct {
	Tally Tally

	mu      sync.Mutex
	changed *sync.Cond // a rule, a cut or the end of a connection
	rules   map[Pair]Rule
	cut     map[Pair]bool // both directions are set
	lines   map[*line]bool
	mangle  func(Pair, []byte) int
	pids    func() map[int]int // member number by process id
	doors   map[int]*door
	closed  bool
}

// NewNetwork makes a network without doors. pids tells which processes are
// members, at the time of the call.
func NewNetwork(pids func() map[int]int) *Network {
	n := &Network{
		rules: map[Pair]Rule{}, cut: map[Pair]bool{}, lines: map[*line]bool{},
		doors: map[int]*door{}, pids: pids,
	}
	n.changed = sync.NewCond(&n.mu)
	return n
}

type door struct {
	listener net.Listener
	target   atomic.Pointer[string]
}

// Door opens a member's door and returns its address, which stays the same
// over the member's restarts.
func (n *Network) Door(member int) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	d := &door{listener: l}
	n.mu.Lock()
	n.doors[member] = d
	n.mu.Unlock()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go n.serve(d, member, conn.(*net.TCPConn))
		}
	}()
	return l.Addr().String(), nil
}

// Lead tells a door where its member listens now.
func (n *Network) Lead(member int, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doors[member].target.Store(&addr)
}

// Close ends all doors and connections.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, d := range n.doors {
		d.listener.Close()
	}
	for l := range n.lines {
		l.reset()
	}
	n.changed.Broadcast()
}

// Set makes a rule for one direction.
func (n *Network) Set(from, to int, rule Rule) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rules[Pair{from, to}] = rule
	n.changed.Broadcast()
}

// Cut resets the connections between two members and refuses new ones.
func (n *Network) Cut(a, b int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[Pair{a, b}], n.cut[Pair{b, a}] = true, true
	n.resetLocked(a, b)
}

// Reset resets the connections between two members once.
func (n *Network) Reset(a, b int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resetLocked(a, b)
}

func (n *Network) resetLocked(a, b int) {
	for l := range n.lines {
		if (l.dialler == a && l.owner == b) || (l.dialler == b && l.owner == a) {
			n.Tally.Reset.Add(1)
			l.reset()
		}
	}
	n.changed.Broadcast()
}

// Mangle lets f change bytes on their way; it returns how often it did.
func (n *Network) Mangle(f func(Pair, []byte) int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mangle = f
}

// Heal takes all rules and cuts away.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.rules)
	clear(n.cut)
	n.mangle = nil
	n.changed.Broadcast()
}

// line is one connection through a door.
type line struct {
	dialler, owner int
	near, far      *net.TCPConn // the dialler's end, the owner's end
	dead           bool         // guarded by Network.mu
}

// reset ends both halves with RST.
func (l *line) reset() {
	l.dead = true
	for _, c := range []*net.TCPConn{l.near, l.far} {
		_ = c.SetLinger(0) // fails on a connection that is already closed
		c.Close()
	}
}

func (n *Network) serve(d *door, owner int, near *net.TCPConn) {
	refuse := func() {
		_ = near.SetLinger(0)
		near.Close()
	}
	dialler, err := ownerOf(near.RemoteAddr().(*net.TCPAddr), near.LocalAddr().(*net.TCPAddr), n.pids())
	if err != nil {
		// Whoever dialled has gone, with its connection.
		n.Tally.Strangers.Add(1)
		refuse()
		return
	}
	n.mu.Lock()
	cut := n.cut[Pair{dialler, owner}] || n.closed
	n.mu.Unlock()
	target := d.target.Load()
	if cut || target == nil {
		n.Tally.Refused.Add(1)
		refuse()
		return
	}
	conn, err := net.DialTimeout("tcp", *target, 5*time.Second)
	if err != nil {
		n.Tally.Refused.Add(1)
		refuse()
		return
	}
	n.Tally.Dialled.Add(1)
	l := &line{dialler: dialler, owner: owner, near: near, far: conn.(*net.TCPConn)}
	n.mu.Lock()
	n.lines[l] = true
	if n.closed || n.cut[Pair{dialler, owner}] {
		l.reset()
	}
	n.mu.Unlock()
	var both sync.WaitGroup
	both.Add(2)
	go func() { defer both.Done(); n.carry(l, Pair{dialler, owner}, l.near, l.far) }()
	go func() { defer both.Done(); n.carry(l, Pair{owner, dialler}, l.far, l.near) }()
	both.Wait()
	n.mu.Lock()
	delete(n.lines, l)
	n.mu.Unlock()
	near.Close()
	conn.Close()
}

// pieces bounds what one direction of a connection holds back, as a TCP window
// would: 64 pieces of at most 32 KiB. Whoever sends more is slowed.
const pieces, pieceBytes = 64, 32 << 10

type piece struct {
	data []byte
	due  time.Time
	end  error // io.EOF: the sender has closed its half
}

func (n *Network) carry(l *line, way Pair, from, to *net.TCPConn) {
	queue := make(chan piece, pieces)
	stop := make(chan struct{})
	go n.read(way, from, queue, stop)
	defer close(stop)
	for p := range queue {
		if wait := time.Until(p.due); wait > 0 {
			n.Tally.Delayed.Add(1)
			time.Sleep(wait)
		}
		rule, ok := n.pass(l, way, len(p.data))
		if !ok {
			return
		}
		if p.end != nil {
			if errors.Is(p.end, io.EOF) {
				_ = to.CloseWrite() // the other half may be gone as well
			} else {
				n.mu.Lock()
				l.reset()
				n.changed.Broadcast()
				n.mu.Unlock()
			}
			return
		}
		if rule.Rate > 0 {
			time.Sleep(time.Duration(len(p.data)) * time.Second / time.Duration(rule.Rate))
		}
		n.mu.Lock()
		mangle := n.mangle
		n.mu.Unlock()
		if mangle != nil {
			n.Tally.Mangled.Add(int64(mangle(way, p.data)))
		}
		if _, err := to.Write(p.data); err != nil {
			n.mu.Lock()
			l.reset()
			n.changed.Broadcast()
			n.mu.Unlock()
			return
		}
		n.Tally.Bytes.Add(int64(len(p.data)))
	}
}

func (n *Network) read(way Pair, from *net.TCPConn, queue chan<- piece, stop <-chan struct{}) {
	for {
		buffer := make([]byte, pieceBytes)
		size, err := from.Read(buffer)
		n.mu.Lock()
		rule := n.rules[way]
		n.mu.Unlock()
		due := time.Now().Add(rule.Delay)
		if rule.Jitter > 0 {
			due = due.Add(rand.N(rule.Jitter))
		}
		if size > 0 {
			select {
			case queue <- piece{data: buffer[:size], due: due}:
			case <-stop:
				return
			}
		}
		if err != nil {
			select {
			case queue <- piece{due: due, end: err}:
			case <-stop:
			}
			return
		}
	}
}

// pass waits while the direction has a hole. False: the connection has ended.
func (n *Network) pass(l *line, way Pair, size int) (Rule, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rules[way].Hole {
		n.Tally.Held.Add(int64(size))
	}
	for n.rules[way].Hole && !l.dead && !n.closed {
		n.changed.Wait()
	}
	return n.rules[way], !l.dead && !n.closed
}

// String is the tally in one line.
func (t *Tally) String() string {
	return fmt.Sprintf("connections %d (refused %d, reset %d, strangers %d), %d KiB carried, %d bytes held, %d pieces delayed, %d falsified",
		t.Dialled.Load(), t.Refused.Load(), t.Reset.Load(), t.Strangers.Load(), t.Bytes.Load()>>10, t.Held.Load(), t.Delayed.Load(), t.Mangled.Load())
}
