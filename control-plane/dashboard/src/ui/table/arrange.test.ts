import { expect, test } from "vitest";
import { quickestMs } from "../quickest.ts";
import { facetRows, filterRows, prepareTexts, sortRows, windowOf } from "./arrange.ts";

interface Row {
  id: string;
  name: string;
  state: string;
  size: number | null;
}
const columns = [
  { key: "name", value: (row: Row) => row.name },
  { key: "state", value: (row: Row) => row.state },
  { key: "size", value: (row: Row) => row.size },
];
const row = (name: string, state: string, size: number | null): Row => ({ id: `id-of-${name}`, name, state, size });
const rows = [row("web.10", "running", 5), row("web.2", "failed", null), row("db.0", "running", 40)];
const names = (some: readonly Row[]) => some.map(({ name }) => name);

test("names are sorted as people count", () => {
  expect(names(sortRows(rows, columns, "name"))).toEqual(["db.0", "web.2", "web.10"]);
  expect(names(sortRows(rows, columns, "-name"))).toEqual(["web.10", "web.2", "db.0"]);
});

test("numbers are sorted by size, and what has none comes last in both directions", () => {
  expect(names(sortRows(rows, columns, "size"))).toEqual(["web.10", "db.0", "web.2"]);
  expect(names(sortRows(rows, columns, "-size"))).toEqual(["db.0", "web.10", "web.2"]);
});

test("an unknown column leaves the order as it is", () => {
  expect(sortRows(rows, columns, "nothing")).toBe(rows);
});

test("a filter finds rows that have all of its words anywhere, in any case, also in the id", () => {
  expect(names(filterRows(rows, columns, ({ id }) => id, "WEB run"))).toEqual(["web.10"]);
  expect(names(filterRows(rows, columns, ({ id }) => id, "id-of-db"))).toEqual(["db.0"]);
  expect(filterRows(rows, columns, ({ id }) => id, "  ")).toBe(rows);
});

test("a choice of values takes the rows that have one of them", () => {
  expect(names(facetRows(rows, columns, { state: ["failed"], size: [] }))).toEqual(["web.2"]);
  expect(facetRows(rows, columns, { state: [] })).toBe(rows);
});

test("only the rows in sight are drawn, with some around them", () => {
  expect(windowOf(10_000, 36, 0, 720)).toEqual({ first: 0, last: 32 });
  expect(windowOf(10_000, 36, 36 * 5000, 720)).toEqual({ first: 4988, last: 5032 });
  expect(windowOf(3, 36, 36 * 5000, 720)).toEqual({ first: 0, last: 3 });
  expect(windowOf(0, 36, 0, 0)).toEqual({ first: 0, last: 0 });
});

test("filtering and sorting 10,000 rows takes far less than the time in which a page has to react", () => {
  const many = Array.from({ length: 10_000 }, (_, n) =>
    row(`web.${(n * 7919) % 10_000}`, n % 3 ? "running" : "failed", n),
  );
  const find = () =>
    sortRows(
      filterRows(many, columns, ({ id }) => id, "web.99 failed"),
      columns,
      "name",
    );
  expect(quickestMs(find)).toBeLessThan(200);
  expect(find().length).toBeGreaterThan(10);
  expect(quickestMs(() => sortRows(many, columns, "-name"))).toBeLessThan(200);
});

test("texts are made in steps, and rows are found by them", () => {
  const many = Array.from({ length: 900 }, (_, n) => ({ id: `i-${n}`, name: `web.${n}`, size: n }));
  let calls = 0;
  const value = (row: { name: string }) => {
    calls += 1;
    return row.name;
  };
  const counted = [{ key: "name", value }];
  const id = (row: { id: string }) => row.id;
  const steps = [];
  for (let at = 0; at < many.length; steps.push(at)) at = prepareTexts(many, counted, id, at);
  expect(steps).toEqual([400, 800, 900]);
  expect(filterRows(many, counted, id, "web.899")).toHaveLength(1);
  expect(calls).toBe(900);
});
