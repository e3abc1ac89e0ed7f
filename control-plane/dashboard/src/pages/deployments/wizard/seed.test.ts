import { expect, test } from "vitest";
import { emptySeed, seedMeantBy } from "./seed.ts";

test("what is left empty is not said, so that a fork takes over what was forked", () => {
  expect(seedMeantBy(emptySeed, false)).toEqual({ request: {}, unread: {} });
  expect(seedMeantBy(emptySeed, true)).toEqual({ request: {}, unread: {} });
});

test("a fork that takes over nothing says so", () => {
  const seed = { ...emptySeed, fresh: true };
  expect(seedMeantBy(seed, true).request).toEqual({ ssh_keys: [], user_data: "" });
  expect(seedMeantBy(seed, false).request).toEqual({});
  expect(seedMeantBy({ ...seed, data: "#!/bin/sh\n" }, true).request).toEqual({
    ssh_keys: [],
    user_data: "#!/bin/sh\n",
  });
});

test("each line is a key, and user data is sent as it was typed", () => {
  const keys = " ssh-ed25519 AAAA me \n\nssh-rsa BBBB\n";
  const data = "#cloud-config\npackages: [nginx]\n";
  expect(seedMeantBy({ keys, data, fresh: false }, false).request).toEqual({
    ssh_keys: ["ssh-ed25519 AAAA me", "ssh-rsa BBBB"],
    user_data: data,
  });
});

test("a private key is never part of a request", () => {
  const keys = "ssh-ed25519 AAAA\n-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n";
  const { request, unread } = seedMeantBy({ keys, data: "#!x", fresh: false }, false);
  expect(request).toEqual({});
  expect(unread.keys).toContain("private key");
  expect(unread.keys).not.toContain("secret");
});
