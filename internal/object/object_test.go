package object

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
)

var compressions = []Compression{Uncompressed, Gzip, Zip, Snappy, HadoopSnappy}

func assemble(t testing.TB, o Options, records [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, r := range records {
		if err := w.Append(r); err != nil {
			t.Fatal(err)
		}
		size += RecordBytes(r, o.Delimiter)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.SizeBytes() != size || w.Records() != int64(len(records)) {
		t.Errorf("%s: %d records of %d bytes, want %d of %d", o.Compression, w.Records(), w.SizeBytes(), len(records), size)
	}
	return b.Bytes()
}

// disassemble reads an object by means other than those that wrote it.
func disassemble(o Options, object []byte) ([]byte, error) {
	switch o.Compression {
	case Gzip:
		r, err := gzip.NewReader(bytes.NewReader(object))
		if err != nil {
			return nil, err
		}
		if !r.ModTime.IsZero() || r.Name != "" || r.OS != 255 {
			return nil, fmt.Errorf("gzip header %+v", r.Header)
		}
		return io.ReadAll(r)
	case Zip:
		r, err := zip.NewReader(bytes.NewReader(object), int64(len(object)))
		if err != nil {
			return nil, err
		}
		if len(r.File) != 1 || r.File[0].Name != o.EntryName || r.File[0].Method != zip.Deflate {
			return nil, fmt.Errorf("zip entries %+v", r.File)
		}
		f, err := r.File[0].Open()
		if err != nil {
			return nil, err
		}
		return io.ReadAll(f)
	case Snappy, HadoopSnappy:
		return unsnap(object, o.Compression == HadoopSnappy)
	}
	return object, nil
}

// unsnap is a plain reader of both framings, written from their descriptions.
func unsnap(object []byte, hadoop bool) ([]byte, error) {
	if !hadoop {
		var ok bool
		if object, ok = bytes.CutPrefix(object, []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")); !ok {
			return nil, errors.New("no snappy-java header")
		}
	}
	var out []byte
	next := func() (int, error) {
		if len(object) < 4 {
			return 0, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(object)
		object = object[4:]
		return int(n), nil
	}
	for len(object) > 0 {
		want := -1
		var err error
		if hadoop {
			if want, err = next(); err != nil {
				return nil, err
			}
		}
		n, err := next()
		if err != nil || n > len(object) {
			return nil, io.ErrUnexpectedEOF
		}
		block, err := snappy.Decode(nil, object[:n])
		if err != nil {
			return nil, err
		}
		if want >= 0 && len(block) != want || len(block) > blockBytes || len(block) == 0 {
			return nil, fmt.Errorf("block of %d bytes, announced %d", len(block), want)
		}
		out = append(out, block...)
		object = object[n:]
	}
	return out, nil
}

func sample(r *rand.Rand) [][]byte {
	records := make([][]byte, r.IntN(400))
	for i := range records {
		if r.IntN(20) == 0 {
			records[i] = make([]byte, r.IntN(100_000))
			for j := range records[i] {
				records[i][j] = byte(r.Uint32() >> r.IntN(8))
			}
			continue
		}
		records[i] = fmt.Appendf(nil, `{"symbol":"S%d","price":"%d.%02d"}`, r.IntN(100), r.IntN(1000), r.IntN(100))
	}
	return records
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 6 {
		records := sample(r)
		for _, delimiter := range []string{"", "\n", "||"} {
			want := []byte{}
			for _, x := range records {
				want = append(append(want, x...), delimiter...)
			}
			for _, c := range compressions {
				o := Options{Compression: c, Delimiter: []byte(delimiter), EntryName: "8544d74e"}
				object := assemble(t, o, records)
				got, err := disassemble(o, object)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s: %d bytes, want %d: %v", c, len(got), len(want), err)
				}
				if again := assemble(t, o, records); !bytes.Equal(again, object) {
					t.Errorf("%s: other bytes the second time", c)
				}
			}
		}
	}
}

// TestBytesDoNotDependOnTheCut: a replay may hand over records otherwise batched.
func TestBytesDoNotDependOnTheCut(t *testing.T) {
	data := bytes.Repeat([]byte("The quick brown fox. "), 20_000)
	for _, c := range compressions {
		o := Options{Compression: c, EntryName: "x"}
		whole := assemble(t, o, [][]byte{data})
		var cut [][]byte
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%977)
			cut = append(cut, rest[:n])
			rest = rest[n:]
		}
		if !bytes.Equal(assemble(t, o, cut), whole) {
			t.Errorf("%s: bytes depend on how records are cut", c)
		}
	}
}

// TestBytesAreForEver pins small objects: framing and headers, not compression.
func TestBytesAreForEver(t *testing.T) {
	records := [][]byte{[]byte("a"), []byte("b")}
	for c, want := range map[Compression]string{
		Uncompressed: "a\nb\n",
		Snappy:       "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x06\x04\x0ca\nb\n",
		HadoopSnappy: "\x00\x00\x00\x04\x00\x00\x00\x06\x04\x0ca\nb\n",
	} {
		if got := assemble(t, Options{Compression: c, Delimiter: []byte("\n")}, records); string(got) != want {
			t.Errorf("%s: %q, want %q", c, got, want)
		}
	}
	if got := assemble(t, Options{Compression: Gzip}, nil); !bytes.HasPrefix(got, []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")) {
		t.Errorf("gzip header % x", got[:10])
	}
}

// TestReadersOfOthers has the programs that people have read the objects.
func TestReadersOfOthers(t *testing.T) {
	records := sample(rand.New(rand.NewPCG(5, 6)))
	want := bytes.Join(records, nil)
	dir := t.TempDir()
	for c, command := range map[Compression][]string{
		Gzip: {"gzip", "-dc"},
		Zip:  {"python3", "-c", "import sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); sys.stdout.buffer.write(z.read(z.namelist()[0]))"},
	} {
		t.Run(string(c), func(t *testing.T) {
			if _, err := exec.LookPath(command[0]); err != nil {
				t.Skipf("SKIPPED: %s is not installed", command[0])
			}
			path := filepath.Join(dir, string(c))
			if err := os.WriteFile(path, assemble(t, Options{Compression: c, EntryName: "x"}, records), 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			cmd := exec.Command(command[0], append(command[1:], path)...)
			cmd.Stdin = file
			got, err := cmd.Output()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, want %d: %v", len(got), len(want), err)
			}
		})
	}
	t.Run("snappy-java", func(t *testing.T) {
		jar := os.Getenv("TAPEHOUSE_SNAPPY_JAVA_JAR")
		if _, err := exec.LookPath("java"); err != nil || jar == "" {
			t.Skip("SKIPPED: no java, or TAPEHOUSE_SNAPPY_JAVA_JAR does not name org.xerial.snappy:snappy-java")
		}
		for _, c := range []Compression{Snappy, HadoopSnappy} {
			ours := assemble(t, Options{Compression: c}, records)
			for _, step := range []struct {
				what     string
				in, want []byte
			}{{"read", ours, want}, {"write", want, nil}} {
				cmd := exec.Command("java", "-cp", jar, "testdata/SnappyJava.java", step.what, string(c))
				cmd.Stdin = bytes.NewReader(step.in)
				got, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				if step.what == "write" { // and we read theirs
					if got, err = unsnap(got, c == HadoopSnappy); err != nil {
						t.Fatal(err)
					}
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s %s: %d bytes, want %d", step.what, c, len(got), len(want))
				}
			}
		}
	})
}

func TestRefuses(t *testing.T) {
	for _, s := range []string{"SNAPPY", "gzip", "ZSTD"} {
		if _, err := ParseCompression(s); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "HADOOP_SNAPPY") {
			t.Errorf("%s: %v", s, err)
		}
	}
	if c, err := ParseCompression(""); c != Uncompressed || err != nil {
		t.Error(c, err)
	}
	for _, o := range []Options{{}, {Compression: "x"}, {Compression: Zip}, {Compression: Zip, EntryName: "../x"}} {
		if _, err := NewWriter(io.Discard, o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestDelimiters(t *testing.T) {
	for in, want := range map[string]string{"": "\n", `\n`: "\n", "\n": "\n", `\r\n`: "\r\n", `\\n`: `\n`, "####": "####", `\t|`: "\t|"} {
		if got, err := ParseDelimiter(in); err != nil || string(got) != want {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
	if _, err := ParseDelimiter(strings.Repeat("x", 65)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestExtensions(t *testing.T) {
	for c, want := range map[Compression]string{Uncompressed: "", Gzip: ".gz", Zip: ".zip", Snappy: ".snappy", HadoopSnappy: ".hsnappy"} {
		if got := Extension(c, ""); got != want {
			t.Errorf("%s: %q, want %q", c, got, want)
		}
		if got := Extension(c, ".json.gz"); got != ".json.gz" {
			t.Errorf("%s: %q", c, got)
		}
	}
}

// failing fails from the n-th byte on.
type failing struct{ left int }

var errDisk = errors.New("disk is on fire")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestErrorsStay(t *testing.T) {
	noise := make([]byte, 200_000)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for _, c := range compressions {
		for _, left := range []int{0, 5, 100_000, 200_000} {
			w, err := NewWriter(&failing{left}, Options{Compression: c, EntryName: "x", Delimiter: []byte("\n")})
			if err == nil {
				err = errors.Join(w.Append(noise), w.Append(noise))
				if closed := w.Close(); closed == nil {
					t.Errorf("%s after %d bytes: Close forgets the error %v", c, left, err)
				} else {
					err = closed
				}
			}
			if !errors.Is(err, errDisk) {
				t.Errorf("%s after %d bytes: %v", c, left, err)
			}
		}
	}
	w, err := NewWriter(io.Discard, Options{Compression: Gzip})
	if err != nil || w.Close() != nil || w.Append(nil) == nil {
		t.Error("a closed object takes records")
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("abc"), uint16(1), byte(3), "\n")
	f.Add(bytes.Repeat([]byte("x"), 70_000), uint16(40_000), byte(4), "")
	f.Fuzz(func(t *testing.T, data []byte, cut uint16, which byte, delimiter string) {
		o := Options{Compression: compressions[int(which)%len(compressions)], Delimiter: []byte(delimiter), EntryName: "x"}
		at := min(int(cut), len(data))
		records := [][]byte{data[:at], data[at:]}
		object := assemble(t, o, records)
		got, err := disassemble(o, object)
		if delimiter == "" && !bytes.Equal(object, assemble(t, o, [][]byte{data})) {
			t.Fatalf("%s: bytes depend on the cut at %d", o.Compression, at)
		}
		if want := string(data[:at]) + delimiter + string(data[at:]) + delimiter; err != nil || string(got) != want {
			t.Fatalf("%s: %d bytes, want %d: %v", o.Compression, len(got), len(want), err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	records := sample(rand.New(rand.NewPCG(9, 9)))
	for _, c := range compressions {
		b.Run(string(c), func(b *testing.B) {
			b.SetBytes(int64(len(bytes.Join(records, nil))))
			for b.Loop() {
				assemble(b, Options{Compression: c, EntryName: "x"}, records)
			}
		})
	}
}
