package market

import "time"

// pace is how fast a trade date's rows arrive.
type pace struct {
	at   time.Time
	rows int64
	rate float64 // rows a second, smoothed
}
