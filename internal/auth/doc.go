// Package auth knows who is asking and what he may do: the credentials of a data
// directory and their keeper, the policies of principals, the verification and
// the making of AWS Signature Version 4, and the verifiers of SCRAM-SHA-256.
//
// Keeper changes the credentials file, Store serves it to a running server,
// Policy decides. docs/security.md describes the three for operators.
//
// Signature Version 4 (AWS General Reference, "Signature Version 4 signing
// process") signs a canonical form of the request:
//
//	canonical request = method \n path \n query \n headers \n signed names \n hex(SHA-256(body))
//	string to sign    = AWS4-HMAC-SHA256 \n time \n date/region/service/aws4_request \n hex(SHA-256(canonical request))
//	signing key       = HMAC(HMAC(HMAC(HMAC("AWS4"+secret, date), region), service), "aws4_request")
//	signature         = hex(HMAC(signing key, string to sign))
//
// Invariants:
//
//   - A request is accepted only if the body that was hashed by us is the body
//     that was signed; a client's own claim of the hash is never believed.
//   - The header that selects the operation (X-Amz-Target) and the host must be
//     among the signed ones.
//   - Nothing is remembered about a request that was not accepted, so that
//     strangers cannot fill a cache.
//   - What no grant allows is denied; a principal without a policy may do
//     nothing. The table of what can be allowed stands in policy.go alone.
//   - A changed file is in force as a whole or not at all, and somebody who may
//     do everything is always left.
//   - Secrets are never part of an error or of a log line.
package auth
