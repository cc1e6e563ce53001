package firehose

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// decode reads the body of an operation that is not a put. Members that the
// model does not have are ignored, and so are those that have another case; of
// several of one name the last counts. It may change the body.
func decode(body []byte, into any) error {
	if len(body) > documentBytesMax {
		return &awsapi.Error{Status: http.StatusRequestEntityTooLarge, Code: awsapi.CodeTooLarge,
			Message: "The request body is larger than the " + strconv.Itoa(documentBytesMax) + " bytes that this operation takes."}
	}
	if !utf8.Valid(body) {
		return awsapi.BadRequest(awsapi.CodeSerialization, "The body is not valid UTF-8.")
	}
	spoilVariants(body)
	err := json.Unmarshal(body, into)
	if err == nil {
		return nil
	}
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return awsapi.BadRequest(awsapi.CodeSerialization, "A "+t.Value+" can not be converted to the type of "+t.Field+".")
	}
	return awsapi.BadRequest(awsapi.CodeSerialization, "The body is not valid JSON.")
}

// memberNames are the names of the model's members, by their folded form.
var memberNames = func() map[string]string {
	names := map[string]string{}
	for _, t := range []reflect.Type{reflect.TypeFor[createInput](), reflect.TypeFor[updateInput](), reflect.TypeFor[describeInput](), reflect.TypeFor[listInput](),
		reflect.TypeFor[deleteInput](), reflect.TypeFor[startEncryptionInput](), reflect.TypeFor[tagInput](), reflect.TypeFor[untagInput](), reflect.TypeFor[listTagsInput]()} {
		addNames(names, t)
	}
	return names
}()

func addNames(names map[string]string, t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		if !f.Anonymous {
			names[fold(name)] = name
		}
		addNames(names, f.Type)
	}
}

// fold gives names that differ in case only one form, as encoding/json does.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, s)
}

// spoilVariants makes names that differ from a member's in case only, which
// encoding/json would take for it, into names that nobody knows: were
// "deliverystreamname" to count, whoever looks for DeliveryStreamName would see
// another stream than the one that is meant. Of a body that is no JSON it
// spoils what it understands.
func spoilVariants(body []byte) {
	d := json.NewDecoder(bytes.NewReader(body))
	type level struct {
		members bool   // an object whose names are the model's, not a list or a map of the user's own names
		name    bool   // a name comes next
		last    string // the name that came last
	}
	var levels []level
	for {
		token, err := d.Token()
		if err != nil {
			return
		}
		var top *level
		if n := len(levels); n > 0 {
			top = &levels[n-1]
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			own := top != nil && top.members && top.last == "ColumnToJsonKeyMappings"
			if top != nil {
				top.name = true
			}
			levels = append(levels, level{members: token == json.Delim('{') && !own, name: true})
			continue
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
			continue
		}
		if top == nil || !top.members {
			continue
		}
		if !top.name {
			top.name = true
			continue
		}
		top.name = false
		top.last, _ = token.(string)
		if exact, known := memberNames[fold(top.last)]; known && exact != top.last {
			end := int(d.InputOffset()) - 1 // at the closing quote; such a name holds none, however it is written
			if start := bytes.LastIndexByte(body[:end], '"') + 1; start < end {
				body[start] = 0x7f
			}
		}
	}
}
