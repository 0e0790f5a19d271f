/**
 * Lint rules of the project, loaded by `deno lint` (see `deno.json`).
 *
 * - `house/no-module-state`: no `let` or `var` at the top of a module, so that two engines can live in one process.
 * - `house/no-dlopen`: native libraries are opened in `ffi/` only.
 * - `house/hash-private`: `#name` instead of the `private` keyword.
 * - `house/error-message`: messages of thrown errors begin with a capital letter and end without a full stop.
 * - `house/ports-only`: what runs in the simulator takes clock, randomness, timers and links from outside.
 *
 * @module
 */

const EXEMPT = /_(?:test|bench)\.ts$/;

function messageOf(node: Deno.lint.NewExpression): { text: string; open: boolean } | undefined {
  const [argument] = node.arguments;
  if (argument?.type === "Literal" && typeof argument.value === "string") {
    return { text: argument.value, open: false };
  }
  if (argument?.type === "TemplateLiteral") {
    const { quasis } = argument;
    const first = quasis[0].cooked;
    const last = quasis[quasis.length - 1].cooked;
    return quasis.length === 1 ? { text: first, open: false } : { text: `${first}\u0000${last}`, open: true };
  }
  return undefined;
}

/** Code that the simulator runs: no file that opens the real outside, no test. */
function isSimulated(filename: string): boolean {
  const path = filename.replaceAll("\\", "/");
  if (EXEMPT.test(path) || /\/test_[^/]*$/.test(path)) return false;
  if (/\/scheduler\/(?!links\/)/.test(path)) return true;
  return /\/runtime\/cluster\/(?!open_[^/]*$|[^/]*_worker\.ts$)/.test(path);
}

/** Globals that must not be called or constructed there. */
const AMBIENT_CALLS = new Set([
  "setTimeout",
  "setInterval",
  "setImmediate",
  "queueMicrotask",
  "fetch",
  "Date",
  "WebSocket",
  "WebSocketStream",
  "Worker",
  "BroadcastChannel",
]);

/** Members of globals that must not be used there; `*` stands for all of them. */
const AMBIENT_MEMBERS: Readonly<Record<string, readonly string[]>> = {
  Date: ["*"],
  Deno: ["*"],
  Math: ["random"],
  Atomics: ["wait", "waitAsync"],
  crypto: ["getRandomValues", "randomUUID", "subtle"],
  performance: ["now", "timeOrigin", "mark", "measure"],
  navigator: ["*"],
  globalThis: ["*"],
};

/** Modules that must not be imported there, nor what draws from `node:crypto`. */
const AMBIENT_MODULES =
  /^node:(?:net|tls|dgram|dns|https?|http2|timers|process|os|fs|child_process|worker_threads|perf_hooks|cluster)(?:\/|$)/;
const RANDOM_CRYPTO = /^(?:all of it$|random|generate|webcrypto$|subtle$|getRandomValues$)/;

function reportAmbient(context: Deno.lint.RuleContext, node: Deno.lint.Node, what: string): void {
  context.report({ node, message: `The simulator runs this code: take ${what} from outside` });
}

/** The project's lint plugin. */
const plugin: Deno.lint.Plugin = {
  name: "house",
  rules: {
    "no-module-state": {
      create(context) {
        return {
          Program(node) {
            if (EXEMPT.test(context.filename)) return;
            for (const statement of node.body) {
              const declaration = statement.type === "ExportNamedDeclaration" ? statement.declaration : statement;
              if (declaration?.type === "VariableDeclaration" && declaration.kind !== "const") {
                context.report({
                  node: declaration,
                  message: "Module state: keep it in an instance, so that two engines can live in one process",
                });
              }
            }
          },
        };
      },
    },
    "no-dlopen": {
      create(context) {
        return {
          "MemberExpression[object.name='Deno'][property.name='dlopen']"(node: Deno.lint.MemberExpression) {
            if (/[\\/]ffi[\\/]/.test(context.filename)) return;
            context.report({ node, message: "Native libraries are opened in ffi/ only" });
          },
        };
      },
    },
    "hash-private": {
      create(context) {
        return {
          PropertyDefinition(node) {
            if (node.accessibility === "private") {
              context.report({ node, message: "Use #name instead of the private keyword" });
            }
          },
          MethodDefinition(node) {
            if (node.accessibility === "private") {
              context.report({ node, message: "Use #name instead of the private keyword" });
            }
          },
        };
      },
    },
    "ports-only": {
      create(context) {
        if (!isSimulated(context.filename)) return {};
        return {
          CallExpression({ callee }) {
            if (callee.type === "Identifier" && AMBIENT_CALLS.has(callee.name)) {
              reportAmbient(context, callee, callee.name);
            }
          },
          NewExpression({ callee }) {
            if (callee.type === "Identifier" && AMBIENT_CALLS.has(callee.name)) {
              reportAmbient(context, callee, callee.name);
            }
          },
          MemberExpression(node) {
            const { object, property } = node;
            if (object.type !== "Identifier" || !Object.hasOwn(AMBIENT_MEMBERS, object.name)) return;
            const banned = AMBIENT_MEMBERS[object.name];
            const name = property.type === "Identifier" ? property.name : "";
            if (banned.includes("*") || banned.includes(name)) reportAmbient(context, node, `${object.name}.${name}`);
          },
          ImportDeclaration(node) {
            const { value } = node.source;
            if (AMBIENT_MODULES.test(value)) reportAmbient(context, node, value);
            if (value !== "node:crypto") return;
            for (const specifier of node.specifiers) {
              const name = specifier.type === "ImportSpecifier" && specifier.imported.type === "Identifier"
                ? specifier.imported.name
                : "all of it";
              if (RANDOM_CRYPTO.test(name)) reportAmbient(context, specifier, `${value}: ${name}`);
            }
          },
        };
      },
    },
    "error-message": {
      create(context) {
        return {
          ThrowStatement(node) {
            if (EXEMPT.test(context.filename) || node.argument?.type !== "NewExpression") return;
            const message = messageOf(node.argument);
            if (!message) return;
            const { text } = message;
            if (/^[a-z]/.test(text) || /[^.]\.$/.test(text)) {
              context.report({
                node: node.argument,
                message: "Error messages begin with a capital letter and end without a full stop",
              });
            }
          },
        };
      },
    },
  },
};
export default plugin;
