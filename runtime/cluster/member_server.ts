/**
 * Runs a member behind the port of an engine Worker.
 *
 * @module
 */
import { type EngineReply, errorParts, type KeyedEvent } from "../engine/engine_protocol.ts";
import type { ServedCommand } from "../engine/engine_server.ts";
import type { Member } from "./member.ts";

/** Serves a member, which runs its engine itself. */
export class MemberServer {
  readonly #member: Member;
  readonly #send: (reply: EngineReply) => void;
  readonly #ids = new Map<number, string>();
  readonly #closed = Promise.withResolvers<void>();
  #outbox: KeyedEvent[] = [];

  /** Serves `member`; replies go to `send`. */
  constructor(member: Member, send: (reply: EngineReply) => void) {
    this.#member = member;
    this.#send = send;
  }

  /** Serves until `close`, which cancels what is live, or until {@linkcode fail}. */
  run(): Promise<void> {
    return this.#closed.promise;
  }

  /** The member is broken: {@linkcode run} rejects. */
  fail(error: unknown): void {
    this.#closed.reject(error);
  }

  /** Takes a command in. */
  take(command: ServedCommand): void {
    switch (command.kind) {
      case "add":
        this.#add(command);
        break;
      case "cancel": {
        const id = this.#ids.get(command.key);
        if (id !== undefined) this.#member.cancel(id);
        break;
      }
      case "stats": {
        const stats = this.#member.engine?.stats();
        if (stats !== undefined) this.#send({ kind: "stats", call: command.call, stats });
        break;
      }
      case "report":
        this.#member.report((report) => this.#send({ kind: "report", call: command.call, report }));
        break;
      case "operate":
        this.#member.operate(command.command, (result) => {
          this.#send({ kind: "operated", call: command.call, result });
        });
        break;
      case "leave":
        this.#member.leave({
          timeoutMs: command.timeoutMs,
          done: () => this.#send({ kind: "left", call: command.call }),
        });
        break;
      case "close":
        for (const id of [...this.#ids.values()]) this.#member.cancel(id);
        this.#flush();
        this.#closed.resolve();
        break;
      default:
        command satisfies never;
    }
  }

  #add({ key, request }: Extract<ServedCommand, { kind: "add" }>): void {
    try {
      this.#ids.set(key, request.id);
      this.#member.submit(request, {
        event: (event) => {
          if (event.kind === "end") this.#ids.delete(key);
          // The events of one step travel together.
          if (this.#outbox.length === 0) void Promise.resolve().then(() => this.#flush());
          this.#outbox.push({ key, event });
        },
        rejected: (error) => {
          this.#ids.delete(key);
          this.#send({ kind: "rejected", key, error: errorParts(error) });
        },
      });
    } catch (error) {
      this.#ids.delete(key);
      this.#send({ kind: "rejected", key, error: errorParts(error) });
    }
  }

  #flush(): void {
    if (this.#outbox.length === 0) return;
    const events = this.#outbox;
    this.#outbox = [];
    this.#send({ kind: "events", events });
  }
}
