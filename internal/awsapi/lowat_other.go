//go:build !linux

package awsapi

import (
	"context"
	"net"
)

// ConnContext is for http.Server. Here the kernel is told nothing.
func ConnContext(ctx context.Context, _ net.Conn) context.Context { return ctx }

type lowWater struct{}

func lowWaterOf(context.Context) *lowWater { return nil }

func (*lowWater) want(int) {}
