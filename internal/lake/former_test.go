package lake

import (
	"testing"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

func TestFormerLocations(t *testing.T) {
	m := fsys.NewMem()
	for _, uri := range []string{"file:///old/lake", "file:///older", "file:///old/lake"} {
		if err := NoteFormer(m, "/new/lake", uri); err != nil {
			t.Fatal(err)
		}
	}
	if err := NoteFormer(m, "/new/lake", "s3://b/x"); err == nil {
		t.Error("a location on S3 was noted")
	}
	l, err := OpenLocal(m, "/new/lake")
	if err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]string{
		"file:///new/lake/n/t/f": "n/t/f", "file:///old/lake/n/t/f": "n/t/f", "/older/n/f": "n/f", "file:/old/lake/a": "a",
	} {
		if name, ok := l.Name(uri); !ok || name != want {
			t.Errorf("%s is %q, %t; want %q", uri, name, ok, want)
		}
	}
	for _, uri := range []string{"file:///old/lakes/x", "file:///old/lake/../x", "file:///elsewhere/x", "file:///old/lake"} {
		if name, ok := l.Name(uri); ok {
			t.Errorf("%s is %q", uri, name)
		}
	}
}
