import { assertAlmostEquals, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { NormalEquations } from "./least_squares.ts";

Deno.test("NormalEquations.solve() finds what made the values", () => {
  const number = fc.double({ min: -10, max: 10, noNaN: true });
  fc.assert(fc.property(number, number, number, (x, y, z) => {
    const equations = new NormalEquations(3);
    const rows = [[1, 0, 0], [1, 2, 0], [0, 1, 3], [1, 1, 1], [2, 0, 5]];
    rows.forEach((row, i) => {
      const value = row[0] * x + row[1] * y + row[2] * z;
      equations.add(row.map((element, k) => [k, element] as const), { value, weight: i + 1 });
    });
    const solution = equations.solve(1e-9);
    [x, y, z].forEach((wanted, i) => assertAlmostEquals(solution[i] ?? NaN, wanted, 1e-8));
  }));
});

Deno.test("NormalEquations.solve() weighs rows that contradict each other", () => {
  const equations = new NormalEquations(1);
  equations.add([[0, 1]], { value: 10, weight: 3 });
  equations.add([[0, 1]], { value: 20, weight: 1 });
  assertEquals(equations.solve(1e-9), [12.5]);
});

Deno.test("NormalEquations.solve() leaves unknowns undefined that the rows do not tell apart", () => {
  const equations = new NormalEquations(4);
  equations.add([[0, 1], [2, 5]], { value: 7, weight: 1 });
  equations.add([[0, 1], [2, 5]], { value: 7, weight: 1 });
  equations.add([[3, 2]], { value: 8, weight: 1 });
  assertEquals(equations.solve(1e-9).map((value) => value && Math.round(value * 1e9) / 1e9), [
    7,
    undefined,
    undefined,
    4,
  ]);
});
