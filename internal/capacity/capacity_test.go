package capacity

import (
	"errors"
	"testing"
	"time"
)

func TestPlan(t *testing.T) {
	n, err := Plan(Load{RecordsPerDay: 1_000_000_000, RetainDays: 250})
	if err != nil {
		t.Fatal(err)
	}
	// A billion records of 300 bytes in 6.5 hours: 42,735 a second in the mean.
	if n.MeanRate < 42_700 || n.MeanRate > 42_800 || n.PeakRate != 6*n.MeanRate {
		t.Errorf("rates %+v", n)
	}
	if n.LakeBytesDay != 17_000_000_000 || n.LakeBytes != 250*n.LakeBytesDay {
		t.Errorf("lake %d and %d", n.LakeBytesDay, n.LakeBytes)
	}
	if n.FlushesPerDay != 2236 { // by 128 MiB of JSON: more often than by the minute
		t.Errorf("%d flushes", n.FlushesPerDay)
	}
	small, err := Plan(Load{RecordsPerDay: 1000, RetainDays: 1})
	if err != nil {
		t.Fatal(err)
	}
	if small.FlushesPerDay != 390 || small.Cores != 2 || small.DataFilesDay != 1 {
		t.Errorf("%+v", small)
	}
}

// TestPlanGrows: no need falls when a load grows.
func TestPlanGrows(t *testing.T) {
	var before Needs
	for records := int64(1); records <= recordsMax; records *= 10 {
		n, err := Plan(Load{RecordsPerDay: records, RetainDays: 10})
		if err != nil {
			t.Fatal(err)
		}
		if n.LakeBytes < before.LakeBytes || n.LogBytes < before.LogBytes || n.Cores < before.Cores || n.S3Puts < before.S3Puts || n.MemoryBytes < before.MemoryBytes {
			t.Errorf("%d records a day need less than a tenth of them: %+v after %+v", records, n, before)
		}
		before = n
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, l := range []Load{
		{}, {RecordsPerDay: 1}, {RecordsPerDay: -1, RetainDays: 1}, {RecordsPerDay: 1, RetainDays: 1, RecordBytes: 2_000_000},
		{RecordsPerDay: 1, RetainDays: 1, Session: 25 * time.Hour}, {RecordsPerDay: 1, RetainDays: 1, PeakFactor: 0.5},
		{RecordsPerDay: 1, RetainDays: 1, Outage: -1}, {RecordsPerDay: recordsMax + 1, RetainDays: 1},
	} {
		if _, err := Plan(l); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v, want ErrInvalid", l, err)
		}
	}
}
