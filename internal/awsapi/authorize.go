package awsapi

import (
	"bytes"
	"strings"

	"github.com/tapehouse/tapehouse/internal/auth"
)

// CodeAccessDenied is the answer to an operation that no grant allows.
const CodeAccessDenied = "AccessDeniedException"

// authorize refuses the operation unless the key's policy allows it on the
// stream that the body names. It runs before the operation, and so before any
// state is looked at; a stream that does not exist and one that is not allowed
// are refused alike.
func (m *Mux) authorize(x *exchange, operation string) error {
	policy, service := x.auth.Key.Policy, x.service
	// Most keys may do what they do on all streams: no need to look at the body.
	if policy.Allows(service.SigningName, operation, auth.AnyStream) {
		return nil
	}
	resource, arn := auth.AnyStream, ""
	if service.Resource != nil {
		resource, arn = service.Resource(operation, x.call.Body)
	} else if service.ResourceMember != "" {
		if name, ok := Member(x.call.Body, service.ResourceMember); ok {
			resource = string(name)
		}
	}
	if resource != auth.AnyStream && policy.Allows(service.SigningName, operation, resource) {
		return nil
	}
	action := service.SigningName + ":" + operation
	if arn != "" {
		resource = bounded(arn)
	} else if service.ResourceType != "" {
		resource = "arn:aws:" + service.SigningName + ":" + m.region + ":" + m.account + ":" + service.ResourceType + "/" + bounded(resource)
	}
	return BadRequest(CodeAccessDenied, "User: arn:aws:iam::"+m.account+":user/"+x.auth.Key.Name+" is not authorized to perform: "+action+
		" on resource: "+resource+" because no identity-based policy allows the "+action+" action")
}

// Member returns the text of a member of the JSON object in body, as a part of
// body. It is false unless the answer is beyond doubt for every JSON decoder:
// whether it matches members by case or not, and takes the first or the last
// of two, it can find no other text in a body that it accepts. So the member
// stands once, in any spelling of its case, at the top; its value is a string
// of letters, digits, '_', '.' and '-', none of them escaped; and no member at
// the top is written with escapes or beyond ASCII.
//
// It does not check what it passes over: a body that is not JSON is for the
// operation to refuse. Strings are passed by their quotes alone, so that a
// batch of 500 records costs some 20 µs, and that only where the key is for
// single streams.
func Member(body []byte, name string) (value []byte, ok bool) {
	i := space(body, 0)
	if i >= len(body) || body[i] != '{' {
		return nil, false
	}
	depth := 0
	for i < len(body) {
		switch body[i] {
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
			if depth == 0 {
				// What follows can only be white space, if anybody accepts it.
				return value, ok && space(body, i) == len(body)
			}
		case '"':
			end := stringEnd(body, i)
			if end < 0 {
				return nil, false
			}
			text := body[i+1 : end-1]
			i = end
			if depth != 1 {
				continue
			}
			if i = space(body, i); i >= len(body) || body[i] != ':' {
				continue // a value
			}
			if !plainName(text, false) {
				return nil, false
			}
			if !strings.EqualFold(string(text), name) {
				continue
			}
			if ok { // it stands twice
				return nil, false
			}
			if i = space(body, i+1); i >= len(body) || body[i] != '"' {
				return nil, false
			}
			if end = stringEnd(body, i); end < 0 {
				return nil, false
			}
			value, i = body[i+1:end-1], end
			if ok = plainName(value, true); !ok {
				return nil, false
			}
		default:
			i++
		}
	}
	return nil, false
}

// stringEnd returns the index behind the closing quote of the string that
// starts at i, or -1.
func stringEnd(b []byte, i int) int {
	for i++; ; {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		slashes := 0
		for j := i + n - 1; j >= i && b[j] == '\\'; j-- {
			slashes++
		}
		i += n + 1
		if slashes%2 == 0 {
			return i
		}
	}
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// plainName reports whether b means itself to every decoder; strict allows only
// the characters of a resource's name.
func plainName(b []byte, strict bool) bool {
	for _, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-':
		case strict, c == '\\', c < ' ', c > '~':
			return false
		}
	}
	return len(b) > 0 || !strict
}
