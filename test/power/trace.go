// Package power rebuilds what a power cut could have left on the disk of a running member, opens it, and compares with
// what had been acknowledged.
//
// The member runs under strace, so that every write, sync and rename is on record with its bytes. A cut is a line of that
// record: what was synced before the line stays; of what was only written, each 512-byte sector stays or goes by the
// dice; of the directory changes not yet synced, a prefix stays.
package power

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// kind says what one line of the record did to the disk.
type kind int

const (
	kindWrite kind = iota
	kindSize
	kindSyncBegin
	kindSyncEnd
	kindCreate
	kindRename
	kindRemove
	kindMkdir
	kindSyncDirBegin
	kindSyncDirEnd
)

// event is one step on the way of bytes to the disk, in the order of the record.
type event struct {
	kind   kind
	at     float64 // seconds since 1970, as strace saw it
	path   string
	to     string // rename: new name
	file   int    // identity of the file, survives renames
	offset int64
	data   []byte
	size   int64
	direct bool // the write was its own sync (O_DSYNC)
	sync   int  // pairs a sync's begin with its end
}

type descriptor struct {
	file   int
	path   string
	direct bool
	offset int64
}

// recorder turns strace's lines into events.
type recorder struct {
	fds     map[int]*descriptor
	files   map[string]int
	pending map[string]string // thread → unfinished line
	events  []event
	lastID  int
	syncs   int
	waiting map[string]int // thread → sync under way
}

var (
	lineForm   = regexp.MustCompile(`^(\d+) +(\d+\.\d+) (.*)$`)
	resumeForm = regexp.MustCompile(`^<\.\.\. (\w+) resumed>(.*)$`)
	resultForm = regexp.MustCompile(`\)\s+= (-?\d+)`)
)

// readTrace reads the whole record of strace -f -ttt -xx.
func readTrace(path string) ([]event, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &recorder{fds: map[int]*descriptor{}, files: map[string]int{}, pending: map[string]string{}, waiting: map[string]int{}}
	lines := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if err := r.line(strings.TrimSuffix(line, "\n")); err != nil {
				return nil, fmt.Errorf("%w in %.200q", err, line)
			}
		}
		if err != nil {
			return r.events, nil
		}
	}
}

func (r *recorder) line(line string) error {
	parts := lineForm.FindStringSubmatch(line)
	if parts == nil {
		return fmt.Errorf("not a line of strace")
	}
	thread, call := parts[1], parts[3]
	at, err := strconv.ParseFloat(parts[2], 64)
	if err != nil {
		return err
	}
	if strings.HasPrefix(call, "+++") || strings.HasPrefix(call, "---") {
		return nil
	}
	if resumed := resumeForm.FindStringSubmatch(call); resumed != nil {
		begun, ok := r.pending[thread]
		if !ok {
			return nil
		}
		delete(r.pending, thread)
		return r.finished(thread, at, begun+resumed[2], true)
	}
	if begun, ok := strings.CutSuffix(call, " <unfinished ...>"); ok {
		r.pending[thread] = begun
		return r.begun(thread, at, begun)
	}
	return r.finished(thread, at, call, false)
}

// begun notes what takes effect when a call starts: a sync covers only what was written before it began, and the number of a
// file that is being closed can be another's before its closing is seen to end.
func (r *recorder) begun(thread string, at float64, call string) error {
	name, args, _ := strings.Cut(call, "(")
	if name != "fdatasync" && name != "fsync" && name != "close" {
		return nil
	}
	fd, err := strconv.Atoi(strings.TrimRight(strings.TrimSpace(args), ")"))
	if err != nil {
		return err
	}
	if name == "close" {
		delete(r.fds, fd)
		return nil
	}
	if d := r.fds[fd]; d != nil {
		r.beginSync(thread, at, d)
	}
	return nil
}

func (r *recorder) beginSync(thread string, at float64, d *descriptor) {
	r.syncs++
	r.waiting[thread] = r.syncs
	k := kindSyncBegin
	if d.file == 0 {
		k = kindSyncDirBegin
	}
	r.events = append(r.events, event{kind: k, at: at, path: d.path, file: d.file, sync: r.syncs})
}

func (r *recorder) finished(thread string, at float64, call string, wasBegun bool) error {
	result := resultForm.FindStringSubmatchIndex(call)
	if result == nil {
		return nil // interrupted by the end of the process
	}
	value, err := strconv.ParseInt(call[result[2]:result[3]], 10, 64)
	if err != nil || value < 0 {
		return err
	}
	name, rest, _ := strings.Cut(call[:result[0]], "(")
	args := splitArgs(rest)
	switch name {
	case "openat":
		return r.opened(at, args, int(value))
	case "close":
		if fd, err := strconv.Atoi(args[0]); err == nil && !wasBegun {
			delete(r.fds, fd)
		}
	case "write", "writev", "pwrite64", "pwritev", "pwritev2":
		return r.wrote(at, name, args)
	case "lseek":
		if d := r.descriptor(args[0]); d != nil {
			d.offset = value
		}
	case "ftruncate":
		return r.resized(at, args[0], args[1], true)
	case "fallocate":
		if args[1] == "FALLOC_FL_KEEP_SIZE" {
			return nil // room is set aside; what can be read does not change
		}
		offset, err1 := strconv.ParseInt(args[2], 10, 64)
		length, err2 := strconv.ParseInt(args[3], 10, 64)
		if err1 != nil || err2 != nil || args[1] != "0" {
			return fmt.Errorf("fallocate in a form that the record does not know")
		}
		return r.resized(at, args[0], strconv.FormatInt(offset+length, 10), false)
	case "fdatasync", "fsync":
		d := r.descriptor(args[0])
		if d == nil {
			return nil
		}
		if !wasBegun {
			r.beginSync(thread, at, d)
		}
		k := kindSyncEnd
		if d.file == 0 {
			k = kindSyncDirEnd
		}
		r.events = append(r.events, event{kind: k, at: at, path: d.path, file: d.file, sync: r.waiting[thread]})
	case "rename":
		r.renamed(at, unquote(args[0]), unquote(args[1]))
	case "renameat", "renameat2":
		r.renamed(at, unquote(args[1]), unquote(args[3]))
	case "unlink", "rmdir":
		r.removed(at, unquote(args[0]))
	case "unlinkat":
		r.removed(at, unquote(args[1]))
	case "mkdir":
		r.events = append(r.events, event{kind: kindMkdir, at: at, path: unquote(args[0])})
	case "mkdirat":
		r.events = append(r.events, event{kind: kindMkdir, at: at, path: unquote(args[1])})
	}
	return nil
}

func (r *recorder) descriptor(arg string) *descriptor {
	fd, err := strconv.Atoi(arg)
	if err != nil {
		return nil
	}
	return r.fds[fd]
}

func (r *recorder) opened(at float64, args []string, fd int) error {
	path, flags := unquote(args[1]), args[2]
	d := &descriptor{path: path, direct: strings.Contains(flags, "O_DSYNC") || strings.Contains(flags, "O_SYNC")}
	writable := strings.Contains(flags, "O_RDWR") || strings.Contains(flags, "O_WRONLY")
	id, known := r.files[path]
	switch {
	case known:
		d.file = id
	case writable:
		r.lastID++
		d.file = r.lastID
		r.files[path] = d.file
		r.events = append(r.events, event{kind: kindCreate, at: at, path: path, file: d.file})
	}
	if known && strings.Contains(flags, "O_TRUNC") && writable {
		r.events = append(r.events, event{kind: kindSize, at: at, path: path, file: d.file, size: 0, data: []byte{}})
	}
	r.fds[fd] = d
	return nil
}

func (r *recorder) wrote(at float64, name string, args []string) error {
	d := r.descriptor(args[0])
	if d == nil || d.file == 0 {
		return nil // sockets, pipes
	}
	data := quotedBytes(args[1])
	offset := d.offset
	switch name {
	case "pwrite64", "pwritev", "pwritev2":
		var err error
		if offset, err = strconv.ParseInt(args[3], 10, 64); err != nil {
			return err
		}
	default:
		d.offset += int64(len(data))
	}
	r.events = append(r.events, event{kind: kindWrite, at: at, path: d.path, file: d.file, offset: offset, data: data, direct: d.direct})
	return nil
}

func (r *recorder) resized(at float64, fd, size string, shrink bool) error {
	d := r.descriptor(fd)
	if d == nil || d.file == 0 {
		return nil
	}
	n, err := strconv.ParseInt(size, 10, 64)
	e := event{kind: kindSize, at: at, path: d.path, file: d.file, size: n}
	if shrink {
		e.data = []byte{}
	}
	r.events = append(r.events, e)
	return err
}

func (r *recorder) renamed(at float64, from, to string) {
	r.events = append(r.events, event{kind: kindRename, at: at, path: from, to: to, file: r.files[from]})
	moved := map[string]int{}
	for path, id := range r.files {
		if path == from {
			moved[to] = id
			delete(r.files, path)
		} else if rest, ok := strings.CutPrefix(path, from+"/"); ok {
			moved[to+"/"+rest] = id
			delete(r.files, path)
		}
	}
	for path, id := range moved {
		r.files[path] = id
	}
}

func (r *recorder) removed(at float64, path string) {
	r.events = append(r.events, event{kind: kindRemove, at: at, path: path})
	delete(r.files, path)
}

// splitArgs splits at commas outside of quotes and brackets.
func splitArgs(text string) []string {
	var args []string
	depth, quoted, start := 0, false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == 0:
			args = append(args, strings.TrimSpace(text[start:i]))
			start = i + 1
		}
	}
	return append(args, strings.TrimSpace(text[start:]))
}

// quotedBytes joins every quoted string of text: \xNN pairs only, as strace -xx writes.
func quotedBytes(text string) []byte {
	var out []byte
	for {
		_, after, ok := strings.Cut(text, `"`)
		if !ok {
			return out
		}
		body, rest, _ := strings.Cut(after, `"`)
		for i := 0; i+3 < len(body); i += 4 {
			out = append(out, nibble(body[i+2])<<4|nibble(body[i+3]))
		}
		text = rest
	}
}

func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func unquote(arg string) string { return string(quotedBytes(arg)) }
