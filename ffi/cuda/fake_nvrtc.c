// Stands for libnvrtc.so in tests: the "machine code" of a program is its source, its options and its headers, as text.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  char code[1 << 15];
  char log[256];
} Program;

const char *nvrtcGetErrorString(int result) { return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_OTHER"; }
int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }
int nvrtcGetNumSupportedArchs(int *count) { *count = 2; return 0; }
int nvrtcGetSupportedArchs(int *archs) { archs[0] = 80; archs[1] = 90; return 0; }
int nvrtcCreateProgram(Program **program, const char *source, const char *name, int count, const char *const *headers,
                       const char *const *names) {
  Program *p = *program = calloc(1, sizeof(Program));
  size_t used = snprintf(p->code, sizeof p->code, "%s\n%s\n", name, source);
  for (int i = 0; i < count; i++)
    used += snprintf(p->code + used, sizeof p->code - used, "header %s: %s\n", names[i], headers[i]);
  return 0;
}
int nvrtcDestroyProgram(Program **program) { free(*program); *program = NULL; return 0; }
int nvrtcCompileProgram(Program *p, int count, const char *const *options) {
  if (strstr(p->code, "BROKEN") != NULL) {
    strcpy(p->log, "line 1: broken\n");
    return 6;
  }
  strcpy(p->log, "fine\n");
  size_t used = strlen(p->code);
  for (int i = 0; i < count; i++) used += snprintf(p->code + used, sizeof p->code - used, "option %s\n", options[i]);
  return 0;
}
int nvrtcGetCUBINSize(Program *p, size_t *bytes) { *bytes = strlen(p->code); return 0; }
int nvrtcGetCUBIN(Program *p, char *cubin) { memcpy(cubin, p->code, strlen(p->code)); return 0; }
int nvrtcGetProgramLogSize(Program *p, size_t *bytes) { *bytes = strlen(p->log) + 1; return 0; }
int nvrtcGetProgramLog(Program *p, char *log) { strcpy(log, p->log); return 0; }
