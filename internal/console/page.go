package console

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"time"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"gathered": gathered,
	"at": func(t any) string {
		switch t := t.(type) {
		case time.Time:
			return t.UTC().Format("2006-01-02 15:04:05Z")
		case *time.Time:
			if t != nil {
				return t.UTC().Format("2006-01-02 15:04:05Z")
			}
		}
		return ""
	},
}).Parse(pageText))

func (h *Handler) index(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/status", http.StatusFound)
}

// page is the status of everything, for a browser. It has no script and loads
// nothing.
func (h *Handler) page(w http.ResponseWriter, r *http.Request) {
	var p struct {
		Info   Info
		Status Status
		Now    time.Time
	}
	p.Now = time.Now()
	var err error
	if p.Info, err = h.o.Backend.Info(r.Context()); err == nil {
		p.Status, err = h.o.Backend.Status(r.Context(), StatusRequest{TradeDate: r.URL.Query().Get("trade_date")})
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, p); err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_, _ = w.Write(out.Bytes()) // a client that left needs no answer
}
