// Package awsapi is what the AWS front doors share: one port for all services,
// with the request's way from the socket to an operation and back.
//
// The service of a request is the fourth field of its credential scope, the
// operation stands in X-Amz-Target. A request goes
//
//	parse authorization → find service → reserve bytes → read body → SHA-256
//	→ check signature → find operation → authorize → run it → write the answer
//
// Invariants:
//
//   - No operation runs, and no state is looked at, before the signature over
//     the body that was read has been accepted.
//   - No operation runs that the key's policy does not allow on the stream that
//     the body names; a key without a policy may do nothing.
//   - The memory of all requests in flight is bounded; a request beyond the
//     bound is refused at once with ServiceUnavailableException "Slow down.",
//     which every AWS client retries.
//   - A body lies in a pooled buffer with SlackBytes of room behind it and is
//     the operation's until it returns, and not a moment longer.
//   - Every answer carries x-amzn-RequestId, and every internal error is logged
//     with it; what goes to the client holds no detail of the inside.
package awsapi
