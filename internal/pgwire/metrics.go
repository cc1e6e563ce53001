package pgwire

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	open      prometheus.Gauge
	accepted  *prometheus.CounterVec
	queries   *prometheus.CounterVec
	durations *prometheus.HistogramVec
	errors    *prometheus.CounterVec
	rows      prometheus.Counter
	received  prometheus.Counter
	sent      prometheus.Counter
	cancels   prometheus.Counter
	panics    prometheus.Counter
}

// Outcomes of a connection's startup.
const (
	outcomeSession  = "session"
	outcomeCancel   = "cancel_request"
	outcomeRefused  = "refused"
	outcomeOverflow = "too_many"
	outcomeProtocol = "protocol_error"
	outcomePassword = "authentication_failed"
)

func newMetrics(r prometheus.Registerer) *metrics {
	const subsystem = "tapehouse_pgwire_"
	m := &metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: subsystem + "connections",
			Help: "Open sessions."}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: subsystem + "connections_total",
			Help: "Connections by outcome of their startup."}, []string{"outcome"}),
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: subsystem + "statements_total",
			Help: "Statements completed, by class of the command tag."}, []string{"class"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: subsystem + "statement_seconds",
			Help:    "Time from a statement's start to its last row handed to the socket, by class of the command tag.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}}, []string{"class"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: subsystem + "errors_total",
			Help: "Errors sent to clients, by class of the SQLSTATE (its first two characters)."}, []string{"class"}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{Name: subsystem + "rows_sent_total",
			Help: "Rows sent to clients, COPY included."}),
		received: prometheus.NewCounter(prometheus.CounterOpts{Name: subsystem + "received_bytes_total",
			Help: "Bytes received from clients after authentication."}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{Name: subsystem + "sent_bytes_total",
			Help: "Bytes sent to clients after authentication."}),
		cancels: prometheus.NewCounter(prometheus.CounterOpts{Name: subsystem + "cancels_total",
			Help: "Statements cancelled by a client's request."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: subsystem + "panics_total",
			Help: "Connections ended by a panic. Each is a bug."}),
	}
	// Series begin at 0, so that the first event is an increase.
	for _, outcome := range []string{outcomeSession, outcomeCancel, outcomeRefused, outcomeOverflow, outcomeProtocol, outcomePassword} {
		m.accepted.WithLabelValues(outcome)
	}
	for class := range sqlstateClasses {
		m.errors.WithLabelValues(class)
	}
	for class := range tagClasses {
		m.queries.WithLabelValues(class)
	}
	if r != nil {
		r.MustRegister(m.open, m.accepted, m.queries, m.durations, m.errors, m.rows, m.received, m.sent, m.cancels, m.panics)
	}
	return m
}

// tagClasses are the first words of command tags that have a label of their own.
var tagClasses = map[string]bool{
	"SELECT": true, "INSERT": true, "UPDATE": true, "DELETE": true, "MERGE": true, "COPY": true, "CREATE": true, "DROP": true,
	"ALTER": true, "BEGIN": true, "COMMIT": true, "ROLLBACK": true, "SET": true, "SHOW": true, "EXPLAIN": true, "REFRESH": true,
	"FETCH": true, "UNLOAD": true, "GRANT": true, "REVOKE": true,
}

func (m *metrics) completed(tag string, started time.Time) {
	class := tag
	for i := range len(tag) {
		if tag[i] == ' ' {
			class = tag[:i]
			break
		}
	}
	if !tagClasses[class] {
		class = "other"
	}
	m.queries.WithLabelValues(class).Inc()
	m.durations.WithLabelValues(class).Observe(time.Since(started).Seconds())
}

// sqlstateClasses bounds the label: a session could invent codes.
var sqlstateClasses = map[string]bool{
	"08": true, "0A": true, "21": true, "22": true, "23": true, "25": true, "26": true, "28": true, "2B": true, "34": true, "3D": true,
	"3F": true, "40": true, "42": true, "53": true, "54": true, "55": true, "57": true, "58": true, "XX": true,
}

func (m *metrics) failed(code string) {
	class := "other"
	if len(code) == 5 && sqlstateClasses[code[:2]] {
		class = code[:2]
	}
	m.errors.WithLabelValues(class).Inc()
}
