package external

import "github.com/prometheus/client_golang/prometheus"

// What became of a file that a statement asked for.
const (
	fileKept      = "kept" // it was staged already
	fileLinked    = "linked"
	fileCopied    = "copied"
	fileConverted = "converted"
	fileRefused   = "refused"
)

type metrics struct {
	files     *prometheus.CounterVec
	readBytes prometheus.Counter
	usedBytes prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		files: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "external", Name: "files_total",
			Help: "Files of external tables that statements asked for, by what was done: kept, linked, copied, converted, refused.",
		}, []string{"result"}),
		readBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "external", Name: "read_bytes_total",
			Help: "Bytes of files that were copied or converted.",
		}),
		usedBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "tapehouse", Subsystem: "external", Name: "staged_bytes",
			Help: "Bytes of staged files, those being made included.",
		}),
	}
	for _, result := range []string{fileKept, fileLinked, fileCopied, fileConverted, fileRefused} {
		m.files.WithLabelValues(result) // series begin at 0
	}
	if r != nil {
		r.MustRegister(m.files, m.readBytes, m.usedBytes)
	}
	return m
}
