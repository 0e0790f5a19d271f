/**
 * Work of a stream that was recorded to be launched at once.
 *
 * @module
 */
import { type ContextScope, OwnedHandle } from "./owned_handle.ts";
import type { CudaStream } from "./stream.ts";

/** The driver's handle of an executable graph. */
export type GraphHandle = bigint & { readonly brand: "CUgraphExec" };

/** A recorded graph, ready to be launched; destroyed on dispose. `CudaStream.capture` makes these. */
export class CudaGraph extends OwnedHandle<GraphHandle> {
  /** Kernels, copies and fills in it. */
  readonly nodes: number;

  /** Takes an executable graph of the driver; {@linkcode instantiate} makes these. */
  constructor(scope: ContextScope, handle: GraphHandle, nodes: number) {
    super(scope, "CUDA graph", handle);
    this.nodes = nodes;
  }

  /** Makes a captured `CUgraph` executable and destroys the original. @throws {CudaError} */
  static instantiate(scope: ContextScope, captured: bigint): CudaGraph {
    const { driver } = scope;
    try {
      const nodes = new BigUint64Array(1);
      driver.check(driver.symbols.cuGraphGetNodes(captured, null, nodes), {
        call: "cuGraphGetNodes",
        context: "count a graph's nodes",
      });
      const handle = new BigUint64Array(1);
      const code = driver.symbols.cuGraphInstantiateWithFlags(handle, captured, 0n);
      driver.check(code, {
        call: "cuGraphInstantiateWithFlags",
        context: `make a graph of ${nodes[0]} nodes executable`,
      });
      return new CudaGraph(scope, handle[0] as GraphHandle, Number(nodes[0]));
    } finally {
      driver.symbols.cuGraphDestroy(captured);
    }
  }

  /** Brings it to the device, so that its first launch is as fast as the later ones. @throws {CudaError} */
  upload(stream: CudaStream): void {
    const { driver } = this.scope;
    const code = driver.symbols.cuGraphUpload(this.handle, stream.handle);
    driver.check(code, { call: "cuGraphUpload", context: `upload a graph of ${this.nodes} nodes` });
  }

  /** Enqueues all of it on `stream`. @throws {CudaError} @throws {ReferenceError} */
  launch(stream: CudaStream): void {
    const { driver } = this.scope;
    const code = driver.symbols.cuGraphLaunch(this.handle, stream.handle);
    if (code !== 0) {
      throw driver.error(code, { call: "cuGraphLaunch", context: `launch a graph of ${this.nodes} nodes` });
    }
  }

  protected override free(handle: GraphHandle): void {
    const { driver } = this.scope;
    driver.check(driver.symbols.cuGraphExecDestroy(handle), { call: "cuGraphExecDestroy", context: "destroy a graph" });
  }
}
