import { expect, test } from "vitest";
import { setScope } from "../api/scope.ts";
import { thingAddress, thingHref } from "./thing-address.ts";

test("a link to a thing keeps the chosen project, and names the thing's own where all are chosen", () => {
  const thing = { kind: "instance", id: "i-1", project: "shop" };
  setScope("*", undefined);
  expect(thingHref(thing)).toBe("/ui/instances/i-1?in=shop");
  expect(thingHref({ ...thing, project: "default" })).toBe("/ui/instances/i-1");
  setScope("shop", undefined);
  expect(thingHref(thing)).toBe("/ui/instances/i-1?project=shop");
  setScope(undefined, undefined);
  expect(thingHref(thing)).toBe("/ui/instances/i-1");
});

test("the page of a security group is in the folder that the API names", () => {
  expect(thingHref({ kind: "security_group", id: "g-1" })).toBe("/ui/security-groups/g-1");
  expect(thingAddress({ kind: "security_group", id: "g-1" }).to).toBe("/security-groups/$group");
});
