/**
 * Memory policies of simulated members: the built-in ones, and bad ones that must change nothing but speed.
 *
 * @module
 */
import { INFINITE_LLM_DEFAULTS, infiniteLlm } from "../../plugins/builtin/infinite_llm.ts";
import { localOnly } from "../../plugins/builtin/local_only.ts";
import { placeAligned } from "../../plugins/builtin/placement.ts";
import { spread } from "../../plugins/builtin/spread.ts";
import { MemoryHost } from "../../plugins/memory_host.ts";
import type { MemoryPlugin } from "../../plugins/types.ts";
import type { Random } from "./random.ts";
import type { PolicyKind } from "./scenario.ts";

/** What a policy stands on. */
export interface PolicyPorts {
  /** Clock of its process. */
  readonly now: () => number;
  /** Draws of the bad ones. */
  readonly random: Random;
  /** Whether bad policies behave: the world is healed. */
  readonly healed: () => boolean;
}

/** Opens a memory policy behind the real host. */
export function openPolicy(kind: PolicyKind, ports: PolicyPorts): MemoryHost {
  const { now, random } = ports;
  return new MemoryHost(pluginOf(kind, ports), {
    config: { ...INFINITE_LLM_DEFAULTS },
    now,
    random: () => random.unit(),
    log: () => {},
  });
}

function pluginOf(kind: PolicyKind, ports: PolicyPorts): MemoryPlugin {
  switch (kind) {
    case "infinite-llm":
      return infiniteLlm;
    case "spread":
      return spread;
    case "local-only":
      return localOnly;
    case "lying":
      return lying(ports);
    case "throwing":
      return throwing(ports);
    default:
      return kind satisfies never;
  }
}

/** Answers with whatever a type checker lets through, now and then with something sensible. */
function lying({ random, healed }: PolicyPorts): MemoryPlugin {
  const number = () => random.pick([-1, 0, 1, 2, 3, 99, NaN, Infinity, 0.5, 2 ** 53]);
  return {
    api: 1,
    kind: "memory",
    name: "lying",
    version: "1.0.0",
    create: () => ({}),
    place(_state, request, cluster, out) {
      if (healed()) return placeAligned(request, cluster, out);
      if (random.chance(0.4)) out.put(random.integer(0, cluster.members.length), request.segments);
      else for (let i = random.integer(0, 4); i > 0; i--) out.put(number(), number());
    },
    move(_state, cluster, out) {
      if (healed() || cluster.sequences.length === 0) return;
      for (let i = random.integer(0, 2); i > 0; i--) {
        const sensible = random.chance(0.7);
        const member = () => sensible ? random.integer(0, cluster.members.length - 1) : number();
        out.move(sensible ? random.integer(0, cluster.sequences.length - 1) : number(), {
          from: member(),
          to: member(),
          segments: sensible ? random.integer(1, 3) : number(),
          predictedGain: number(),
        });
      }
    },
    evict(_state, view, out) {
      for (let i = 0; i < view.length; i++) out[i] = random.chance(0.1) && !healed() ? NaN : random.unit();
    },
  };
}

/** Throws, more often than not. */
function throwing({ random, healed }: PolicyPorts): MemoryPlugin {
  const maybe = () => {
    if (!healed() && random.chance(0.6)) throw new Error("Cannot decide: it is in no mood");
  };
  return {
    api: 1,
    kind: "memory",
    name: "throwing",
    version: "1.0.0",
    create: () => ({}),
    place(_state, request, cluster, out) {
      maybe();
      placeAligned(request, cluster, out);
    },
    move: maybe,
    evict: (_state, view, out) => {
      maybe();
      for (let i = 0; i < view.length; i++) out[i] = i;
    },
  };
}
