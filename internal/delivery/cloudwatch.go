package delivery

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/record"
)

// cloudwatch are the delivery's metrics of AWS/Firehose, named after them:
// DeliveryToS3.Records is tapehouse_firehose_delivery_to_s3_records_total, with
// the label delivery_stream. A ratio of CloudWatch's (DeliveryToS3.Success) is
// two counters here, of successes and of attempts. A stream has the series of
// what it is made of, from its start; with it they go.
type cloudwatch struct {
	s3, backup, iceberg destinationSeries
	objects             *prometheus.CounterVec // DeliveryToS3.ObjectCount
	rowsIn, rowsFailed  *prometheus.CounterVec
	converted           amount
	unconverted         amount
	processed           amount
	partitions          *prometheus.GaugeVec
	partitionsLimit     *prometheus.GaugeVec
	partitionsExceeded  *prometheus.CounterVec
	recordsLimit        *prometheus.GaugeVec
	bytesLimit          *prometheus.GaugeVec
	all                 []interface {
		prometheus.Collector
		DeletePartialMatch(prometheus.Labels) int
	}
}

// amount counts records and their bytes.
type amount struct{ records, bytes *prometheus.CounterVec }

func (a amount) add(stream string, records, bytes int64) {
	a.records.WithLabelValues(stream).Add(float64(records))
	a.bytes.WithLabelValues(stream).Add(float64(bytes))
}

// destinationSeries are what CloudWatch has of each destination.
type destinationSeries struct {
	amount
	attempts, successes *prometheus.CounterVec
}

func (d destinationSeries) open(stream string) {
	d.add(stream, 0, 0)
	d.attempts.WithLabelValues(stream)
	d.successes.WithLabelValues(stream)
}

// attempted counts an attempt to deliver.
func (d destinationSeries) attempted(stream string, ok bool) {
	d.attempts.WithLabelValues(stream).Inc()
	if ok {
		d.successes.WithLabelValues(stream).Inc()
	}
}

func newCloudwatch(r prometheus.Registerer) *cloudwatch {
	c := &cloudwatch{}
	label := []string{"delivery_stream"}
	counter := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tapehouse", Subsystem: "firehose", Name: name + "_total", Help: help}, label)
		r.MustRegister(v)
		c.all = append(c.all, v)
		return v
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tapehouse", Subsystem: "firehose", Name: name, Help: help}, label)
		r.MustRegister(v)
		c.all = append(c.all, v)
		return v
	}
	c.s3 = destinationSeries{amount{
		counter("delivery_to_s3_records", "DeliveryToS3.Records: records delivered into objects."),
		counter("delivery_to_s3_bytes", "DeliveryToS3.Bytes: bytes of the objects delivered, error output included.")},
		counter("delivery_to_s3_attempts", "Deliveries tried; DeliveryToS3.Success is successes by attempts."),
		counter("delivery_to_s3_success", "DeliveryToS3.Success: deliveries that succeeded.")}
	c.objects = counter("delivery_to_s3_object_count", "DeliveryToS3.ObjectCount: objects delivered, error output included.")
	c.backup = destinationSeries{amount{
		counter("backup_to_s3_records", "BackupToS3.Records: records backed up as they were sent."),
		counter("backup_to_s3_bytes", "BackupToS3.Bytes: bytes of the backup's objects.")},
		counter("backup_to_s3_attempts", "Backups tried; BackupToS3.Success is successes by attempts."),
		counter("backup_to_s3_success", "BackupToS3.Success: backups that succeeded.")}
	c.iceberg = destinationSeries{amount{
		counter("delivery_to_iceberg_successful_row_count", "DeliveryToIceberg.SuccessfulRowCount: rows committed."),
		counter("delivery_to_iceberg_bytes", "DeliveryToIceberg.Bytes: bytes of the data files committed.")},
		counter("delivery_to_iceberg_attempts", "Commits tried; DeliveryToIceberg.Success is successes by attempts."),
		counter("delivery_to_iceberg_success", "DeliveryToIceberg.Success: commits that succeeded.")}
	c.rowsIn = counter("delivery_to_iceberg_incoming_row_count", "DeliveryToIceberg.IncomingRowCount: records of which a delivery was begun.")
	c.rowsFailed = counter("delivery_to_iceberg_failed_row_count", "DeliveryToIceberg.FailedRowCount: records that went to the error output.")
	c.converted = amount{
		counter("succeed_conversion_records", "SucceedConversion.Records: records converted to Parquet and delivered."),
		counter("succeed_conversion_bytes", "SucceedConversion.Bytes: bytes of that Parquet.")}
	c.unconverted = amount{
		counter("failed_conversion_records", "FailedConversion.Records: records that could not be converted, in the error output."),
		counter("failed_conversion_bytes", "FailedConversion.Bytes: their bytes, as they were sent.")}
	c.processed = amount{
		counter("succeed_processing_records", "SucceedProcessing.Records: records that processing passed on."),
		counter("succeed_processing_bytes", "SucceedProcessing.Bytes: bytes of what it made of them.")}
	c.partitions = gauge("partition_count", "PartitionCount: partitions of the latest delivery.")
	c.partitionsLimit = gauge("active_partitions_limit", "ActivePartitionsLimit: partitions of one delivery, beyond which records go to the error output.")
	c.partitionsExceeded = counter("partition_count_exceeded", "PartitionCountExceeded: deliveries with more partitions than the limit.")
	c.recordsLimit = gauge("records_per_second_limit", "RecordsPerSecondLimit: the stream's quota; absent without one.")
	c.bytesLimit = gauge("bytes_per_second_limit", "BytesPerSecondLimit: the stream's quota; absent without one.")
	return c
}

// open begins a stream's series at 0.
func (c *cloudwatch) open(cfg *Config, q Quota) {
	s := string(cfg.Name)
	if q.RecordsPerSecond > 0 {
		c.recordsLimit.WithLabelValues(s).Set(float64(q.RecordsPerSecond))
	}
	if q.BytesPerSecond > 0 {
		c.bytesLimit.WithLabelValues(s).Set(float64(q.BytesPerSecond))
	}
	c.converted.add(s, 0, 0)
	c.unconverted.add(s, 0, 0)
	if cfg.Objects != nil {
		c.s3.open(s)
		c.objects.WithLabelValues(s)
		c.partitions.WithLabelValues(s)
		c.partitionsLimit.WithLabelValues(s).Set(PartitionsMax)
		c.partitionsExceeded.WithLabelValues(s)
	} else {
		c.iceberg.open(s)
		c.rowsIn.WithLabelValues(s)
		c.rowsFailed.WithLabelValues(s)
	}
	if cfg.Backup != nil {
		c.backup.open(s)
	}
	if len(cfg.Processing) > 0 {
		c.processed.add(s, 0, 0)
	}
}

// close ends a deleted stream's series, so that labels do not pile up.
func (c *cloudwatch) close(s record.StreamName) {
	for _, v := range c.all {
		v.DeletePartialMatch(prometheus.Labels{"delivery_stream": string(s)})
	}
}

// rows counts a delivery into a table: what its entries hold, and, at the first
// attempt, that it was begun.
func (c *cloudwatch) rows(s record.StreamName, first, ok bool, rows, bytes int64, f faults) {
	stream := string(s)
	if first {
		c.rowsIn.WithLabelValues(stream).Add(float64(rows + f.records))
	}
	c.iceberg.attempted(stream, ok)
	if !ok {
		return
	}
	c.iceberg.add(stream, rows, bytes)
	c.rowsFailed.WithLabelValues(stream).Add(float64(f.records))
	c.converted.add(stream, rows, bytes)
	c.unconverted.add(stream, f.records-f.conflicts, f.bytes-f.conflictBytes)
}

// wrote counts a delivery into objects.
func (c *cloudwatch) wrote(s record.StreamName, role string, ok bool, r *ObjectResult) {
	stream := string(s)
	switch role {
	case roleBackup:
		c.backup.attempted(stream, ok)
		if ok {
			c.backup.add(stream, r.Records, r.Bytes)
		}
	case roleErrors: // of a stream into tables
		if ok {
			c.rowsFailed.WithLabelValues(stream).Add(float64(r.Failed))
		}
	case roleObjects:
		c.s3.attempted(stream, ok)
		if !ok {
			return
		}
		c.s3.add(stream, r.Records-r.Failed, r.Bytes)
		c.objects.WithLabelValues(stream).Add(float64(r.Objects))
		c.converted.add(stream, r.Converted, r.ConvertedBytes)
		c.unconverted.add(stream, r.Unconverted, r.UnconvertedBytes)
		c.partitions.WithLabelValues(stream).Set(float64(r.Partitions))
		if r.PartitionsExceeded {
			c.partitionsExceeded.WithLabelValues(stream).Inc()
		}
	}
}
