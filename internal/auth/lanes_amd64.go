package auth

import "github.com/klauspost/cpuid/v2"

// twoLanes reports whether compress2 may be called.
var twoLanes = cpuid.CPU.Supports(cpuid.SHA, cpuid.SSSE3, cpuid.SSE4)

// compress2 compresses n blocks of 64 bytes into each of two states.
//
//go:noescape
func compress2(a, b *laneState, blocksA, blocksB *byte, n int, constants *[64]uint32)
