import { assert, assertEquals, assertThrows } from "@std/assert";
import { dirname, join } from "node:path";
import { CudaLibraries } from "./libraries.ts";
import { librarySearchPath } from "./search_path.ts";

/** A directory tree with empty files at the given paths, gone at the end. */
class Tree implements Disposable {
  readonly root = Deno.makeTempDirSync();

  constructor(files: Readonly<Record<string, string>> | readonly string[]) {
    const texts = files instanceof Array ? files.map((path) => [path, ""]) : Object.entries(files);
    for (const [path, text] of texts) {
      Deno.mkdirSync(dirname(join(this.root, path)), { recursive: true });
      Deno.writeTextFileSync(join(this.root, path), text);
    }
  }

  path(path: string): string {
    return join(this.root, path);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }
}

const NO_VARIABLES = () => undefined;

Deno.test("CudaLibraries.find() finds driver, toolkit and Python packages where they usually are", () => {
  using tree = new Tree([
    "usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "usr/lib/x86_64-linux-gnu/libcuda.so",
    "usr/local/cuda-12.8/lib64/libnvrtc.so.12",
    "usr/local/cuda-12.8/lib64/libnvrtc-builtins.so.12.8",
    "usr/local/cuda-12.8/lib64/libnvrtc-builtins.so.12.8.93",
    "usr/local/lib/python3.12/dist-packages/nvidia/cu13/lib/libcublasLt.so.13",
    "usr/local/lib/python3.12/dist-packages/nvidia/cu13/lib/libcublas.so.13",
  ]);
  const libraries = CudaLibraries.find({ root: tree.root, env: NO_VARIABLES, arch: "x86_64" });
  assertEquals(libraries.get("driver").path, tree.path("usr/lib/x86_64-linux-gnu/libcuda.so.1"));
  assertEquals(libraries.get("nvrtc"), {
    name: "nvrtc",
    path: tree.path("usr/local/cuda-12.8/lib64/libnvrtc.so.12"),
    major: 12,
    companions: [tree.path("usr/local/cuda-12.8/lib64/libnvrtc-builtins.so.12.8")],
  });
  assertEquals(
    libraries.get("blasLt").path,
    tree.path("usr/local/lib/python3.12/dist-packages/nvidia/cu13/lib/libcublasLt.so.13"),
  );
  assertEquals(libraries.paths.length, 4);
});

Deno.test("CudaLibraries.find() looks first where the user says, then in CUDA_HOME, LD_LIBRARY_PATH and virtual environments", () => {
  const places = [
    "own/libnvrtc.so.13",
    "wheels/nvidia/cu13/lib/libnvrtc.so.13",
    "toolkit/lib64/libnvrtc.so.13",
    "loader/libnvrtc.so.13",
    "venv/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.13",
    "home/.local/lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.13",
  ];
  using tree = new Tree(places);
  const variables: Readonly<Record<string, string>> = {
    INFINITE_LLM_CUDA_PATH: `${tree.path("own")}:${tree.path("wheels")}`,
    CUDA_HOME: tree.path("toolkit"),
    LD_LIBRARY_PATH: `:relative:${tree.path("loader")}`,
    PATH: `/nowhere:${tree.path("venv/bin")}`,
    HOME: tree.path("home"),
  };
  const { all } = CudaLibraries.find({ root: tree.path("empty"), env: (name) => variables[name] });
  assertEquals(all.map(({ path }) => path), places.map((place) => tree.path(place)));
});

Deno.test("CudaLibraries.find() reads the loader's configuration with its includes", () => {
  using tree = new Tree({
    "etc/ld.so.conf": "# comment\ninclude ld.so.conf.d/*.conf\n/opt/direct # with a comment\ninclude ld.so.conf\n",
    "etc/ld.so.conf.d/nvidia.conf": "/opt/driver\n",
    "etc/ld.so.conf.d/readme": "/opt/not\n",
    "opt/driver/libcuda.so.1": "",
    "opt/not/libcuda.so.1": "",
    "opt/direct/libnvrtc.so.13": "",
  });
  const libraries = CudaLibraries.find({ root: tree.root, env: NO_VARIABLES });
  assertEquals(libraries.all.map(({ path }) => path), [
    tree.path("opt/driver/libcuda.so.1"),
    tree.path("opt/direct/libnvrtc.so.13"),
  ]);
});

Deno.test("CudaLibraries.get() takes the newest version that the driver can load", () => {
  using tree = new Tree([
    "usr/lib64/libnvrtc.so.12",
    "usr/local/cuda-13/lib64/libnvrtc.so.13",
    "usr/local/cuda/lib64/libnvrtc.so.13",
  ]);
  const libraries = CudaLibraries.find({ root: tree.root, env: NO_VARIABLES });
  assertEquals(libraries.get("nvrtc").path, tree.path("usr/local/cuda-13/lib64/libnvrtc.so.13"));
  assertEquals(libraries.paths.toSorted(), [
    tree.path("usr/lib64/libnvrtc.so.12"),
    tree.path("usr/local/cuda-13/lib64/libnvrtc.so.13"),
  ]);
  assertEquals(libraries.get("nvrtc", { maxMajor: 12 }).path, tree.path("usr/lib64/libnvrtc.so.12"));
  assertEquals(libraries.tryGet("nvrtc", { maxMajor: 11 }), undefined);
  assertThrows(
    () => libraries.get("nvrtc", { maxMajor: 11 }),
    Deno.errors.NotFound,
    "which the driver (CUDA 11) is too old for",
  );
});

Deno.test("CudaLibraries.get() says what is missing, where it looked and what to install", () => {
  using tree = new Tree([]);
  const libraries = CudaLibraries.find({ root: tree.root, env: NO_VARIABLES, arch: "aarch64" });
  const message = (name: "driver" | "nvrtc" | "blasLt") =>
    assertThrows(() => libraries.get(name), Deno.errors.NotFound).message;
  assert(message("driver").startsWith("Cannot find the NVIDIA driver: wanted libcuda.so.1, found none in "));
  assert(message("driver").includes(tree.path("usr/lib/aarch64-linux-gnu")));
  assert(message("driver").includes("install the NVIDIA driver"));
  assert(
    message("nvrtc").includes("the Python package nvidia-cuda-nvrtc, or name its directory in INFINITE_LLM_CUDA_PATH"),
  );
  assert(message("blasLt").includes("the Python package nvidia-cublas"));
  assertEquals(libraries.paths, []);
});

Deno.test("librarySearchPath() names every directory once and only absolute ones", () => {
  const path = librarySearchPath({
    env: (name) => name === "LD_LIBRARY_PATH" ? "/usr/lib64:lib:/usr/lib64" : undefined,
  });
  assertEquals(new Set(path).size, path.length);
  assertEquals(path.filter((each) => !each.startsWith("/")), []);
  assertEquals(path[0], "/usr/lib64");
});
