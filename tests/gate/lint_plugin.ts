/**
 * Lint rules of the project, loaded by `deno lint` (see `deno.json`).
 *
 * - `house/no-module-state`: no `let` or `var` at the top of a module, so that two engines can live in one process.
 * - `house/no-dlopen`: native libraries are opened in `ffi/` only.
 * - `house/hash-private`: `#name` instead of the `private` keyword.
 * - `house/error-message`: messages of thrown errors begin with a capital letter and end without a full stop.
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
