import { expect, test } from "vitest";
import type { Image } from "../../api/images.ts";
import { systemChange, systemTexts } from "./system.ts";

const known = { os: "debian-12", default_user: null, min_disk_bytes: 2 * 1024 ** 3, min_memory_bytes: null } as Image;

test("what is not known is an empty text, and an empty text forgets", () => {
  const texts = systemTexts(known);
  expect(texts).toEqual({ os: "debian-12", user: "", disk: "2GiB", memory: "", firmware: "" });
  expect(systemChange({ ...texts, os: "  ", memory: "512 MiB" })).toEqual({
    change: { os: null, default_user: null, min_disk_bytes: 2 * 1024 ** 3, min_memory_bytes: 512 * 1024 ** 2 },
  });
});

test("a size that cannot be read is named", () => {
  expect(systemChange({ ...systemTexts(known), memory: "much" })).toEqual({ unread: "memory" });
});

test("the firmware stays as it is, is another, or is found out again", () => {
  const change = (firmware: "" | "auto" | "uefi") => systemChange({ ...systemTexts(known), firmware });
  expect(change("")).not.toHaveProperty("change.firmware");
  expect(change("uefi")).toHaveProperty("change.firmware", "uefi");
  expect(change("auto")).toHaveProperty("change.firmware", null);
});
