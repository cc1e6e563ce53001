package pgwire

import "github.com/tapehouse/tapehouse/internal/engine"

// The values that travel between a session and the wire besides nil, bool, the
// integers, float32, float64, string and []byte are the engine's own, so that a
// row goes from its vectors to the socket without another conversion.
type (
	Decimal     = engine.Decimal
	Date        = engine.Date
	Time        = engine.Time
	Timestamp   = engine.Timestamp
	TimestampTZ = engine.TimestampTZ
	Interval    = engine.Interval
)
