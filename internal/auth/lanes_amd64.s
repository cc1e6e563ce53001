#include "textflag.h"

// Two SHA-256 compressions side by side, by the SHA extensions. One alone waits
// for the result of each SHA256RNDS2 (4 cycles, of which the unit is busy for
// 2); the other's instructions fill the gaps.
//
// A state is two registers, as the instruction has it: ABEF and CDGH. The
// message schedule of each lane turns through four registers of four words.

// LOAD reads four words of the block.
#define LOAD(at, block, m) \
	MOVOU at(block), m; \
	PSHUFB X15, m

// ROUNDS does four rounds with the words in m and the constants at AX+at.
#define ROUNDS(at, m, abef, cdgh) \
	MOVOU       at(AX), X0; \
	PADDD       m, X0; \
	SHA256RNDS2 X0, abef, cdgh; \
	PSHUFD      $0x0e, X0, X0; \
	SHA256RNDS2 X0, cdgh, abef

// EXPAND completes the four words behind m: next holds what SHA256MSG1 made.
#define EXPAND(prev, m, next, t) \
	MOVO       m, t; \
	PALIGNR    $4, prev, t; \
	PADDD      t, next; \
	SHA256MSG2 m, next

#define A(at, prev, m, next) \
	ROUNDS(at, m, X1, X2); \
	EXPAND(prev, m, next, X7); \
	SHA256MSG1 m, prev

#define B(at, prev, m, next) \
	ROUNDS(at, m, X8, X9); \
	EXPAND(prev, m, next, X14); \
	SHA256MSG1 m, prev

// func compress2(a, b *laneState, blocksA, blocksB *byte, n int, constants *[64]uint32)
TEXT ·compress2(SB), NOSPLIT, $64-48
	MOVQ a+0(FP), R8
	MOVQ b+8(FP), R9
	MOVQ blocksA+16(FP), DI
	MOVQ blocksB+24(FP), SI
	MOVQ n+32(FP), CX
	MOVQ constants+40(FP), AX
	TESTQ CX, CX
	JZ    done
	MOVQ $0x0405060700010203, R10 // big-endian words
	MOVQ $0x0c0d0e0f08090a0b, R11
	MOVQ R10, X15
	MOVQ R11, X0
	PUNPCKLQDQ X0, X15
	MOVOU 0(R8), X1
	MOVOU 16(R8), X2
	MOVOU 0(R9), X8
	MOVOU 16(R9), X9

block:
	MOVOU X1, s1-16(SP)
	MOVOU X2, s2-32(SP)
	MOVOU X8, s3-48(SP)
	MOVOU X9, s4-64(SP)

	LOAD(0, DI, X3)
	ROUNDS(0, X3, X1, X2)
	LOAD(0, SI, X10)
	ROUNDS(0, X10, X8, X9)
	LOAD(16, DI, X4)
	ROUNDS(16, X4, X1, X2)
	SHA256MSG1 X4, X3
	LOAD(16, SI, X11)
	ROUNDS(16, X11, X8, X9)
	SHA256MSG1 X11, X10
	LOAD(32, DI, X5)
	ROUNDS(32, X5, X1, X2)
	SHA256MSG1 X5, X4
	LOAD(32, SI, X12)
	ROUNDS(32, X12, X8, X9)
	SHA256MSG1 X12, X11
	LOAD(48, DI, X6)
	A(48, X5, X6, X3)
	LOAD(48, SI, X13)
	B(48, X12, X13, X10)

	A(64, X6, X3, X4)
	B(64, X13, X10, X11)
	A(80, X3, X4, X5)
	B(80, X10, X11, X12)
	A(96, X4, X5, X6)
	B(96, X11, X12, X13)
	A(112, X5, X6, X3)
	B(112, X12, X13, X10)
	A(128, X6, X3, X4)
	B(128, X13, X10, X11)
	A(144, X3, X4, X5)
	B(144, X10, X11, X12)
	A(160, X4, X5, X6)
	B(160, X11, X12, X13)
	A(176, X5, X6, X3)
	B(176, X12, X13, X10)
	A(192, X6, X3, X4)
	B(192, X13, X10, X11)

	ROUNDS(208, X4, X1, X2)
	EXPAND(X3, X4, X5, X7)
	ROUNDS(208, X11, X8, X9)
	EXPAND(X10, X11, X12, X14)
	ROUNDS(224, X5, X1, X2)
	EXPAND(X4, X5, X6, X7)
	ROUNDS(224, X12, X8, X9)
	EXPAND(X11, X12, X13, X14)
	ROUNDS(240, X6, X1, X2)
	ROUNDS(240, X13, X8, X9)

	MOVOU s1-16(SP), X0
	PADDD X0, X1
	MOVOU s2-32(SP), X0
	PADDD X0, X2
	MOVOU s3-48(SP), X0
	PADDD X0, X8
	MOVOU s4-64(SP), X0
	PADDD X0, X9
	ADDQ  $64, DI
	ADDQ  $64, SI
	DECQ  CX
	JNZ   block

	MOVOU X1, 0(R8)
	MOVOU X2, 16(R8)
	MOVOU X8, 0(R9)
	MOVOU X9, 16(R9)

done:
	RET
