// Stands for libcublasLt.so in tests: notes what a product is asked for, and offers three algorithms, one of which failed.
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char noted[1 << 14];
static size_t noted_bytes;
static int live;
static int none;
static int failing;

static int note(const char *format, ...) {
  va_list args;
  va_start(args, format);
  noted_bytes += vsnprintf(noted + noted_bytes, sizeof noted - noted_bytes, format, args);
  va_end(args);
  return 0;
}

int fake_blas_take_notes(char *out, int bytes) {
  int count = (int)noted_bytes < bytes ? (int)noted_bytes : bytes;
  memcpy(out, noted, count);
  noted_bytes = 0;
  return count;
}
int fake_blas_live(void) { return live; }
void fake_blas_none(int value) { none = value; }
void fake_blas_fail(int status) { failing = status; }

typedef struct { int type; uint64_t rows, cols; int64_t ld; } Layout;
typedef struct { int compute, scale, transpose_a; } Desc;
typedef struct { uint64_t workspace; uint32_t alignment; } Preference;
typedef struct {
  uint64_t algo[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
} Result;

const char *cublasLtGetStatusName(int status) {
  return status == 7 ? "CUBLAS_STATUS_INVALID_VALUE" : "CUBLAS_STATUS_OTHER";
}
size_t cublasLtGetVersion(void) { return 130101; }
int cublasLtCreate(uint64_t *handle) { live++; *handle = 0xb1a5; return 0; }
int cublasLtDestroy(uint64_t handle) { live--; return 0; }
int cublasLtMatmulDescCreate(Desc **desc, int compute, int scale) {
  live++;
  *desc = calloc(1, sizeof(Desc));
  (*desc)->compute = compute;
  (*desc)->scale = scale;
  return 0;
}
int cublasLtMatmulDescSetAttribute(Desc *desc, int attribute, const void *value, size_t bytes) {
  if (attribute != 3 || bytes != 4) return 7;
  memcpy(&desc->transpose_a, value, 4);
  return 0;
}
int cublasLtMatmulDescDestroy(Desc *desc) { live--; free(desc); return 0; }
int cublasLtMatrixLayoutCreate(Layout **layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  live++;
  *layout = malloc(sizeof(Layout));
  **layout = (Layout){type, rows, cols, ld};
  return 0;
}
int cublasLtMatrixLayoutDestroy(Layout *layout) { live--; free(layout); return 0; }
int cublasLtMatmulPreferenceCreate(Preference **preference) {
  live++;
  *preference = calloc(1, sizeof(Preference));
  return 0;
}
int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *value, size_t bytes) {
  if (attribute == 1 && bytes == 8) memcpy(&preference->workspace, value, 8);
  else if (attribute >= 5 && attribute <= 8 && bytes == 4) memcpy(&preference->alignment, value, 4);
  else return 7;
  return 0;
}
int cublasLtMatmulPreferenceDestroy(Preference *preference) { live--; free(preference); return 0; }
int cublasLtMatmulAlgoGetHeuristic(uint64_t handle, Desc *desc, Layout *a, Layout *b, Layout *c, Layout *d,
                                   Preference *preference, int most, Result *results, int *count) {
  *count = none ? 0 : 3;
  for (int i = 0; i < *count && i < most; i++) {
    memset(&results[i], 0, sizeof(Result));
    results[i].algo[0] = 100 + i;
    results[i].state = i == 1 ? 15 : 0;
  }
  return note("ask workspace %llu align %u\n", (unsigned long long)preference->workspace, preference->alignment);
}
int cublasLtMatmul(uint64_t handle, Desc *desc, const float *alpha, uint64_t a, Layout *al, uint64_t b, Layout *bl,
                   const float *beta, uint64_t c, Layout *cl, uint64_t d, Layout *dl, const uint64_t *algo,
                   uint64_t workspace, size_t bytes, uint64_t stream) {
  if (failing != 0) return failing;
  note("compute %d scale %d transpose %d alpha %g beta %g algo %llu\n", desc->compute, desc->scale, desc->transpose_a,
       *alpha, *beta, (unsigned long long)*algo);
  const Layout *layouts[] = {al, bl, cl, dl};
  const uint64_t addresses[] = {a, b, c, d};
  for (int i = 0; i < 4; i++)
    note("%c at %llu type %d %llu x %llu ld %lld\n", 'A' + i, (unsigned long long)addresses[i], layouts[i]->type,
         (unsigned long long)layouts[i]->rows, (unsigned long long)layouts[i]->cols, (long long)layouts[i]->ld);
  return note("workspace %d of %zu\n", workspace % 256 == 0, bytes);
}
