// How a row is sampled, as the host writes it (kernels/sample/sample_rows.ts).
#pragma once
#include "elements.cuh"
#include "top.cuh"

enum Mode { GREEDY = 0, DRAW = 1, HOST = 2 };

// topK of a row that keeps all tokens.
#define ALL_TOKENS 0xffffffffu

struct Row {
  u32 mode;
  u32 topK;
  double inverseTemperature;
  double topP;
  double depth;
  u32 seed[2];
  u64 accepted;
  i32 slot;
  u32 tag;
  u32 unused[2];
};
static_assert(sizeof(Row) == 64, "the host writes rows of 64 bytes");
