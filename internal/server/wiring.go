package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

func (s *Server) openViews(context.Context) error { return nil }
func (s *Server) openClose(context.Context) error { return nil }
func (s *Server) openHTTP(l net.Listener, c *tls.Config) error {
	s.http = s.serveHTTP("http", l, http.NotFoundHandler(), c)
	return nil
}
