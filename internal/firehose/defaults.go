package firehose

// Defaults of the service model.
const (
	defaultSizeMBs          = 5
	defaultConvertedSizeMBs = 128 // where the buffer must have 64 MiB at least
	defaultIntervalSeconds  = 300
	defaultRetrySeconds     = 300
)

// withDefaults fills in what AWS answers for members that were left out, so
// that Describe shows, and Streams gets, whole destinations. Members are
// replaced, never changed: c's own stay as they are.
func withDefaults(c StreamConfig) StreamConfig {
	if c.Iceberg != nil {
		c.Iceberg = icebergDefaults(*c.Iceberg)
	}
	if c.S3 != nil {
		c.S3 = extendedS3Defaults(*c.S3)
	}
	return c
}

func icebergDefaults(d IcebergDestination) *IcebergDestination {
	set(&d.S3BackupMode, "FailedDataOnly")
	d.BufferingHints = hintsOrDefault(d.BufferingHints, defaultSizeMBs)
	d.RetryOptions = retryOrDefault(d.RetryOptions)
	d.CloudWatch = loggingOrDefault(d.CloudWatch)
	d.Processing = processingOrDefault(d.Processing)
	if d.S3 != nil {
		s3 := s3Defaults(*d.S3, defaultSizeMBs)
		d.S3 = &s3
	}
	return &d
}

func extendedS3Defaults(d ExtendedS3Destination) *ExtendedS3Destination {
	size := int32(defaultSizeMBs)
	if d.Conversion.On() || d.DynamicPartitioning.On() {
		size = defaultConvertedSizeMBs
	}
	d.S3Destination = s3Defaults(d.S3Destination, size)
	set(&d.S3BackupMode, "Disabled")
	d.Processing = processingOrDefault(d.Processing)
	if d.S3Backup != nil {
		backup := s3Defaults(*d.S3Backup, defaultSizeMBs)
		d.S3Backup = &backup
	}
	if p := d.DynamicPartitioning; p != nil {
		d.DynamicPartitioning = &DynamicPartitioning{RetryOptions: p.RetryOptions, Enabled: p.Enabled}
		if p.On() {
			d.DynamicPartitioning.RetryOptions = retryOrDefault(p.RetryOptions)
		}
	}
	return &d
}

func s3Defaults(d S3Destination, sizeMBs int32) S3Destination {
	d.BufferingHints = hintsOrDefault(d.BufferingHints, sizeMBs)
	set(&d.CompressionFormat, "UNCOMPRESSED")
	if d.Encryption == nil {
		d.Encryption = &S3Encryption{NoEncryptionConfig: ptr("NoEncryption")}
	}
	d.CloudWatch = loggingOrDefault(d.CloudWatch)
	return d
}

func ptr[T any](v T) *T { return &v }

// set gives *p a value if it has none.
func set[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func hintsOrDefault(h *BufferingHints, sizeMBs int32) *BufferingHints {
	if h == nil || h.SizeInMBs == nil || h.IntervalInSeconds == nil {
		return &BufferingHints{ptr(sizeMBs), ptr(int32(defaultIntervalSeconds))}
	}
	return h
}

func retryOrDefault(r *RetryOptions) *RetryOptions {
	if r == nil || r.DurationInSeconds == nil {
		return &RetryOptions{ptr(int32(defaultRetrySeconds))}
	}
	return r
}

func loggingOrDefault(c *CloudWatchLogging) *CloudWatchLogging {
	if c == nil {
		return &CloudWatchLogging{Enabled: ptr(false)}
	}
	out := *c
	set(&out.Enabled, false)
	return &out
}

func processingOrDefault(p *Processing) *Processing {
	if p == nil {
		p = &Processing{}
	}
	out := *p
	set(&out.Enabled, false)
	if out.Processors == nil {
		out.Processors = []Processor{}
	}
	return &out
}
