import { assertEquals } from "@std/assert";
import { parseCpuInfo } from "./hardware.ts";

Deno.test("parseCpuInfo() reads the model and the vector features of an x86 processor", () => {
  const text = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx_vnni avx512_vnni\n";
  assertEquals(parseCpuInfo(text), { cpu: "AMD EPYC", features: ["avx2", "avx_vnni", "avx512f", "avx512_vnni"] });
});

Deno.test("parseCpuInfo() reads the features of an Arm processor, which has no model name", () => {
  const text = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp i8mm\n";
  assertEquals(parseCpuInfo(text), { cpu: "unknown", features: ["asimd", "asimddp", "i8mm"] });
});
