// Package capacity says what a load will need: disks, memory, cores and requests
// to S3. It multiplies a load with constants that were measured (docs/BENCHMARKS.md);
// a test of the benchmarks holds the sizes against what is written.
package capacity

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Load describes what is to be taken in.
type Load struct {
	RecordsPerDay int64         // at least 1
	RetainDays    int           // trade dates that stay in the lake; at least 1
	RecordBytes   int64         // of JSON; 0 is 300
	Session       time.Duration // in which a day's records come; 0 is 6.5 h
	PeakFactor    float64       // the peak rate by the mean rate; 0 is 6
	RetainedBytes int64         // log.retention_bytes; 0 is 1 GiB
	Outage        time.Duration // for which the lake may be away at the mean rate; 0 is 4 h
	FlushBytes    int64         // a stream's buffer hint, of JSON; 0 is 128 MiB
	FlushInterval time.Duration // its interval hint; 0 is 60 s
}

// The bounds of a load.
const (
	recordsMax     = 1_000_000_000_000
	retainDaysMax  = 36_600
	recordBytesMax = 1_024_000
)

// Constants measured with the benchmark's record of 300 bytes (15 members, five
// derived columns). Bytes grow in proportion to the record.
const (
	measuredRecordBytes = 300

	// LakeBytes is a record in Parquet as flushed; sorted by the close it is less.
	LakeBytes = 17.0
	// LogBytes is a record in the log's columnar frames.
	LogBytes = 19.0
	// rawShare is what the log takes of the JSON's size for records that are logged
	// as they came: streams with processing.
	rawShare = 1.02

	ingestNanos = 1130.0 // of CPU a record on the server: bench ingest
	// sealNanos is CPU a record to compact, hash and certify it at the close: the demo
	// of 2,000,000 records took 9.3 s of two cores. Merging small files does a part
	// of the same, and is counted with all of it.
	sealNanos    = 9000.0
	residentBase = 350 << 20
	residentMax  = 1 << 30 // at any rate and backlog, DuckDB's 600 MiB included

	putsPerFlush = 4 // data file, manifest, manifest list, metadata
	getsPerFlush = 1 // footers and manifests are read from the local copy
	partBytes    = 16 << 20
	mergedBytes  = 128 << 20

	// headroom is the share of processors and disks that is left free: for queries,
	// for views, and for the day that is twice as long as the others.
	headroom = 0.5
)

// Needs is what a load needs.
type Needs struct {
	MeanRate     float64 `json:"mean_records_per_second"`
	PeakRate     float64 `json:"peak_records_per_second"`
	NetworkBytes float64 `json:"peak_network_bytes_per_second"` // incoming: base64 and envelope included

	Cores       int     `json:"cores"` // at the peak, with headroom
	MemoryBytes int64   `json:"memory_bytes"`
	SealSeconds float64 `json:"seal_seconds"`

	LakeBytes     int64   `json:"lake_bytes"` // all trade dates
	LakeBytesDay  int64   `json:"lake_bytes_per_date"`
	DataFilesDay  int64   `json:"data_files_per_date"` // after the close
	LocalBytes    int64   `json:"local_bytes"`         // beside the lake: log, tail, files in the making, catalog
	LogBytes      int64   `json:"log_bytes"`
	LogBytesRaw   int64   `json:"log_bytes_with_processing"` // of streams whose records are logged as they came
	DiskWriteRate float64 `json:"peak_disk_bytes_per_second"`

	FlushesPerDay int64 `json:"commits_per_date"`
	S3Puts        int64 `json:"s3_puts_per_date"`
	S3Gets        int64 `json:"s3_gets_per_date"`
}

// ErrInvalid is the root of errors about a load.
var ErrInvalid = errors.New("invalid load")

func (l *Load) setDefaults() error {
	switch {
	case l.RecordsPerDay < 1 || l.RecordsPerDay > recordsMax:
		return fmt.Errorf("%w: %d records a day: want 1 to %d", ErrInvalid, l.RecordsPerDay, int64(recordsMax))
	case l.RetainDays < 1 || l.RetainDays > retainDaysMax:
		return fmt.Errorf("%w: %d days to be retained: want 1 to %d", ErrInvalid, l.RetainDays, retainDaysMax)
	case l.RecordBytes < 0 || l.RecordBytes > recordBytesMax:
		return fmt.Errorf("%w: records of %d bytes: want 1 to %d", ErrInvalid, l.RecordBytes, recordBytesMax)
	case l.Session < 0 || l.Session > 24*time.Hour:
		return fmt.Errorf("%w: a session of %s: want at most 24h", ErrInvalid, l.Session)
	case l.Outage < 0 || l.RetainedBytes < 0:
		return fmt.Errorf("%w: an outage or a retention below zero", ErrInvalid)
	case l.PeakFactor != 0 && l.PeakFactor < 1 || l.PeakFactor > 1e6 || math.IsNaN(l.PeakFactor):
		return fmt.Errorf("%w: a peak of %g times the mean rate: want at least 1", ErrInvalid, l.PeakFactor)
	}
	if l.RecordBytes == 0 {
		l.RecordBytes = measuredRecordBytes
	}
	if l.Session == 0 {
		l.Session = 6*time.Hour + 30*time.Minute
	}
	if l.PeakFactor == 0 {
		l.PeakFactor = 6
	}
	if l.RetainedBytes == 0 {
		l.RetainedBytes = 1 << 30
	}
	if l.Outage == 0 {
		l.Outage = 4 * time.Hour
	}
	if l.FlushBytes == 0 {
		l.FlushBytes = 128 << 20
	}
	if l.FlushInterval == 0 {
		l.FlushInterval = time.Minute
	}
	return nil
}

// Plan says what a load needs.
func Plan(l Load) (Needs, error) {
	if err := l.setDefaults(); err != nil {
		return Needs{}, err
	}
	records := float64(l.RecordsPerDay)
	size := float64(l.RecordBytes) / measuredRecordBytes
	var n Needs
	n.MeanRate = records / l.Session.Seconds()
	n.PeakRate = n.MeanRate * l.PeakFactor
	n.NetworkBytes = n.PeakRate * (float64(l.RecordBytes)*4/3 + 12)

	// The log keeps what is not delivered, and behind it what may be replayed. Days
	// shorter than the outage bound it.
	waiting := min(n.MeanRate*l.Outage.Seconds(), records)
	n.LogBytes = l.RetainedBytes + int64(waiting*LogBytes*size)
	n.LogBytesRaw = l.RetainedBytes + int64(waiting*float64(l.RecordBytes)*rawShare)
	n.LakeBytesDay = int64(records * LakeBytes * size)
	n.LakeBytes = n.LakeBytesDay * int64(l.RetainDays)
	// Beside the log: the tail and files in the making, the catalog, and what large
	// statements spill.
	n.LocalBytes = n.LogBytes + 2*l.FlushBytes + 10<<30
	n.DiskWriteRate = n.PeakRate * size * (LogBytes + 3*LakeBytes) // tail, data file, merged file

	n.MemoryBytes = residentMax
	if n.PeakRate < 100_000 {
		n.MemoryBytes = 2 * residentBase
	}
	cpu := n.PeakRate * ingestNanos * size / 1e9
	cpu += n.MeanRate * sealNanos * size / 1e9
	n.Cores = max(2, int(math.Ceil(cpu/(1-headroom))))
	n.SealSeconds = records * sealNanos * size / 1e9 / float64(n.Cores)

	byBytes := int64(math.Ceil(records * float64(l.RecordBytes) / float64(l.FlushBytes)))
	byTime := int64(l.Session / l.FlushInterval)
	n.FlushesPerDay = max(byBytes, min(byTime, l.RecordsPerDay), 1)
	perFlush := int64(1)
	if b := float64(n.LakeBytesDay) / float64(n.FlushesPerDay); b > partBytes {
		perFlush = int64(math.Ceil(b/partBytes)) + 2 // begin and complete
	}
	n.DataFilesDay = max(1, n.LakeBytesDay/mergedBytes)
	mergedParts := n.DataFilesDay * (mergedBytes/partBytes + 2)
	n.S3Puts = n.FlushesPerDay*(perFlush+putsPerFlush-1) + 2*mergedParts // merged in the day, sorted at the close
	n.S3Gets = n.FlushesPerDay*getsPerFlush + 2*n.DataFilesDay*(mergedBytes/partBytes)
	return n, nil
}
