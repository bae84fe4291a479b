package differential

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// universe is the set of keys that generated requests speak of. It is small,
// so that requests meet each other's keys, and odd: bytes 00 and ff, lengths
// round the 512 byte border, keys that share their first 2,000 bytes, keys of
// 100 KB.
type universe struct {
	small, sized, shared, huge [][]byte
}

func newUniverse() universe {
	var u universe
	for _, k := range []string{
		"a", "b", "c", "d", "e", "f", "g", "h", "\x00", "\x00\x00", "\xff", "\xff\xff", "\xff\x00",
		"a\x00", "a\xff", "ab", "abc", "dir/", "dir/x", "dir/x/y", "\x00a", "z\x00\xffz",
	} {
		u.small = append(u.small, []byte(k))
	}
	for i := range 12 {
		u.small = append(u.small, fmt.Appendf(nil, "reg/%02d", i))
	}
	for _, size := range []int{511, 512, 513, 2048} {
		for _, fill := range []byte{'k', 0x00, 0xff} {
			u.sized = append(u.sized, bytes.Repeat([]byte{fill}, size))
		}
		differsLast := bytes.Repeat([]byte{'k'}, size)
		differsLast[size-1] = 'l'
		u.sized = append(u.sized, differsLast)
	}
	prefix := bytes.Repeat([]byte("long/"), 400) // 2,000 bytes
	for _, suffix := range []string{"", "\x00", "\x00\x00", "0", "1", "10", "a", "b", "\xfe", "\xff", "\xff\xff"} {
		u.shared = append(u.shared, append(bytes.Clone(prefix), suffix...))
	}
	for _, last := range []byte{0x00, 'm', 0xff} {
		key := bytes.Repeat([]byte{'H'}, 100<<10)
		key[len(key)-1] = last
		u.huge = append(u.huge, key)
	}
	return u
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// chance is true in `percent` of a hundred cases.
func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func (u universe) key(r *rand.Rand) []byte {
	switch n := r.IntN(100); {
	case n < 76:
		return pick(r, u.small)
	case n < 90:
		return pick(r, u.shared)
	case n < 98:
		return pick(r, u.sized)
	default:
		return pick(r, u.huge)
	}
}

// interval is a key and a range end of every kind: a single key, a prefix, to
// the end, everything, a span between two keys, and spans that hold nothing.
func (u universe) interval(r *rand.Rand) (key, end []byte) {
	key = u.key(r)
	switch r.IntN(10) {
	case 0, 1:
		return key, nil
	case 2:
		return key, []byte{0}
	case 3:
		return []byte{0}, []byte{0}
	case 4, 5:
		return key, prefixEnd(key)
	case 6:
		return key, append(bytes.Clone(key), 0)
	case 7:
		return key, key // holds nothing
	default:
		return key, u.key(r) // holds nothing when reversed
	}
}

// prefixEnd is the first key after all keys that begin with prefix; a prefix
// of ff bytes alone has none, so that the range runs to the end.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

func value(r *rand.Rand) []byte {
	switch n := r.IntN(1000); {
	case n < 100:
		return nil
	case n < 800:
		return fmt.Appendf(nil, "v%d", r.IntN(20))
	case n < 950:
		return bytes.Repeat([]byte{byte(r.IntN(256))}, r.IntN(400))
	case n < 995:
		return bytes.Repeat([]byte{0, 0xff, byte(r.IntN(256))}, r.IntN(3000))
	default:
		return bytes.Repeat([]byte{byte(r.IntN(256))}, 100<<10)
	}
}
