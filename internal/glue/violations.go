package glue

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// violationsMax bounds how many violations are spelled out in one answer.
const violationsMax = 20

// violations collects what breaks the service model's constraints and words it
// as AWS does: "2 validation errors detected: Value '…' at '…' failed to
// satisfy constraint: …; Value …".
type violations struct {
	n    int
	text []string
}

func (v *violations) add(value, path, constraint string) {
	v.n++
	if len(v.text) < violationsMax {
		v.text = append(v.text, "Value "+value+" at '"+path+"' failed to satisfy constraint: "+constraint)
	}
}

// err returns nil if nothing was violated.
func (v *violations) err() error {
	if v.n == 0 {
		return nil
	}
	noun := " validation errors detected: "
	if v.n == 1 {
		noun = " validation error detected: "
	}
	return awsapi.BadRequest(awsapi.CodeValidation, strconv.Itoa(v.n)+noun+strings.Join(v.text, "; "))
}

// shown quotes a value, shortened so that an answer stays readable.
func shown(t json.Token) string {
	const bytesMax = 256
	value := fmt.Sprint(t)
	if len(value) > bytesMax {
		cut := bytesMax
		for cut > 0 && !utf8.RuneStart(value[cut]) {
			cut--
		}
		value = value[:cut] + "…"
	}
	return "'" + value + "'"
}
