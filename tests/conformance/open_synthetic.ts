/**
 * Opens a synthetic model through a real file, as users open theirs.
 *
 * @module
 */
import type { OpenModel } from "../../runtime/model/model.ts";
import { openModel } from "../../runtime/model/open_model.ts";
import type { SyntheticSpec } from "../synthetic/spec.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";

/** A synthetic GGUF model. Its file is removed at once; the open handle keeps the data. */
export function openSynthetic(spec: SyntheticSpec = {}): OpenModel {
  const path = Deno.makeTempFileSync({ suffix: ".gguf" });
  Deno.writeFileSync(path, buildSyntheticGguf(spec));
  try {
    return openModel(path);
  } finally {
    try {
      Deno.removeSync(path);
    } catch {
      // Windows keeps open files; the temporary folder is cleaned by the system.
    }
  }
}
