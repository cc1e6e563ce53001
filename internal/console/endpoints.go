package console

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// EndpointsFile is the name of the file in a data directory that says where its
// server listens. A server writes it when it is ready and removes it when it
// stops; after a crash it is stale, and nobody answers there.
const EndpointsFile = "server.json"

// endpointsSizeBytesMax bounds what is read of the file.
const endpointsSizeBytesMax = 64 << 10

// What clients are told where the file does not say.
const (
	DefaultRegion   = "us-east-1"
	DefaultDatabase = "tapehouse"
)

// ErrNotRunning says that no server runs on a data directory, as far as its
// endpoints file tells.
var ErrNotRunning = errors.New("no server runs on the data directory")

// Endpoints are the addresses of a running server.
type Endpoints struct {
	AWS  string `json:"aws"`  // host:port
	SQL  string `json:"sql"`  // host:port
	HTTP string `json:"http"` // host:port
	TLS  bool   `json:"tls,omitempty"`
	// CertificateSHA256 is the hash of the certificate's DER, in hexadecimal: the
	// commands on the same machine know the server by it, whatever name or
	// authority the certificate has.
	CertificateSHA256 string `json:"certificate_sha256,omitempty"`

	Region   string `json:"region"`
	Database string `json:"database"`
	PID      int    `json:"pid"`
	Version  string `json:"version"`
}

func (e Endpoints) url(addr string) string {
	if e.TLS {
		return "https://" + addr
	}
	return "http://" + addr
}

// AWSURL is what AWS_ENDPOINT_URL takes.
func (e Endpoints) AWSURL() string { return e.url(e.AWS) }

// HTTPURL is the base of this package's paths.
func (e Endpoints) HTTPURL() string { return e.url(e.HTTP) }

// TLSConfig returns how the commands of the data directory connect: to the
// server that holds the certificate of CertificateSHA256 and to no other, or, if
// that is not known, as everybody does.
func (e Endpoints) TLSConfig() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CertificateSHA256 == "" {
		return c
	}
	want := e.CertificateSHA256
	c.InsecureSkipVerify = true // in favour of the check below, which is stricter
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 || CertificateHash(s.PeerCertificates[0].Raw) != want {
			return errors.New("the certificate is not that of this data directory's server")
		}
		return nil
	}
	return c
}

// CertificateHash is the form of CertificateSHA256.
func CertificateHash(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// WriteEndpoints writes the file, whole or not at all.
func WriteEndpoints(files fsys.FS, dir string, e Endpoints) error {
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", EndpointsFile, err)
	}
	if err := fsys.WriteFileAtomic(files, filepath.Join(dir, EndpointsFile), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", EndpointsFile, err)
	}
	return nil
}

// RemoveEndpoints removes the file; it is no error if there is none.
func RemoveEndpoints(files fsys.FS, dir string) error {
	if err := files.Remove(filepath.Join(dir, EndpointsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", EndpointsFile, err)
	}
	return nil
}

// ReadEndpoints reads the file; ErrNotRunning if there is none.
func ReadEndpoints(files fsys.FS, dir string) (Endpoints, error) {
	name := filepath.Join(dir, EndpointsFile)
	info, err := files.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Endpoints{}, fmt.Errorf("%w %s", ErrNotRunning, dir)
	}
	if err != nil {
		return Endpoints{}, fmt.Errorf("read %s: %w", EndpointsFile, err)
	}
	if info.Size() > endpointsSizeBytesMax {
		return Endpoints{}, fmt.Errorf("read %s: %d bytes are too many", name, info.Size())
	}
	data, err := fsys.ReadFile(files, name)
	if err != nil {
		return Endpoints{}, fmt.Errorf("read %s: %w", EndpointsFile, err)
	}
	e := Endpoints{Region: DefaultRegion, Database: DefaultDatabase}
	if err := json.Unmarshal(data, &e); err != nil {
		return Endpoints{}, fmt.Errorf("decode %s: %w", name, err)
	}
	return e, nil
}
