import { assert, assertEquals, assertThrows } from "@std/assert";
import { CudaError } from "./error.ts";
import { fakeTest } from "./test_fake.ts";
import { Nvrtc } from "./nvrtc.ts";

fakeTest("Nvrtc.compile() hands over source, headers and options", (fake) => {
  using nvrtc = Nvrtc.open(fake.libraries.get("nvrtc"));
  assertEquals(nvrtc.version, { major: 13, minor: 0 });
  assertEquals(nvrtc.architectures(), [80, 90]);
  const { cubin, log } = nvrtc.compile({
    name: "scale.cu",
    source: "void scale();",
    options: ["-arch=sm_90a", "-DN=4"],
    headers: { "one.cuh": "int one;", "two.cuh": "int two;" },
  });
  assertEquals(
    new TextDecoder().decode(cubin),
    "scale.cu\nvoid scale();\nheader one.cuh: int one;\nheader two.cuh: int two;\noption -arch=sm_90a\noption -DN=4\n",
  );
  assertEquals(log, "fine");
  assert(nvrtc.compile({ name: "bare.cu", source: "", options: [] }).cubin.length > 0);
});

fakeTest("Nvrtc.compile() throws the compiler's log with the kernel's name", (fake) => {
  using nvrtc = Nvrtc.open(fake.libraries.get("nvrtc"));
  const error = assertThrows(() => nvrtc.compile({ name: "bad.cu", source: "BROKEN", options: [] }), CudaError);
  assertEquals(
    error.message,
    "Cannot compile bad.cu: nvrtcCompileProgram returned NVRTC_ERROR_COMPILATION (6): line 1: broken",
  );
});

fakeTest("Nvrtc dispose is idempotent and ends it", (fake) => {
  const nvrtc = Nvrtc.open(fake.libraries.get("nvrtc"));
  nvrtc[Symbol.dispose]();
  nvrtc[Symbol.dispose]();
  assertThrows(() => nvrtc.architectures(), ReferenceError, "Cannot use the CUDA compiler: it is closed");
});

fakeTest("Nvrtc.open() closes what it loaded when the compiler cannot be loaded", (fake) => {
  const { path } = fake.libraries.get("blasLt");
  const broken = { name: "nvrtc", path, major: 13, companions: [fake.libraries.get("driver").path] } as const;
  assertThrows(() => Nvrtc.open(broken), Error, `Cannot open ${path}`);
});
