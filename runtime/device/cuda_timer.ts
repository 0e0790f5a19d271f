/**
 * Takes the GPU's time for work, to choose between ways to do it.
 *
 * @module
 */
import type { CudaContext, CudaEvent, CudaStream } from "../../ffi/cuda/cuda.ts";

/** Measurements, of which the least counts. */
const RUNS = 2;

/** A stop watch on one stream. */
export class CudaTimer implements Disposable {
  readonly #stream: CudaStream;
  readonly #begin: CudaEvent;
  readonly #end: CudaEvent;

  /** Makes its marks. */
  constructor(context: CudaContext, stream: CudaStream) {
    using opened = new DisposableStack();
    this.#stream = stream;
    this.#begin = opened.use(context.event({ timing: true }));
    this.#end = opened.use(context.event({ timing: true }));
    opened.move();
  }

  /** Milliseconds of what `body` enqueues, as a graph runs it: what the host needs to enqueue it does not count. */
  ms(body: () => void): number {
    // What libraries load when it is first used cannot be captured.
    body();
    using graph = this.#stream.capture(body);
    graph.launch(this.#stream);
    let least = Infinity;
    for (let run = 0; run < RUNS; run++) {
      this.#stream.record(this.#begin);
      graph.launch(this.#stream);
      this.#stream.record(this.#end);
      this.#stream.synchronize();
      least = Math.min(least, this.#end.msSince(this.#begin));
    }
    return least;
  }

  /** Gives the marks back. */
  [Symbol.dispose](): void {
    this.#begin[Symbol.dispose]();
    this.#end[Symbol.dispose]();
  }
}
