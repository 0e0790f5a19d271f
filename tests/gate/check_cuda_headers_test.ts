import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FakeDriver } from "../../ffi/cuda/fake_driver.ts";
import { compareHeader, type HeaderComparison, readComparisons } from "./check_cuda_headers.ts";

const HEADER = `
typedef struct { unsigned a; void *b; } Pair;
enum { FIRST = 7 };
int open_it(unsigned long long handle, const char *name);
`;
const GOOD: HeaderComparison = {
  header: "it.h",
  declarations: ["int open_it(unsigned long long handle, const char *other);"],
  numbers: { FIRST: 7, "sizeof(Pair)": 16, "offsetof(Pair, b)": 8 },
};

Deno.test({
  name: "compareHeader() accepts what agrees and names what does not",
  ignore: !FakeDriver.available,
  async fn() {
    const folder = Deno.makeTempDirSync();
    try {
      Deno.writeTextFileSync(join(folder, "it.h"), HEADER);
      const complaints = (change: Partial<HeaderComparison>) => compareHeader({ ...GOOD, ...change }, folder);
      assertEquals(await complaints({}), "");
      const declarations = ["int open_it(unsigned handle, const char *name);"];
      assert((await complaints({ declarations })).includes("conflicting types for"));
      assert((await complaints({ numbers: { FIRST: 8 } })).includes("FIRST is not 8"));
      assert((await complaints({ numbers: { "offsetof(Pair, b)": 4 } })).includes("offsetof(Pair, b) is not 4"));
      assert((await complaints({ numbers: { SECOND: 1 } })).includes("SECOND"));
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
});

Deno.test("readComparisons() finds the functions of every table", () => {
  const comparisons = readComparisons(fileURLToPath(new URL("../../", import.meta.url)));
  assertEquals(comparisons.map(({ header, declarations }) => [header, declarations.length > 10]), [
    ["cuda.h", true],
    ["nvrtc.h", true],
    ["cublasLt.h", true],
  ]);
});
