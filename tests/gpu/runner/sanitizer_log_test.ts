import { assertEquals } from "@std/assert";
import { readSanitizerLogs } from "./sanitizer_log.ts";

const MEMCHECK = `running 3 tests from ./kernels/x/x_cuda_test.ts
========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at attend_decode+0x1230
=========     by thread (0,0,0) in block (0,0,0)
=========     Address 0x7f0000000100 is out of bounds
=========     Saved host backtrace up to driver entry point at kernel launch time
=========         Host Frame: [0x123] in libcuda.so.1
=========
========= Invalid __global__ read of size 4 bytes
=========     at attend_decode+0x1230
=========     by thread (1,0,0) in block (0,0,0)
=========
========= Program hit CUDA_ERROR_INVALID_VALUE (error 1) due to "invalid argument" on CUDA API call to cuMemAlloc_v2.
=========
========= ERROR SUMMARY: 2 errors
`;

const RACECHECK = `========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at sample+0x10 in sample.cu
=========     and Read access at sample+0x40 in sample.cu [64 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
`;

Deno.test("readSanitizerLogs() counts what the summaries say and tells each place once", () => {
  assertEquals(readSanitizerLogs([MEMCHECK]), {
    errors: 2,
    findings: [{ what: "Invalid __global__ read of size 4 bytes", where: "attend_decode+0x1230", count: 2 }],
  });
  const { errors, findings } = readSanitizerLogs([RACECHECK, MEMCHECK]);
  assertEquals([errors, findings.length], [3, 2]);
  assertEquals(findings[0].what, "Error: Race reported between Write access at sample+0x10 in sample.cu");
});

Deno.test("readSanitizerLogs() knows a clean run, and one that did not end", () => {
  assertEquals(readSanitizerLogs(["========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"]), {
    errors: 0,
    findings: [],
  });
  assertEquals(readSanitizerLogs(["========= COMPUTE-SANITIZER\n"]).errors, undefined);
  assertEquals(readSanitizerLogs([]).errors, undefined);
});
