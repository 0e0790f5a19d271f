/**
 * An engine over the test device, and transcripts that hold every request to the contract of its events.
 *
 * @module
 */
import { deepStrictEqual, ok } from "node:assert/strict";
import { TestPolicy } from "../../scheduler/test_policy.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import type { EngineRequest, RequestEvent, TokenLogprob } from "./request.ts";
import { TestDevice, type TestDeviceOptions, testVocabulary } from "./test_device.ts";

/** What one request told. */
export class Transcript {
  readonly events: RequestEvent[] = [];
  readonly ids: number[][] = [];
  readonly texts: string[] = [];
  readonly logprobs: TokenLogprob[][] = [];
  readonly choiceEnds: Extract<RequestEvent, { kind: "choice-end" }>[] = [];
  prompt: readonly (TokenLogprob | null)[] | undefined;
  end: Extract<RequestEvent, { kind: "end" }> | undefined;
  readonly #choices: number;

  constructor(choices = 1) {
    this.#choices = choices;
    for (let i = 0; i < choices; i++) {
      this.ids.push([]);
      this.texts.push("");
      this.logprobs.push([]);
    }
  }

  take(event: RequestEvent): void {
    deepStrictEqual(this.end, undefined, `a ${event.kind} event follows the end`);
    this.events.push(event);
    switch (event.kind) {
      case "prompt":
        deepStrictEqual(this.prompt, undefined, "a second prompt event");
        ok(this.ids.every((ids) => ids.length === 0), "the prompt event follows a token");
        this.prompt = event.logprobs;
        break;
      case "token":
        deepStrictEqual(this.choiceEnds[event.index], undefined, "a token follows the end of its choice");
        this.ids[event.index].push(...event.ids);
        this.texts[event.index] += event.text;
        this.logprobs[event.index].push(...event.logprobs ?? []);
        break;
      case "choice-end":
        deepStrictEqual(this.choiceEnds[event.index], undefined, "a second end of a choice");
        this.choiceEnds[event.index] = event;
        this.texts[event.index] += event.text;
        break;
      case "end":
        for (let i = 0; i < this.#choices; i++) ok(this.choiceEnds[i] !== undefined, `choice ${i} has no end`);
        deepStrictEqual(event.usage.completionTokens, this.ids.reduce((sum, ids) => sum + ids.length, 0));
        this.end = event;
        break;
      default:
        event satisfies never;
    }
  }
}

/** An engine with everything around it. */
export class TestEngine {
  readonly device: TestDevice;
  readonly policy = new TestPolicy();
  readonly engine: Engine;
  nowMs = 0;

  constructor(options: TestDeviceOptions & Partial<EngineOptions>) {
    this.device = new TestDevice(options);
    this.engine = new Engine({
      device: this.device,
      policy: this.policy,
      vocabulary: testVocabulary(),
      eos: [],
      maxModelLen: 200,
      maxBatch: 8,
      modelName: "test",
      modelDigest: "00",
      now: () => this.nowMs,
      random: () => 0.5,
      ...options,
    });
  }

  add(request: EngineRequest): Transcript {
    const transcript = new Transcript(request.n);
    this.engine.add(request, (event) => transcript.take(event));
    return transcript;
  }

  /** Runs a step and checks the books. */
  step(): boolean {
    const worked = this.engine.step();
    this.nowMs++;
    this.engine.checkIntegrity();
    return worked;
  }

  /** Runs until nothing is left; afterwards no block is owned. */
  drain(): void {
    for (let steps = 0; this.engine.busy; steps++) {
      ok(this.step(), "requests are live, yet a step did nothing");
      ok(steps <= 20_000, "the engine never comes to an end");
    }
    const { total, free, owned, cached } = this.engine.stats().blocks;
    deepStrictEqual([owned, free + cached], [0, total]);
  }
}

/** The transcript of a request that has a large engine to itself. */
export function undisturbed(request: EngineRequest, options: Partial<EngineOptions> = {}): Transcript {
  const test = new TestEngine({ blocks: 512, ...options });
  const transcript = test.add(request);
  test.drain();
  return transcript;
}
