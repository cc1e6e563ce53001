package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

const (
	lockName      = "LOCK"
	segmentSuffix = ".wal"
	sparePrefix   = "spare-"
	newPrefix     = "new-"

	// sparesMax bounds the files kept for reuse: one to rotate to, and one that
	// came back meanwhile. A third comes when segments return while the preparer
	// is filling one.
	sparesMax = 2

	// zeroChunkBytes is the unit in which a spare is filled.
	zeroChunkBytes = 1 << 20
)

// spare is a file that can become a segment: preallocated and synced, of
// Options.SegmentBytes, its content without meaning.
type spare struct {
	name string
	file fsys.File
}

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

func baseName(seg *segment) string { return filepath.Base(seg.name) }

func parseSegmentName(name string) (number uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	number, err := strconv.ParseUint(hex, 16, 64)
	return number, err == nil && segmentName(number) == name
}

// spareName returns a name that is free.
func (l *Log) spareName(prefix string) string {
	l.spareMu.Lock()
	defer l.spareMu.Unlock()
	l.spareNext++
	return filepath.Join(l.dir, fmt.Sprintf("%s%08d", prefix, l.spareNext))
}

// noSpace tells a full disk, or quota, from a broken one.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// makeSpare preallocates a file. Its zeros are written, not only reserved, so
// that neither space nor metadata is wanted when a group is written. A failure leaves nothing behind.
func (l *Log) makeSpare() (*spare, error) {
	if err := l.checkRoom(); err != nil {
		return nil, err
	}
	temp := l.spareName(newPrefix)
	f, err := l.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, l.prepareError(err)
	}
	name := l.spareName(sparePrefix)
	if err = l.fill(f); err == nil {
		err = l.fs.Rename(temp, name)
	}
	if err != nil {
		_ = f.Close()
		_ = l.fs.Remove(temp) // if it stays, the next Open removes it
		return nil, l.prepareError(err)
	}
	return &spare{name, f}, nil
}

func (l *Log) prepareError(err error) error {
	if noSpace(err) {
		return fmt.Errorf("%w in %s: %w; free some space or shorten the log's retention", ErrDiskFull, l.dir, err)
	}
	// Not a full disk, but the log is not hurt: it only has nowhere to go on.
	return fmt.Errorf("%w: prepare the next segment in %s: %w", ErrFull, l.dir, err)
}

// checkRoom refuses before the disk would, to leave the reserve.
func (l *Log) checkRoom() error {
	if l.opt.MaxBytes > 0 {
		if have := l.diskBytes(); have+l.opt.SegmentBytes > l.opt.MaxBytes {
			return fmt.Errorf("%w: the log in %s has %d of at most %d bytes; let its streams be flushed, or raise the bound",
				ErrDiskFull, l.dir, have, l.opt.MaxBytes)
		}
	}
	free, err := l.fs.Free(l.dir)
	if err != nil {
		return l.prepareError(err)
	}
	if want := uint64(l.opt.SegmentBytes + l.opt.ReserveBytes); free < want {
		return fmt.Errorf("%w in %s: %d bytes free, %d wanted (%d of them are left for commits); free some space or shorten the log's retention",
			ErrDiskFull, l.dir, free, want, l.opt.ReserveBytes)
	}
	return nil
}

func (l *Log) diskBytes() int64 {
	var sum int64
	l.ix.RLock()
	for _, seg := range l.segments {
		sum += seg.size
	}
	l.ix.RUnlock()
	l.spareMu.Lock()
	sum += int64(len(l.spares)) * l.opt.SegmentBytes
	l.spareMu.Unlock()
	return sum
}

var errStopping = errors.New("the log is closing")

func (l *Log) fill(f fsys.File) error {
	zeros := alignedBuffer(min(zeroChunkBytes, l.opt.SegmentBytes))
	for pos := int64(0); pos < l.opt.SegmentBytes; pos += int64(len(zeros)) {
		select {
		case <-l.stop:
			return errStopping
		default:
		}
		zeros = zeros[:min(int64(len(zeros)), l.opt.SegmentBytes-pos)]
		if _, err := f.WriteAt(zeros, pos); err != nil {
			return err
		}
	}
	return f.Sync()
}

// activate turns a spare into the segment of h. What is named is valid: the
// header is on disk before the name, and the name before any group.
func (l *Log) activate(sp *spare, h *segmentHeader) (*segment, error) {
	var salt [8]byte
	_, _ = rand.Read(salt[:]) // never fails, see crypto/rand
	h.salt, h.size = binary.LittleEndian.Uint64(salt[:]), l.opt.SegmentBytes
	seg := &segment{number: h.number, salt: h.salt, sum: saltSum(h.salt), size: h.size,
		name: filepath.Join(l.dir, segmentName(h.number)), file: sp.file}
	buf := appendHeader(nil, h)
	seg.start, seg.end = int64(len(buf)), int64(len(buf))
	if _, err := sp.file.WriteAt(buf, 0); err != nil {
		return nil, fmt.Errorf("write header of segment %s: %w", seg.name, err)
	}
	if err := sp.file.Datasync(); err != nil {
		return nil, fmt.Errorf("sync header of segment %s: %w", seg.name, err)
	}
	if err := l.fs.Rename(sp.name, seg.name); err != nil {
		return nil, fmt.Errorf("name segment %s: %w", seg.name, err)
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return nil, fmt.Errorf("name segment %s: %w", seg.name, err)
	}
	return seg, nil
}

// rotate makes the next segment the current one. For want of a spare it makes
// the log refuse until there is one.
func (l *Log) rotate() error {
	sp, err := l.takeSpare()
	if err != nil {
		l.refuse(err)
		return err
	}
	prev := l.current()
	seg, err := l.activate(sp, &segmentHeader{
		number: prev.number + 1, prevEnd: l.w.pos, prevSalt: prev.salt, table: l.table()})
	if err != nil {
		_ = sp.file.Close()
		return l.poisoned(err)
	}
	l.ix.Lock()
	l.segments = append(l.segments, seg)
	l.ix.Unlock()
	l.w.pos, l.w.marked = seg.end, true
	kick(l.preparerKick)
	kick(l.keeperKick)
	return nil
}

// takeSpare waits for a spare, or for the news that there is no room for one.
func (l *Log) takeSpare() (*spare, error) {
	l.spareMu.Lock()
	defer l.spareMu.Unlock()
	for len(l.spares) == 0 {
		if l.spareErr != nil {
			return nil, l.spareErr
		}
		kick(l.preparerKick)
		l.spareCond.Wait()
	}
	sp := l.spares[0]
	l.spares = l.spares[1:]
	return sp, nil
}

// refuse makes Enqueue fail until offerSpare has good news.
func (l *Log) refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spareMu.Lock()
	defer l.spareMu.Unlock()
	if len(l.spares) == 0 && l.refusal == nil {
		l.refusal = err
		l.opt.Logger.Error("log refuses puts", "error", err)
	}
}

// offerSpare hands over a spare, or says why there is none.
func (l *Log) offerSpare(sp *spare, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spareMu.Lock()
	defer l.spareMu.Unlock()
	l.spareErr = err
	if err == nil {
		l.spares = append(l.spares, sp)
		if l.refusal != nil && l.poison == nil && !l.closing {
			l.refusal = nil
			l.opt.Logger.Info("log accepts puts again")
		}
	}
	l.spareCond.Broadcast()
}

// prepare is the preparer goroutine: it keeps a spare ready.
func (l *Log) prepare() {
	defer l.background.Done()
	for {
		l.spareMu.Lock()
		have := len(l.spares)
		l.spareMu.Unlock()
		var retry <-chan time.Time
		if have == 0 {
			sp, err := l.makeSpare()
			l.offerSpare(sp, err)
			if err != nil {
				retry = time.After(l.opt.retryAfter)
			}
		}
		select {
		case <-l.stop:
			return
		case <-l.preparerKick:
		case <-retry:
		}
	}
}
