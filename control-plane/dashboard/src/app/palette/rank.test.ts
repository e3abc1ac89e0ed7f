import { expect, test } from "vitest";
import { quickestMs } from "../../ui/quickest.ts";
import { mostShown, rank } from "./rank.ts";

const entry = (title: string, ...words: string[]) => ({ title, words });
const found = (text: string, ...entries: { title: string; words: string[] }[]) =>
  rank(entries, text).map(({ title }) => title);

test("what is named exactly comes before what begins so, and that before what has it anywhere", () => {
  const things = [entry("my-web"), entry("webshop"), entry("web"), entry("cobweb")];
  expect(found("web", ...things)).toEqual(["web", "webshop", "my-web", "cobweb"]);
});

test("every word has to be found, in any order, also in further words", () => {
  const things = [entry("Stop web", "deployment"), entry("Stop db", "deployment"), entry("web", "instance")];
  expect(found("web stop", ...things)).toEqual(["Stop web"]);
  expect(found("deployment db", ...things)).toEqual(["Stop db"]);
  expect(found("nothing", ...things)).toEqual([]);
});

test("a thing is found by its id", () => {
  expect(found("01A227AC-04", entry("web.0", "01a227ac-04a7"), entry("web.1", "01a227ac-05b8"))).toEqual(["web.0"]);
});

test("the order is kept while nothing is typed, and the list is never longer than one can look through", () => {
  const many = Array.from({ length: 10_000 }, (_, n) => entry(`web.${n}`));
  expect(rank(many, "")[0]?.title).toBe("web.0");
  expect(rank(many, "").length).toBe(mostShown);
  expect(rank(many, "web 99")[0]?.title).toBe("web.99");
  expect(quickestMs(() => rank(many, "web 99"))).toBeLessThan(200);
});
