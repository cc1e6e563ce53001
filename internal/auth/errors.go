package auth

import "strings"

// The codes that AWS's JSON services answer to a request that they cannot
// authenticate. All of them travel with HTTP status 400.
const (
	CodeMissingToken        = "MissingAuthenticationTokenException"
	CodeIncompleteSignature = "IncompleteSignatureException"
	CodeUnrecognizedClient  = "UnrecognizedClientException"
	CodeInvalidSignature    = "InvalidSignatureException"
)

// Error says why a request was not authenticated, in AWS's words.
type Error struct {
	Code    string
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

var (
	errMissingToken   = &Error{CodeMissingToken, "Missing Authentication Token"}
	errUnrecognized   = &Error{CodeUnrecognizedClient, "The security token included in the request is invalid."}
	errMismatch       = &Error{CodeInvalidSignature, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."}
	errHostUnsigned   = &Error{CodeInvalidSignature, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."}
	errTargetUnsigned = &Error{CodeInvalidSignature, "'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization."}
	errAlgorithm      = &Error{CodeIncompleteSignature, "Unsupported AWS 'algorithm': the Authorization header must start with 'AWS4-HMAC-SHA256'."}
)

// quoted renders a value that a stranger sent: bounded, and without control
// characters, so that it can stand in a message and in a log.
func quoted(s string) string {
	const bytesMax = 80
	cut := len(s) > bytesMax
	if cut {
		s = s[:bytesMax]
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return "'" + s + "'"
}
