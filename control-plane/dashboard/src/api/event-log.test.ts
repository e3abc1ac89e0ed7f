import { expect, test } from "vitest";
import { event } from "../live/fixtures.ts";
import { keepNewest } from "./event-log.ts";

const events = (...ids: string[]) => ids.map((id) => event("instance", id));
const ids = (list: ReturnType<typeof events>) => list.map(({ target }) => target.id);

test("new events come at the end, once, and the oldest leave", () => {
  const first = keepNewest([], events("a", "b"), 3);
  expect(ids(keepNewest(first, events("b", "c"), 3))).toEqual(["a", "b", "c"]);
  expect(ids(keepNewest(first, events("c", "d"), 3))).toEqual(["b", "c", "d"]);
});
