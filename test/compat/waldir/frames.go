package waldir

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
)

// entryRecord is the record type of an entry in a segment.
const entryRecord = 2

// frame is where one framed record lies in its segment.
type frame struct{ start, end int64 }

// entryFrames walks the frames of a segment and returns those of entries.
//
//	frame := length (8 bytes, little endian) record padding
//	length: bits 0..55 the record's size; byte 7 is 0x80 | padding, or 0
func entryFrames(segment []byte) ([]frame, error) {
	var entries []frame
	for at := int64(0); at+8 <= int64(len(segment)); {
		field := binary.LittleEndian.Uint64(segment[at:])
		if field == 0 {
			break
		}
		size, padding := int64(field&(1<<56-1)), int64(0)
		if field>>63 == 1 {
			padding = int64(field >> 56 & 7)
		}
		end := at + 8 + size + padding
		if end > int64(len(segment)) {
			return nil, fmt.Errorf("the frame at %d ends behind the file", at)
		}
		var record walpb.Record
		if err := proto.Unmarshal(segment[at+8:at+8+size], &record); err != nil {
			return nil, fmt.Errorf("the record at %d: %w", at, err)
		}
		if record.GetType() == entryRecord {
			entries = append(entries, frame{at, end})
		}
		at = end
	}
	return entries, nil
}
