package benchmark

import (
	"bytes"
	"math/rand/v2"
	"strconv"

	"github.com/tapehouse/tapehouse/internal/record"
)

// The record of the general path: a trade like record.go's, as a careless
// producer writes it. Its members come in an order of their own in every record,
// some are null or missing, one is a text with escapes and other alphabets, one
// belongs to no column and is nested.
//
//	{"note":"filled \"at best\", Zürich","seq":100123456,"routing":{"gateway":"gw-3","hops":[1,2],"raw":null},"symbol":"ABCD",…}

// generalFields are recordFields, of which some may be null, and a text.
func generalFields() []record.Field {
	f := recordFields()
	for i := range f {
		switch f[i].Name {
		case "liquidity", "buyer_mpid", "seller_mpid", "price":
			f[i].Required = false
		}
	}
	return append(f, record.Field{ID: len(f) + 1, Name: "note", Type: record.Type{Kind: record.String}})
}

var generalNotes = []string{
	`plain text, nothing to escape`,
	`filled \"at best\"`,
	`first line\nsecond line\ttabbed`,
	`C:\\feeds\\itch`,
	`Zürich – Köln`,
	`東京証券取引所`,
	`caf\u00e9 \u20ac 12`,
	`\ud83d\ude80 late`,
	``,
}

// generalize appends doc, a record of record.go, in the general form.
func generalize(dst, doc []byte, r *rand.Rand, members [][]byte) []byte {
	members = members[:0]
	for rest := doc[1 : len(doc)-1]; len(rest) > 0; { // no value has a comma in it
		member, after, _ := bytes.Cut(rest, []byte{','})
		rest = after
		switch {
		case bytes.HasPrefix(member, []byte(`"liquidity"`)) && r.IntN(10) == 0:
			member = []byte(`"liquidity":null`)
		case bytes.HasPrefix(member, []byte(`"price"`)) && r.IntN(20) == 0:
			member = []byte(`"price":null`)
		case bytes.HasPrefix(member, []byte(`"buyer_mpid"`)) && r.IntN(10) == 0:
			continue
		}
		members = append(members, member)
	}
	if r.IntN(5) > 0 {
		members = append(members, []byte(`"note":"`+generalNotes[r.IntN(len(generalNotes))]+`"`))
	}
	routing := append(make([]byte, 0, 80), `"routing":{"gateway":"gw-`...)
	routing = strconv.AppendInt(routing, int64(r.IntN(8)), 10)
	members = append(members, append(routing, `","hops":[1,2],"raw":null}`...))
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	dst = append(dst, '{')
	dst = append(dst, bytes.Join(members, []byte{','})...)
	return append(dst, '}')
}
