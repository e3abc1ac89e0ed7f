import { expect, test } from "vitest";
import type { Summary } from "../../api/summary.ts";
import { firstSteps, total } from "./first-steps.ts";

const summary = (nodes: object, images: object, deployments: object) =>
  ({ nodes, images, deployments }) as unknown as Summary;

test("a fresh cluster needs a node, an image and a deployment, in this order", () => {
  const steps = firstSteps(summary({}, {}, {}), true);
  expect(steps.map(({ key, done }) => [key, done])).toEqual([
    ["node", false],
    ["image", false],
    ["deploy", false],
  ]);
});

test("an image without content is no image yet", () => {
  const steps = firstSteps(summary({ ready: 3 }, { empty: 1 }, {}), true);
  expect(steps.map(({ done }) => done)).toEqual([true, false, false]);
});

test("a tenant joins no nodes", () => {
  expect(firstSteps(summary({}, {}, {}), false).map(({ key }) => key)).toEqual(["image", "deploy"]);
});

test("there are no first steps once all are done", () => {
  expect(firstSteps(summary({ ready: 1 }, { ready: 1 }, { degraded: 1 }), true)).toEqual([]);
});

test("deleted things do not count", () => {
  expect(total({ ready: 2, deleted: 5 })).toBe(2);
});
