package exchange

import (
	"math"
	"math/bits"
)

// random is PCG-XSH-RR 64/32 (O'Neill 2014). It is written out here so that a
// seed gives the same bytes whatever the standard library does.
type random struct {
	state, increment uint64
}

const pcgMultiplier = 6364136223846793005

// newRandom returns the numbers of one stream of a seed: different streams of
// one seed are independent.
func newRandom(seed, stream uint64) random {
	r := random{increment: stream<<1 | 1}
	r.next()
	r.state += mix(seed)
	r.next()
	return r
}

func (r *random) next() uint32 {
	s := r.state
	r.state = s*pcgMultiplier + r.increment
	return bits.RotateLeft32(uint32(((s>>18)^s)>>27), -int(s>>59))
}

// below returns a number in [0, n). n is at most 2³¹; the bias, n/2³², is of no
// account here.
func (r *random) below(n int) int {
	return int(uint64(r.next()) * uint64(n) >> 32)
}

// chance is true p times in 10,000.
func (r *random) chance(p int) bool { return r.below(10000) < p }

// mix is the finalizer of SplitMix64: a hash of one integer.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashOf is FNV-1a, mixed: it maps a text to a random number.
func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// alias draws from a discrete distribution in constant time (Vose 1991). Weights
// are integers, so that the table is the same on every platform.
type alias struct {
	cut   []uint32 // of 2³²: below it the slot's own number is drawn
	other []int32
}

func newAlias(weights []int64) alias {
	n := len(weights)
	var total int64
	for _, w := range weights {
		total += w
	}
	a := alias{make([]uint32, n), make([]int32, n)}
	// Scaled so that the mean is total: all stay integers.
	scaled := make([]int64, n)
	var small, large []int32
	for i, w := range weights {
		scaled[i] = w * int64(n)
		if scaled[i] < total {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		high, low := bits.Mul64(uint64(scaled[s]), 1<<32)
		q, _ := bits.Div64(high, low, uint64(total))
		a.cut[s], a.other[s] = uint32(min(q, math.MaxUint32)), l
		scaled[l] -= total - scaled[s]
		if scaled[l] < total {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, rest := range [][]int32{small, large} {
		for _, i := range rest {
			a.cut[i], a.other[i] = math.MaxUint32, i
		}
	}
	return a
}

func (a *alias) draw(r *random) int {
	i := r.below(len(a.cut))
	if r.next() < a.cut[i] {
		return i
	}
	return int(a.other[i])
}

// symbolShare is the measured share of messages of the first rank symbols of
// 8,906 on one whole day, in 1/1000 (2019-12-30).
var symbolShare = []struct {
	rank  int
	share float64
	slope float64 // of the power law from the rank before to this one
}{
	{10, 57, 0.30},
	{100, 231, 0.81},
	{500, 525, 0.81},
	{1000, 683, 0.81},
	{2000, 836, 0.81},
	{8906, 1000, 2.4},
}

// symbolsMax is the number of symbols whose share is known.
const symbolsMax = 8906

// symbolWeights returns the share of messages of each of the n most active
// symbols, in 10⁻⁹ of the market.
func symbolWeights(n int) []int64 {
	weights := make([]int64, 0, n)
	first, before := 1, 0.0
	for _, s := range symbolShare {
		sum := 0.0
		for r := first; r <= s.rank; r++ {
			sum += math.Pow(float64(r), -s.slope)
		}
		for r := first; r <= s.rank && len(weights) < n; r++ {
			w := math.Pow(float64(r), -s.slope) / sum * (s.share - before)
			weights = append(weights, max(1, int64(math.Round(w*1e6))))
		}
		first, before = s.rank+1, s.share
	}
	return weights
}

// exponential is a table of the quantiles of the exponential distribution with
// mean 1024.
var exponential = func() (t [4096]int64) {
	for i := range t {
		t[i] = int64(math.Round(-1024 * math.Log((float64(i)+0.5)/float64(len(t)))))
	}
	return t
}()

// fleeting is a table of the lives of orders that are deleted soon: log-uniform
// from 1 ms to 2 s, in nanoseconds.
var fleeting = func() (t [1024]int64) {
	for i := range t {
		micros := 1000 * math.Pow(2000, (float64(i)+0.5)/float64(len(t)))
		t[i] = int64(math.Round(micros)) * 1000
	}
	return t
}()

// The intervals between actions are hyperexponential: bursts of close actions,
// and long gaps between the bursts. With these, an interval is 0 in 8 % of the
// cases, and the coefficient of variation is about 3.2.
const (
	sameInstant = 800 // of 10,000
	longGap     = 1000
	gapMean     = 740 // of 100 overall
	burstMean   = 32
)

// interval draws the time to the next action.
func (r *random) interval(mean int64) int64 {
	p := r.below(10000)
	if p < sameInstant {
		return 0
	}
	x := exponential[r.below(len(exponential))]
	scale := int64(burstMean)
	if p < sameInstant+longGap {
		scale = gapMean
	}
	// x·scale/(1024·100) is at most 62: mean may be up to 10¹⁷ ns.
	high, low := bits.Mul64(uint64(mean), uint64(x*scale))
	q, _ := bits.Div64(high, low, 1024*100)
	return int64(q)
}
